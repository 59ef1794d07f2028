//! Table columns and the cells that several kinds share.
//!
//! Columns are facts: `columns.tsv` is written by `hack/upstream/cmd/validation-goldens` from upstream's print handlers. Rows
//! are code, one function a kind. upstream: pkg/printers/internalversion/printers.go

use copepod_meta::{Value, time};
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::strategy::{Cell, Column, Row};

/// What upstream prints for a time that it cannot tell.
pub const UNKNOWN: &str = "<unknown>";
/// What upstream prints for nothing.
pub const NONE: &str = "<none>";
/// What upstream prints for an optional field that is not set.
pub const UNSET: &str = "<unset>";

static COLUMNS: LazyLock<HashMap<&'static str, Vec<Column>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Column>> = HashMap::new();
    for line in include_str!("columns.tsv").lines() {
        let mut parts = line.splitn(6, '\t');
        let mut next = || parts.next().unwrap_or("");
        let (kind, name, ty, format) = (next(), next(), next(), next());
        let priority = next().parse().unwrap_or(0);
        all.entry(kind).or_default().push(Column {
            name,
            ty,
            format,
            description: unescaped(next()),
            priority,
        });
    }
    all
});

/// A line break is written `\n` in the table. Texts with one are made once and live as long as the table.
fn unescaped(text: &'static str) -> &'static str {
    if text.contains("\\n") { Box::leak(text.replace("\\n", "\n").into_boxed_str()) } else { text }
}

/// The columns of an internal type, `core/Pod`; none if upstream has no printer for it.
pub fn columns(kind: &str) -> &'static [Column] {
    COLUMNS.get(kind).map_or(&[], Vec::as_slice)
}

/// A row of cells without conditions.
pub fn row(cells: impl Into<Vec<Cell>>) -> Row {
    Row { cells: cells.into(), conditions: Vec::new() }
}

/// `metadata.name`.
pub fn name(object: &Value) -> Cell {
    object.str_at(&["metadata", "name"]).into()
}

/// Age by creationTimestamp.
pub fn age(object: &Value) -> Cell {
    since(object.str_at(&["metadata", "creationTimestamp"]))
}

/// How long ago a time was.
pub fn since(timestamp: &str) -> Cell {
    match time::parse(timestamp) {
        Some(since) => Cell::Age { before: String::new(), since, after: "" },
        None => UNKNOWN.into(),
    }
}

/// Names and images of containers, comma-separated. upstream: layoutContainerCells
pub fn containers(pod_spec: &Value) -> (Cell, Cell) {
    let join = |member: &str| {
        let items = pod_spec.list_at(&["containers"]).iter().map(|c| c.str_at(&[member]));
        Cell::from(items.collect::<Vec<_>>().join(","))
    };
    (join("name"), join("image"))
}

/// A string map as `a=b,c=d`, `<none>` when empty. upstream: labels.FormatLabels
pub fn labels(map: &Value) -> String {
    let pairs: Vec<String> =
        map.map_at(&[]).iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    if pairs.is_empty() { NONE.into() } else { pairs.join(",") }
}

/// A label selector as text, `<none>` when empty. upstream: metav1.FormatLabelSelector
pub fn selector(selector: &Value) -> String {
    match copepod_meta::LabelSelector::from_value(selector) {
        Err(_) => "<error>".into(),
        Ok(parsed) if parsed.is_empty() => NONE.into(),
        Ok(parsed) => match parsed.to_string() {
            text if text.is_empty() => NONE.into(),
            text => text,
        },
    }
}
