//! Custom resources: from the OpenAPI schema of a CustomResourceDefinition version to the same type graph
//! that built-ins have.
//!
//! Owns: reading a structural `JSONSchemaProps` tree (as `copepod-codec` decodes it) into a [`Universe`] of
//! its own, with the implied `apiVersion`, `kind` and `metadata`, the list kind, and per position the
//! [`Constraints`] that validation asks. Does not: check that a schema is structural (the
//! CustomResourceDefinition's validation does), validate or default objects.
//!
//! Every position of the schema has a type of its own, so that [`Universe::constraints`] can be asked by
//! [`TypeId`]; the types of object metadata are copies of the built-in ones.
//!
//! How it fails: [`CrdError`] names the field of the schema that cannot be read; the caller refuses the
//! definition.

use std::collections::HashMap;
use std::sync::OnceLock;

use copepod_meta::{Gvk, Map, Value};

use crate::types::{
    Field, ListKind, ListType, MapType, Name, NameIndex, Omit, PatchStrategy, Scalar, Special, StructType,
    Type, TypeId,
};
use crate::universe::Universe;

/// How deep a schema may nest; upstream's decoder stops far later, its structural checks make deeper ones
/// useless.
const DEPTH_MAX: usize = 128;

/// Why a schema could not be read. The definition has to be changed by its author.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CrdError {
    /// `type` is none of JSON schema's.
    #[error("{path}.type: Unsupported value: {found:?}")]
    UnknownType {
        /// Where in the schema.
        path: String,
        /// What stood there.
        found: String,
    },
    /// Nested beyond [`DEPTH_MAX`].
    #[error("{path}: the schema is nested too deep")]
    TooDeep {
        /// Where in the schema.
        path: String,
    },
    /// A raw JSON value that is no JSON.
    #[error("{path}: {message}")]
    Malformed {
        /// Where in the schema.
        path: String,
        /// The parser's words.
        message: String,
    },
}

/// What a schema demands of the value at one position, beyond its shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Constraints {
    /// `nullable`
    pub nullable: bool,
    /// `default`
    pub default: Option<Value>,
    /// `enum`
    pub enum_values: Vec<Value>,
    /// `format`
    pub format: Option<Name>,
    /// `type`, as written; empty when the schema has none.
    pub declared_type: Name,
    /// `minimum` and `maximum`, each with its `exclusive...`
    pub minimum: Option<(f64, bool)>,
    /// See `minimum`.
    pub maximum: Option<(f64, bool)>,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `minLength`, `minItems` or `minProperties`, by type.
    pub min_count: Option<i64>,
    /// `maxLength`, `maxItems` or `maxProperties`, by type.
    pub max_count: Option<i64>,
    /// `pattern`
    pub pattern: Option<Name>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `required`
    pub required: Vec<Name>,
    /// `allOf`, `anyOf`, `oneOf`, `not`: value validations only, kept as written.
    pub junctors: Map,
    /// `x-kubernetes-validations`, kept as written.
    pub rules: Vec<Value>,
}

/// A custom resource's types in one version.
pub struct CrdTypes {
    /// The graph.
    pub universe: Universe,
    /// The object.
    pub object: TypeId,
    /// The list of objects.
    pub list: TypeId,
}

/// Reads the schema of one version. No schema, or `preserve_unknown` at the root, keeps all fields.
pub fn types(
    gvk: &Gvk,
    list_kind: &str,
    schema: &Value,
    preserve_unknown: bool,
) -> Result<CrdTypes, CrdError> {
    let mut builder = Builder { types: Vec::new(), constraints: HashMap::new(), copied: HashMap::new() };
    let object = builder.reserve();
    let (mut root, constraints) = builder.object(schema, "openAPIV3Schema", 0)?;
    root.gvk = Some(gvk.clone());
    root.preserve_unknown |= preserve_unknown || schema.is_null();
    builder.imply_type_meta(&mut root);
    builder.finish_struct(&mut root);
    builder.types[object.0 as usize] = Type::Struct(root);
    builder.constraints.insert(object, constraints);
    let list = builder.list_of(object, gvk, list_kind);
    let by_gvk =
        HashMap::from([(gvk.clone(), object), (Gvk::new(&gvk.group, &gvk.version, list_kind), list)]);
    let mut universe = Universe::from_types(builder.types, by_gvk);
    universe.set_constraints(builder.constraints);
    Ok(CrdTypes { universe, object, list })
}

