//! Views of objects: the rows and columns of a Table.
//!
//! Rows are made when they are asked for: many cells are ages, and those are never the same twice.

use bytes::Bytes;
use copepod_codec::frame;
use copepod_kinds::{Column, Context, Row};
use copepod_meta::{Map, Status, User, Value};
use copepod_schema::Media;

use crate::api::{Form, Include, View};
use crate::collection::now;
use crate::object::Object;
use crate::served::Served;
use crate::wire;

/// The columns of resources that say nothing else. upstream: apiserver/pkg/registry/rest/table.go
static DEFAULT_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        ty: "string",
        format: "name",
        description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
        priority: 0,
    },
    Column {
        name: "Created At",
        ty: "date",
        format: "",
        description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        priority: 0,
    },
];

/// The columns of a resource's Table.
pub fn columns(served: &Served) -> &'static [Column] {
    let own = served.kind.strategy.columns();
    if own.is_empty() { &DEFAULT_COLUMNS } else { own }
}

/// `columnDefinitions` of a resource's Table, as JSON.
pub fn column_definitions(served: &Served) -> Bytes {
    let definitions = columns(served).iter().map(|c| {
        Value::Map(Map::from_iter([
            ("name", Value::string(c.name)),
            ("type", Value::string(c.ty)),
            ("format", Value::string(c.format)),
            ("description", Value::string(c.description)),
            ("priority", Value::Int(c.priority)),
        ]))
    });
    let order = ["name", "type", "format", "description", "priority"];
    let mut out = Vec::with_capacity(1024);
    out.push(b'[');
    for (i, definition) in definitions.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        for (j, name) in order.iter().enumerate() {
            out.extend_from_slice(if j == 0 { b"{\"" } else { b",\"" });
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            wire::encode_untyped(definition.get(name), &mut out);
        }
        out.push(b'}');
    }
    out.push(b']');
    out.into()
}

/// One row: `{"cells":[..],"conditions":[..],"object":{..}}`.
/// upstream: meta/v1 TableRow; apiserver/pkg/endpoints/handlers/response.go asTable
pub(crate) fn row(object: &Object, include: Include) -> Result<Bytes, Status> {
    let made = make_row(object)?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"cells\":");
    wire::encode_untyped(&Value::List(made.cells), &mut out);
    if !made.conditions.is_empty() {
        out.extend_from_slice(b",\"conditions\":");
        wire::encode_untyped(&Value::List(made.conditions), &mut out);
    }
    out.extend_from_slice(b",\"object\":");
    match include {
        Include::None => out.extend_from_slice(b"null"),
        Include::Metadata => {
            let body = object.body(Form { media: Media::Json, view: View::Partial })?;
            out.extend_from_slice(&body.bytes);
        }
        Include::Object => {
            let body = object.body(Form { media: Media::Json, view: View::Object })?;
            out.extend_from_slice(&frame::object(&object.served.gvk(), &body).join(&body));
        }
    }
    out.push(b'}');
    Ok(out.into())
}

fn make_row(object: &Object) -> Result<Row, Status> {
    let hub = object.hub()?;
    let strategy = object.served.kind.strategy;
    if strategy.columns().is_empty() {
        let meta = hub.get("metadata");
        let cells = vec![meta.get("name").clone(), meta.get("creationTimestamp").clone()];
        return Ok(Row { cells, conditions: Vec::new() });
    }
    let (user, now, resource) = (User::default(), now(), object.served.group_resource());
    let namespace = hub.str_at(&["metadata", "namespace"]);
    // No printer depends on a gate.
    let feature = |_: &str| false;
    let context = Context { user: &user, namespace, resource: &resource, now: &now, feature };
    Ok(strategy.row(&context, &hub))
}
