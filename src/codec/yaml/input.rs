//! Events of a YAML document -> the plain tree of the JSON it stands for.
//!
//! Bounds: nesting by the parser and by [`TREE_DEPTH_MAX`] (aliases included), what aliases may add by
//! [`ALIASED_NODES_MAX`].
//! upstream: go.yaml.in/yaml/v2 decode.go, sigs.k8s.io/yaml convertToJSONableObject

use std::collections::HashMap;

use copepod_meta::{Bytes, CompactString, Map, Value};
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::scalar::{Resolved, format_g, resolve};
use crate::json::TREE_DEPTH_MAX;

/// Nodes that aliases may add to a document. Upstream lets aliases be 99 % of 400,000 nodes; manifests use a
/// few hundred.
const ALIASED_NODES_MAX: usize = 100_000;

/// A document.
pub(super) struct Document {
    pub(super) value: Value,
    /// Keys that occur twice in a mapping, as go-yaml's strict decoder complains.
    pub(super) duplicates: Option<String>,
}

/// What an alias stands for.
#[derive(Clone)]
struct Anchored {
    value: Value,
    nodes: usize,
    height: usize,
}

struct Reader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Anchored>,
    aliased_nodes: usize,
    duplicates: Vec<String>,
}

/// A value with what bounds it: nodes in it and levels below it.
struct Node {
    value: Value,
    nodes: usize,
    height: usize,
    line: usize,
    /// `<<`, plain.
    merge: bool,
}

/// Reads the first document; none is null.
pub(super) fn read(text: &str) -> Result<Document, String> {
    let options = granit_parser::options! { emit_comments: false };
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        aliased_nodes: 0,
        duplicates: Vec::new(),
    };
    loop {
        match reader.next()? {
            (Event::StreamStart, _) => {}
            (Event::DocumentStart(..), _) => break,
            _ => return Ok(Document { value: Value::Null, duplicates: None }),
        }
    }
    let (event, span) = reader.next()?;
    let value = match event {
        Event::DocumentEnd | Event::StreamEnd => Value::Null,
        event => reader.node(event, span, 0)?.value,
    };
    let duplicates = (!reader.duplicates.is_empty())
        .then(|| format!("yaml: unmarshal errors:\n  {}", reader.duplicates.join("\n  ")));
    Ok(Document { value, duplicates })
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), String> {
        match self.parser.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(format!("yaml: line {}: {}", error.marker().line(), error.info())),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, String> {
        if depth >= TREE_DEPTH_MAX {
            return Err("yaml: exceeded max depth".into());
        }
        let line = span.start.line();
        let (mut node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref())?, anchor),
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(id) => (self.alias(id, depth)?, 0),
            _ => return Err(format!("yaml: line {line}: did not find expected node content")),
        };
        node.line = line;
        if anchor != 0 {
            let anchored = Anchored { value: node.value.clone(), nodes: node.nodes, height: node.height };
            // The copy kept for aliases is bounded like the copies made for them.
            self.count_aliased(node.nodes)?;
            self.anchors.insert(anchor, anchored);
        }
        Ok(node)
    }

    fn count_aliased(&mut self, nodes: usize) -> Result<(), String> {
        self.aliased_nodes += nodes;
        if self.aliased_nodes > ALIASED_NODES_MAX {
            return Err("yaml: document contains excessive aliasing".into());
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, depth: usize) -> Result<Node, String> {
        let Some(Anchored { nodes, height, .. }) = self.anchors.get(&id) else {
            // The anchor's own node is not finished yet.
            return Err("yaml: anchor value contains itself".into());
        };
        let (nodes, height) = (*nodes, *height);
        self.count_aliased(nodes)?;
        if depth + height > TREE_DEPTH_MAX {
            return Err("yaml: exceeded max depth".into());
        }
        let value = self.anchors.get(&id).map(|a| a.value.clone()).unwrap_or_default();
        Ok(Node { value, nodes, height, line: 0, merge: false })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, String> {
        let (mut items, mut nodes, mut height) = (Vec::new(), 1, 0);
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => break,
                (event, span) => {
                    let item = self.node(event, span, depth + 1)?;
                    nodes += item.nodes;
                    height = height.max(item.height);
                    items.push(item.value);
                }
            }
        }
        Ok(Node { value: Value::List(items), nodes, height: height + 1, line: 0, merge: false })
    }

    fn mapping(&mut self, depth: usize) -> Result<Node, String> {
        let mut entries: Vec<(CompactString, Value, usize)> = Vec::new();
        let mut merged: Vec<(CompactString, Value)> = Vec::new();
        let (mut nodes, mut height) = (1, 0);
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => break,
                (event, span) => self.node(event, span, depth + 1)?,
            };
            let (event, span) = self.next()?;
            let item = self.node(event, span, depth + 1)?;
            nodes += key.nodes + item.nodes;
            height = height.max(item.height);
            if key.merge {
                merge(item.value, &mut merged)?;
            } else {
                entries.push((key_text(key.value, &item.value)?, item.value, item.line));
            }
        }
        self.report_duplicates(&entries);
        // Later ones win: explicit keys over merged ones.
        merged.extend(entries.into_iter().map(|(key, value, _)| (key, value)));
        let value = Value::Map(Map::from_entries(merged));
        Ok(Node { value, nodes, height: height + 1, line: 0, merge: false })
    }

    fn report_duplicates(&mut self, entries: &[(CompactString, Value, usize)]) {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        for (key, _, line) in entries {
            if !seen.insert(key) {
                self.duplicates.push(format!("line {line}: key {key:?} already set in map"));
            }
        }
    }
}