struct Builder {
    types: Vec<Type>,
    constraints: HashMap<TypeId, Constraints>,
    /// Built-in types already copied here.
    copied: HashMap<TypeId, TypeId>,
}

impl Builder {
    fn reserve(&mut self) -> TypeId {
        self.add(Type::Any)
    }

    fn add(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        TypeId((self.types.len() - 1) as u32)
    }

    /// The type of one position.
    fn node(&mut self, schema: &Value, path: &str, depth: usize) -> Result<TypeId, CrdError> {
        if depth > DEPTH_MAX {
            return Err(CrdError::TooDeep { path: path.into() });
        }
        let id = self.reserve();
        let (ty, constraints) = self.shape(schema, path, depth)?;
        self.types[id.0 as usize] = ty;
        self.constraints.insert(id, constraints);
        Ok(id)
    }

    fn shape(&mut self, schema: &Value, path: &str, depth: usize) -> Result<(Type, Constraints), CrdError> {
        let constraints = read_constraints(schema, path)?;
        if schema.bool_at(&["x-kubernetes-int-or-string"]) {
            return Ok((Type::Special(Special::IntOrString), constraints));
        }
        let atomic = schema.str_at(&["x-kubernetes-map-type"]) == "atomic";
        let ty = match schema.str_at(&["type"]) {
            "object" => {
                let additional = schema.get("additionalProperties");
                if matches!(additional, Value::Bool(true) | Value::Map(_))
                    && schema.get("properties").is_null()
                {
                    let value = match additional {
                        Value::Map(_) => {
                            self.node(additional, &format!("{path}.additionalProperties"), depth + 1)?
                        }
                        _ => self.reserve(),
                    };
                    Type::Map(MapType { value, atomic })
                } else {
                    let (mut object, _) = self.object(schema, path, depth)?;
                    self.finish_struct(&mut object);
                    Type::Struct(object)
                }
            }
            "array" => self.list(schema, path, depth)?,
            "string" => Type::Scalar(Scalar::String),
            "integer" => Type::Scalar(Scalar::Int64),
            "number" => Type::Scalar(Scalar::Number),
            "boolean" => Type::Scalar(Scalar::Bool),
            "" => Type::Any,
            found => return Err(CrdError::UnknownType { path: path.into(), found: found.into() }),
        };
        Ok((ty, constraints))
    }

    fn list(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Type, CrdError> {
        let items = schema.get("items");
        let elem = if items.is_null() {
            self.reserve()
        } else {
            self.node(items, &format!("{path}.items"), depth + 1)?
        };
        let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
            "set" => ListKind::Set,
            "map" => {
                let keys = schema.list_at(&["x-kubernetes-list-map-keys"]).iter();
                ListKind::Map { keys: keys.filter_map(Value::as_str).map(name).collect() }
            }
            _ => ListKind::Atomic,
        };
        Ok(Type::List(ListType { elem, elem_pointer: false, kind, proto_message: false }))
    }

