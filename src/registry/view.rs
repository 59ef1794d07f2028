//! Views of objects: the rows and columns of a Table.
//!
//! A row is made once per revision and kept as bytes like any other body. Ages are not kept but the times from which they are
//! reckoned: they are filled in when the row is shown.

use bytes::Bytes;
use copepod_kinds::{Cell, Column, Row, Strategy};
use copepod_meta::time::Timestamp;
use copepod_meta::{Map, Value};

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
    definitions_of(columns(served))
}

/// `columnDefinitions` and the row, less its end, of something that is not stored, as it is shown now.
pub(crate) fn tree_row(strategy: &dyn Strategy, tree: &Value) -> (Bytes, Bytes) {
    (definitions_of(strategy.columns()), row_at(&kept_row(strategy, tree), copepod_meta::time::now()))
}

fn definitions_of(columns: &[Column]) -> Bytes {
    let definitions = columns.iter().map(|c| {
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

/// What stands in a kept row where an age goes, before the time from which it is reckoned (microseconds since the epoch,
/// little-endian). No JSON text holds this byte as it is.
const HOLE: u8 = 1;
const HOLE_BYTES: usize = 1 + size_of::<i64>();

/// The part of a row that is true of a revision for ever: `{"cells":[..],"conditions":[..],"object":`, with holes for ages.
/// upstream: meta/v1 TableRow; apiserver/pkg/endpoints/handlers/response.go asTable
pub(crate) fn kept_row(strategy: &dyn Strategy, hub: &Value) -> Bytes {
    let made = make_row(strategy, hub);
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"cells\":[");
    for (at, cell) in made.cells.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        keep_cell(cell, &mut out);
    }
    out.push(b']');
    if !made.conditions.is_empty() {
        out.extend_from_slice(b",\"conditions\":");
        wire::encode_untyped(&Value::List(made.conditions), &mut out);
    }
    out.extend_from_slice(b",\"object\":");
    out.into_boxed_slice().into()
}

fn keep_cell(cell: &Cell, out: &mut Vec<u8>) {
    match cell {
        Cell::Fixed(value) => wire::encode_untyped(value, out),
        Cell::Age { before, since, after } => {
            wire::encode_untyped(&Value::string(before), out);
            out.pop();
            out.push(HOLE);
            out.extend_from_slice(&since.as_microsecond().to_le_bytes());
            let mut end = Vec::with_capacity(after.len() + 2);
            wire::encode_untyped(&Value::string(after), &mut end);
            out.extend_from_slice(&end[1..]);
        }
    }
}

/// A kept row as it is shown at a moment.
pub(crate) fn row_at(kept: &Bytes, now: Timestamp) -> Bytes {
    let mut rest = &kept[..];
    let mut out = Vec::with_capacity(kept.len() + 16);
    while let Some(hole) = rest.iter().position(|b| *b == HOLE)
        && let Some((before, behind)) = rest.split_at_checked(hole)
        && let Some((held, behind)) = behind.split_at_checked(HOLE_BYTES)
    {
        let since = held[1..].try_into().map_or(0, i64::from_le_bytes);
        out.extend_from_slice(before);
        put_age(since, now, &mut out);
        rest = behind;
    }
    if out.is_empty() {
        return kept.clone();
    }
    out.extend_from_slice(rest);
    out.into()
}

fn put_age(since_micros: i64, now: Timestamp, out: &mut Vec<u8>) {
    let since = Timestamp::from_microsecond(since_micros).unwrap_or(Timestamp::UNIX_EPOCH);
    // With its quotes, because of `<invalid>`, which JSON of Go's escapes.
    let mut text = Vec::with_capacity(16);
    wire::encode_untyped(&Value::from(copepod_kinds::strategy::age(since, now)), &mut text);
    out.extend_from_slice(&text[1..text.len() - 1]);
}

fn make_row(strategy: &dyn Strategy, hub: &Value) -> Row {
    if strategy.columns().is_empty() {
        // A bookmark has neither: it shows what Go prints of nothing.
        let created = match hub.str_at(&["metadata", "creationTimestamp"]) {
            "" => "0001-01-01T00:00:00Z",
            time => time,
        };
        let cells = vec![Cell::from(hub.str_at(&["metadata", "name"])), Cell::from(created)];
        return Row { cells, conditions: Vec::new() };
    }
    strategy.row(hub)
}

#[cfg(test)]
mod tests {
    use copepod_meta::time;

    use super::*;

    /// A row that is kept shows at each moment what one made at that moment would.
    #[test]
    fn ages_go_on_in_kept_rows() {
        let then = time::parse("2026-01-02T03:04:05.678901Z").expect("a time");
        let mut hub = Value::map();
        hub.set(&["metadata", "name"], "a\u{1}<\"b");
        hub.set(&["metadata", "creationTimestamp"], "2026-01-02T03:04:05Z");
        struct Ages(Timestamp);
        impl Strategy for Ages {
            fn columns(&self) -> &'static [Column] {
                &DEFAULT_COLUMNS
            }
            fn row(&self, hub: &Value) -> Row {
                let age = Cell::Age { before: String::new(), since: self.0, after: "" };
                let cells = vec![
                    copepod_kinds::cells::name(hub),
                    age.clone(),
                    copepod_kinds::cells::age(hub),
                    age.between("4\u{1} (".into(), " \"ago)"),
                    7.into(),
                ];
                Row { cells, conditions: vec![hub.get("metadata").clone()] }
            }
        }
        let strategy = Ages(then);
        let kept = kept_row(&strategy, &hub);
        for later in [-10, -1, 0, 1, 59, 119, 120, 605, 11_000, 90_000, 70_000_000] {
            let now = time::plus_seconds(time::parse("2026-01-02T03:04:06Z").expect("a time"), later);
            let row = strategy.row(&hub);
            let cells = row.cells.iter().map(|cell| cell.at(now)).collect();
            let mut want = b"{\"cells\":".to_vec();
            wire::encode_untyped(&Value::List(cells), &mut want);
            want.extend_from_slice(b",\"conditions\":");
            wire::encode_untyped(&Value::List(row.conditions), &mut want);
            want.extend_from_slice(b",\"object\":");
            let got = row_at(&kept, now);
            assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&want), "{later} s later");
        }
    }

    #[test]
    fn a_row_without_ages_is_shared() {
        let kept = kept_row(copepod_kinds::generic::strategy(false, false), &Value::map());
        assert_eq!(row_at(&kept, time::now()).as_ptr(), kept.as_ptr());
    }
}