/// Adds the entries of a merge key's value, which is a mapping or a list of mappings, earlier ones taking
/// precedence.
fn merge(value: Value, into: &mut Vec<(CompactString, Value)>) -> Result<(), String> {
    let want_map = || "yaml: map merge requires map or sequence of maps as the value".to_string();
    match value {
        Value::Map(map) => into.extend(map),
        Value::List(items) => {
            for item in items.into_iter().rev() {
                let Value::Map(map) = item else { return Err(want_map()) };
                into.extend(map);
            }
        }
        _ => return Err(want_map()),
    }
    Ok(())
}

fn key_text(key: Value, value: &Value) -> Result<CompactString, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Int(integer) => Ok(CompactString::from(integer.to_string())),
        Value::Float(float) => Ok(CompactString::from(format_g(float))),
        Value::Bool(true) => Ok(CompactString::const_new("true")),
        Value::Bool(false) => Ok(CompactString::const_new("false")),
        Value::Raw(digits) => Ok(CompactString::from(String::from_utf8_lossy(&digits))),
        Value::Null => {
            let value = copepod_meta::debug_json::to_string(value);
            Err(format!("unsupported map key of type: %!s(<nil>), key: <nil>, value: {value}"))
        }
        Value::List(_) | Value::Map(_) | Value::Bytes(_) => {
            Err(format!("yaml: invalid map key: {}", copepod_meta::debug_json::to_string(&key)))
        }
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, String> {
    let tag = tag.map(|t| format!("{}{}", t.handle(), t.suffix()));
    let tag = tag.as_deref().and_then(|t| t.strip_prefix("tag:yaml.org,2002:"));
    let resolved = match tag {
        None if style != ScalarStyle::Plain => Resolved::String,
        Some("str") => Resolved::String,
        Some("binary") => return binary(text),
        _ => resolve(text),
    };
    let merge = resolved == Resolved::Merge;
    let resolved = match (tag, resolved) {
        (Some("float"), Resolved::Int(integer)) => Resolved::Float(integer as f64),
        (Some(wanted @ ("int" | "bool" | "float" | "null")), resolved) if !fits(wanted, &resolved) => {
            return Err(format!("yaml: cannot decode !!{} `{text}` as a !!{wanted}", name(&resolved)));
        }
        (_, resolved) => resolved,
    };
    let value = match resolved {
        Resolved::Null => Value::Null,
        Resolved::Bool(bool) => Value::Bool(bool),
        Resolved::Int(integer) => Value::Int(integer),
        // Digits that no `i64` holds reach the JSON decoder as they are.
        Resolved::Uint(integer) => Value::Raw(Bytes::from(integer.to_string())),
        Resolved::Float(float) if float.is_nan() => return Err("json: unsupported value: NaN".into()),
        Resolved::Float(float) if float.is_infinite() => {
            let sign = if float > 0.0 { "+" } else { "-" };
            return Err(format!("json: unsupported value: {sign}Inf"));
        }
        Resolved::Float(float) => Value::Float(float),
        Resolved::Merge | Resolved::String => Value::string(text),
    };
    Ok(Node { value, nodes: 1, height: 0, line: 0, merge })
}

fn fits(wanted: &str, resolved: &Resolved) -> bool {
    wanted == name(resolved)
}

fn name(resolved: &Resolved) -> &'static str {
    match resolved {
        Resolved::Null => "null",
        Resolved::Bool(_) => "bool",
        Resolved::Int(_) | Resolved::Uint(_) => "int",
        Resolved::Float(_) => "float",
        Resolved::Merge => "merge",
        Resolved::String => "str",
    }
}

/// `!!binary`: the text that the base64 stands for.
fn binary(text: &str) -> Result<Node, String> {
    let compact: String = text.split_ascii_whitespace().collect();
    let bytes = crate::json::base64_decode(&compact)
        .map_err(|_| "yaml: !!binary value contains invalid base64 data".to_string())?;
    let value = Value::string(crate::json::scan::lossy(&bytes));
    Ok(Node { value, nodes: 1, height: 0, line: 0, merge: false })
}