    /// A struct of the schema's properties; its lookups are not made yet.
    fn object(
        &mut self,
        schema: &Value,
        path: &str,
        depth: usize,
    ) -> Result<(StructType, Constraints), CrdError> {
        let constraints = read_constraints(schema, path)?;
        let mut fields = Vec::new();
        for (json, property) in schema.map_at(&["properties"]).iter() {
            let ty = self.node(property, &format!("{path}.properties[{json}]"), depth + 1)?;
            let inner = &self.constraints[&ty];
            let mut field = plain_field(json, ty);
            field.required = constraints.required.iter().any(|r| r == json);
            field.nullable = inner.nullable;
            field.default = inner.default.clone();
            field.format = inner.format.clone();
            let texts = inner.enum_values.iter().map(|v| v.as_str().map(name)).collect::<Option<Vec<_>>>();
            field.enum_values = texts.filter(|t| !t.is_empty()).map(Vec::into_boxed_slice);
            field.atomic = property.str_at(&["x-kubernetes-map-type"]) == "atomic";
            fields.push(field);
        }
        let embedded = schema.bool_at(&["x-kubernetes-embedded-resource"]);
        let mut object = StructType {
            name: Name::Borrowed(""),
            fields: fields.into_boxed_slice(),
            by_json: NameIndex::default(),
            proto: Box::default(),
            gvk: None,
            atomic: schema.str_at(&["x-kubernetes-map-type"]) == "atomic",
            preserve_unknown: schema.bool_at(&["x-kubernetes-preserve-unknown-fields"]),
            embedded_resource: embedded,
            always_written: OnceLock::new(),
        };
        if embedded {
            self.imply_type_meta(&mut object);
        }
        Ok((object, constraints))
    }

    /// Gives an object the fields that every object has, whatever its schema says of them.
    fn imply_type_meta(&mut self, object: &mut StructType) {
        let text = self.add(Type::Scalar(Scalar::String));
        let metadata = self.copy_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        let mut fields = std::mem::take(&mut object.fields).into_vec();
        for (json, ty) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
            match fields.iter_mut().find(|f| f.json == json) {
                Some(field) if json == "metadata" => field.ty = ty,
                Some(_) => {}
                None => fields.push(plain_field(json, ty)),
            }
        }
        object.fields = fields.into_boxed_slice();
    }

    fn finish_struct(&mut self, object: &mut StructType) {
        object.fields.sort_by(|a, b| a.json.cmp(&b.json));
        object.by_json = NameIndex::of(&object.fields);
    }

    fn list_of(&mut self, object: TypeId, gvk: &Gvk, list_kind: &str) -> TypeId {
        let text = self.add(Type::Scalar(Scalar::String));
        let metadata = self.copy_named("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
        let items = self.add(Type::List(ListType {
            elem: object,
            elem_pointer: false,
            kind: ListKind::Atomic,
            proto_message: false,
        }));
        let rows = [("apiVersion", text), ("items", items), ("kind", text), ("metadata", metadata)];
        let mut list = StructType {
            name: Name::Borrowed(""),
            fields: rows.into_iter().map(|(json, ty)| plain_field(json, ty)).collect(),
            by_json: NameIndex::default(),
            proto: Box::default(),
            gvk: Some(Gvk::new(&gvk.group, &gvk.version, list_kind)),
            atomic: false,
            preserve_unknown: false,
            embedded_resource: false,
            always_written: OnceLock::new(),
        };
        self.finish_struct(&mut list);
        self.add(Type::Struct(list))
    }

    fn copy_named(&mut self, type_name: &str) -> TypeId {
        match Universe::builtin().by_name(type_name) {
            Some(id) => self.copy(id),
            None => self.reserve(),
        }
    }

    /// A built-in type and what it refers to, in this universe.
    fn copy(&mut self, builtin: TypeId) -> TypeId {
        if let Some(&done) = self.copied.get(&builtin) {
            return done;
        }
        let id = self.reserve();
        self.copied.insert(builtin, id);
        let mut ty = Universe::builtin().get(builtin).clone();
        match &mut ty {
            Type::Struct(s) => s.fields.iter_mut().for_each(|f| f.ty = self.copy(f.ty)),
            Type::List(l) => l.elem = self.copy(l.elem),
            Type::Map(m) => m.value = self.copy(m.value),
            Type::Special(
                Special::JsonSchemaPropsOrBool(of)
                | Special::JsonSchemaPropsOrArray(of)
                | Special::JsonSchemaPropsOrStringArray(of),
            ) => *of = self.copy(*of),
            Type::Scalar(_) | Type::Special(_) | Type::Any => {}
        }
        self.types[id.0 as usize] = ty;
        id
    }
}

fn name(text: &str) -> Name {
    Name::Owned(text.to_owned())
}

/// A field that is written whenever it is there.
fn plain_field(json: &str, ty: TypeId) -> Field {
    Field {
        json: name(json),
        go_name: Name::Borrowed(""),
        ty,
        pointer: true,
        omit: Omit::Empty,
        proto: None,
        patch_strategy: PatchStrategy::default(),
        patch_merge_key: None,
        atomic: false,
        required: false,
        nullable: false,
        default: None,
        enum_values: None,
        embedded: None,
        empty_default: false,
        go_type: None,
        format: None,
    }
}

fn read_constraints(schema: &Value, path: &str) -> Result<Constraints, CrdError> {
    let text = |key: &str| schema.get(key).as_str().filter(|s| !s.is_empty()).map(name);
    let declared = schema.str_at(&["type"]);
    let (min_count, max_count) = match declared {
        "string" => ("minLength", "maxLength"),
        "array" => ("minItems", "maxItems"),
        _ => ("minProperties", "maxProperties"),
    };
    let bound =
        |key: &str, exclusive: &str| number(schema.get(key)).map(|n| (n, schema.bool_at(&[exclusive])));
    let mut junctors = Map::default();
    for key in ["allOf", "anyOf", "oneOf", "not"] {
        if !schema.get(key).is_null() {
            junctors.insert(key, parsed(schema.get(key), path)?);
        }
    }
    let default = schema.get("default");
    Ok(Constraints {
        nullable: schema.bool_at(&["nullable"]),
        default: if default.is_null() { None } else { Some(parsed(default, &format!("{path}.default"))?) },
        enum_values: schema
            .list_at(&["enum"])
            .iter()
            .map(|v| parsed(v, &format!("{path}.enum")))
            .collect::<Result<_, _>>()?,
        format: text("format"),
        declared_type: name(declared),
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: number(schema.get("multipleOf")),
        min_count: schema.get(min_count).as_int(),
        max_count: schema.get(max_count).as_int(),
        pattern: text("pattern"),
        unique_items: schema.bool_at(&["uniqueItems"]),
        required: schema.list_at(&["required"]).iter().filter_map(Value::as_str).map(name).collect(),
        junctors,
        rules: schema.list_at(&["x-kubernetes-validations"]).to_vec(),
    })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

/// A value with all raw JSON in it parsed: the codec keeps `default`, `enum` and `example` verbatim.
fn parsed(value: &Value, path: &str) -> Result<Value, CrdError> {
    Ok(match value {
        Value::Raw(text) => {
            let json: serde_json::Value = serde_json::from_slice(text)
                .map_err(|e| CrdError::Malformed { path: path.into(), message: e.to_string() })?;
            from_json(json)
        }
        Value::List(items) => Value::List(items.iter().map(|v| parsed(v, path)).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let entries = map.iter().map(|(k, v)| Ok((k.into(), parsed(v, path)?)));
            Value::Map(Map::from_entries(entries.collect::<Result<_, CrdError>>()?))
        }
        other => other.clone(),
    })
}

pub(crate) fn from_json(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().unwrap_or(f64::INFINITY)),
        },
        serde_json::Value::String(s) => Value::string(s),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(members) => Value::Map(Map::from_entries(
            members.into_iter().map(|(k, v)| (k.into(), from_json(v))).collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a struct on one line each: name, shape, and what stands out.
    fn describe(universe: &Universe, id: TypeId, indent: usize, out: &mut String) {
        let pad = "  ".repeat(indent);
        let Some(object) = universe.get_struct(id) else { return };
        for field in &object.fields {
            if field.json == "metadata" {
                *out +=
                    &format!("{pad}metadata: {}\n", universe.get_struct(field.ty).expect("a struct").name);
                continue;
            }
            *out += &format!("{pad}{}: {}", field.json, shape(universe, field.ty));
            for (on, word) in [(field.required, " required"), (field.nullable, " nullable")] {
                if on {
                    *out += word;
                }
            }
            if let Some(default) = &field.default {
                *out += &format!(" = {default:?}");
            }
            *out += "\n";
            describe(universe, field.ty, indent + 1, out);
        }
    }

    fn shape(universe: &Universe, id: TypeId) -> String {
        match universe.get(id) {
            Type::Struct(s) if s.preserve_unknown => "object...".into(),
            Type::Struct(_) => "object".into(),
            Type::Map(m) => format!("map of {}", shape(universe, m.value)),
            Type::List(l) => match &l.kind {
                ListKind::Map { keys } => {
                    format!("list by {} of {}", keys.join(","), shape(universe, l.elem))
                }
                kind => format!("list {kind:?} of {}", shape(universe, l.elem)),
            },
            Type::Scalar(s) => format!("{s:?}"),
            Type::Special(s) => format!("{s:?}"),
            Type::Any => "any".into(),
        }
    }

    fn check(schema: &str, want: &str) {
        let schema = from_json(serde_json::from_str(schema).expect("the test's schema is JSON"));
        let made = types(&Gvk::new("example.com", "v1", "Crontab"), "CrontabList", &schema, false)
            .expect("readable");
        let mut got = String::new();
        describe(&made.universe, made.object, 0, &mut got);
        assert_eq!(got.trim(), want.trim());
    }

    #[test]
    fn a_schema_becomes_types() {
        check(
            r#"{"type": "object", "required": ["spec"], "properties": {
                "metadata": {"type": "object"},
                "spec": {"type": "object", "properties": {
                    "replicas": {"type": "integer", "format": "int32", "default": 1, "minimum": 0},
                    "port": {"x-kubernetes-int-or-string": true},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "anything": {"x-kubernetes-preserve-unknown-fields": true},
                    "ratio": {"type": "number", "nullable": true},
                    "hosts": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                              "items": {"type": "object", "properties": {"name": {"type": "string"}}}}
                }}}}"#,
            "
apiVersion: String
kind: String
metadata: io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta
spec: object required
  anything: any
  free: object...
  hosts: list Set of String
  labels: map of String
  port: IntOrString
  ports: list by name of object
  ratio: Number nullable
  replicas: Int64 = Int(1)",
        );
    }

    #[test]
    fn without_a_schema_everything_is_kept() {
        let gvk = Gvk::new("example.com", "v1", "Free");
        let made = types(&gvk, "FreeList", &Value::Null, false).expect("readable");
        let object = made.universe.get_struct(made.object).expect("a struct");
        assert!(object.preserve_unknown && made.universe.is_unstructured());
        assert_eq!(
            object.fields.iter().map(|f| f.json.as_ref()).collect::<Vec<_>>(),
            ["apiVersion", "kind", "metadata"]
        );
        assert_eq!(made.universe.by_gvk(&gvk), Some(made.object));
        assert_eq!(made.universe.by_gvk(&Gvk::new("example.com", "v1", "FreeList")), Some(made.list));
    }

    #[test]
    fn constraints_are_kept_by_position() {
        let schema = Value::Map(Map::from_entries(vec![
            ("type".into(), Value::string("object")),
            (
                "properties".into(),
                from_json(serde_json::json!({
                    "name": {"type": "string", "maxLength": 5, "pattern": "^a", "enum": ["ab", "ac"]},
                    "size": {"type": "number", "maximum": 10, "exclusiveMaximum": true},
                })),
            ),
        ]));
        let made = types(&Gvk::new("example.com", "v1", "X"), "XList", &schema, false).expect("readable");
        let object = made.universe.get_struct(made.object).expect("a struct");
        let of = |field: &str| {
            let ty = object.field(field).expect("there").ty;
            made.universe.constraints(ty).expect("every position has them").clone()
        };
        assert_eq!((of("name").max_count, of("name").pattern), (Some(5), Some(name("^a"))));
        assert_eq!(of("name").enum_values, [Value::string("ab"), Value::string("ac")]);
        assert_eq!(of("size").maximum, Some((10.0, true)));
    }

    #[test]
    fn an_unknown_type_is_named() {
        let schema = from_json(serde_json::json!({"type": "object", "properties": {"a": {"type": "text"}}}));
        let error = types(&Gvk::new("g", "v1", "X"), "XList", &schema, false).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("openAPIV3Schema.properties[a].type: Unsupported value: \"text\""));
    }
}
