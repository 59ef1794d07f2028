//! Writes the binary that `packed.rs` reads; the layout is described there.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::facts::{Facts, FieldFacts, OneResource, TypeFacts};

const HEADER_WORDS: usize = 12;

/// Records under construction, and the strings they refer to.
struct Writer {
    strings: Vec<u8>,
    seen: HashMap<String, (usize, usize)>,
    records: Vec<u8>,
}

impl Writer {
    fn intern(&mut self, s: &str) -> (usize, usize) {
        if let Some(&at) = self.seen.get(s) {
            return at;
        }
        let at = (self.strings.len(), s.len());
        self.strings.extend_from_slice(s.as_bytes());
        self.seen.insert(s.to_owned(), at);
        at
    }
    fn byte(&mut self, b: u8) {
        self.records.push(b);
    }
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.records.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.records.push(n as u8);
    }
    fn index(&mut self, n: usize) {
        self.number(n as u64);
    }
    fn str(&mut self, s: &str) {
        let (offset, len) = self.intern(s);
        self.index(offset);
        self.index(len);
    }
    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.index(items.len());
        for item in items {
            write(self, item);
        }
    }
    fn strs(&mut self, items: &[String]) {
        self.list(items, |w, s| w.str(s));
    }
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.byte(0),
            Value::Bool(b) => self.byte(1 + u8::from(*b)),
            Value::Number(n) => match n.as_i64() {
                Some(i) => {
                    self.byte(3);
                    self.number(((i << 1) ^ (i >> 63)) as u64);
                }
                None => {
                    self.byte(4);
                    self.number(n.as_f64().expect("a JSON number is a float64").to_bits());
                }
            },
            Value::String(s) => {
                self.byte(5);
                self.str(s);
            }
            Value::Array(items) => {
                self.byte(6);
                self.list(items, |w, v| w.value(v));
            }
            Value::Object(members) => {
                self.byte(7);
                self.index(members.len());
                for (key, member) in members {
                    self.str(key);
                    self.value(member);
                }
            }
        }
    }
}

/// A type by what it is; equal shapes share an index.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Shape {
    Named(String),
    Scalar(u8),
    Special(u8, Option<u32>),
    Any,
    Map { value: u32, atomic: bool },
    List { elem: u32, pointer: bool, message: bool, kind: u8, keys: Vec<String> },
}

/// Gives every shape an index, named types first.
struct Shapes<'a> {
    facts: &'a Facts,
    order: Vec<Shape>,
    ids: HashMap<Shape, u32>,
}

/// What a type expression says: the shape's index, and whether it was a pointer.
struct Expr {
    id: u32,
    pointer: bool,
}

impl Shapes<'_> {
    fn id(&mut self, shape: Shape) -> u32 {
        if let Some(&id) = self.ids.get(&shape) {
            return id;
        }
        let id = self.order.len() as u32;
        self.order.push(shape.clone());
        self.ids.insert(shape, id);
        id
    }

    /// Reads a type expression; `field` adds what only the field knows of its list or map.
    fn expr(&mut self, text: &str, field: Option<&FieldFacts>) -> Expr {
        if let Some(rest) = text.strip_prefix('*') {
            return Expr { pointer: true, ..self.expr(rest, field) };
        }
        let id = if let Some(rest) = text.strip_prefix("[]") {
            let elem = self.expr(rest, None);
            let kind = match field.and_then(|f| f.list.as_deref()) {
                None => 0,
                Some("set") => 1,
                Some("map") => 2,
                Some(other) => panic!("list type {other}"),
            };
            let keys = field.map(|f| f.keys.clone()).unwrap_or_default();
            self.id(Shape::List { elem: elem.id, pointer: elem.pointer, message: false, kind, keys })
        } else if let Some(rest) = text.strip_prefix("map[string]") {
            let value = self.expr(rest, None);
            assert!(!value.pointer, "{text}: maps of pointers are not modelled");
            self.id(Shape::Map { value: value.id, atomic: field.is_some_and(|f| f.atomic) })
        } else if let Some(tag) = SCALARS.iter().position(|s| *s == text) {
            self.id(Shape::Scalar(tag as u8))
        } else if text == "any" {
            self.id(Shape::Any)
        } else if let Some(shape) = self.special(text) {
            self.id(shape)
        } else {
            let facts = self.facts.types.get(text).unwrap_or_else(|| panic!("unknown type {text}"));
            match &facts.list {
                None => self.ids[&Shape::Named(text.to_owned())],
                Some(elem) => {
                    let elem = self.expr(elem, None);
                    self.id(Shape::List {
                        elem: elem.id,
                        pointer: elem.pointer,
                        message: true,
                        kind: 0,
                        keys: vec![],
                    })
                }
            }
        };
        Expr { id, pointer: false }
    }

    fn special(&mut self, text: &str) -> Option<Shape> {
        let (name, of) = match text.split_once('(') {
            Some((name, rest)) => (name, Some(self.expr(rest.trim_end_matches(')'), None).id)),
            None => (text, None),
        };
        SPECIALS.iter().position(|s| *s == name).map(|tag| Shape::Special(tag as u8, of))
    }
}

const SCALARS: [&str; 8] = ["bool", "int32", "int64", "uint32", "uint64", "float64", "string", "bytes"];
const SPECIALS: [&str; 13] = [
    "Time",
    "MicroTime",
    "Duration",
    "Quantity",
    "IntOrString",
    "FieldsV1",
    "RawExtension",
    "Unknown",
    "JSON",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrStringArray",
    "Object",
];

/// A struct's fields with inlined structs resolved.
#[derive(Default)]
struct Flat {
    fields: Vec<FieldFacts>,
    proto: Vec<Entry>,
}

struct Entry {
    number: u32,
    member: Member,
}

enum Member {
    Field(usize),
    Inline(Vec<Entry>, bool),
}

fn flatten(facts: &Facts, name: &str, fields: &mut Vec<FieldFacts>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for field in &facts.types[name].fields {
        let tag = field.proto.as_deref().map(|p| proto_tag(p).0);
        if field.inline {
            let first = fields.len();
            let inner = flatten(facts, field.ty.trim_start_matches('*'), fields);
            for member in &mut fields[first..] {
                let inside = std::mem::take(&mut member.embedded);
                let dot = if inside.is_empty() { "" } else { "." };
                member.embedded = format!("{}{dot}{inside}", field.go);
            }
            match tag {
                Some(number) => {
                    entries.push(Entry { number, member: Member::Inline(inner, field.ty.starts_with('*')) });
                }
                // An inlined struct without a tag (TypeMeta) has no protobuf form here.
                None => strip_proto(&inner, fields),
            }
        } else {
            if let Some(number) = tag {
                entries.push(Entry { number, member: Member::Field(fields.len()) });
            }
            assert!(!fields.iter().any(|f| f.json == field.json), "{name}: {} appears twice", field.json);
            fields.push(field.clone());
        }
    }
    entries.sort_by_key(|e| e.number);
    entries
}

fn strip_proto(entries: &[Entry], fields: &mut [FieldFacts]) {
    for entry in entries {
        match &entry.member {
            Member::Field(at) => fields[*at].proto = None,
            Member::Inline(inner, _) => strip_proto(inner, fields),
        }
    }
}

/// `varint,3` or `varint,3,packed`.
fn proto_tag(text: &str) -> (u32, u8) {
    let mut parts = text.split(',');
    let wire = match parts.next() {
        Some("varint") => 0,
        Some("fixed64") => 1,
        Some("bytes") => 2,
        Some("fixed32") => 3,
        other => panic!("protobuf tag {text}: {other:?}"),
    };
    let number = parts.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("protobuf tag {text}"));
    (number, wire | if parts.next() == Some("packed") { 4 } else { 0 })
}

/// The whole binary.
pub fn pack(facts: &Facts) -> Vec<u8> {
    let mut shapes = Shapes { facts, order: Vec::new(), ids: HashMap::new() };
    for (name, ty) in &facts.types {
        if ty.list.is_none() {
            shapes.id(Shape::Named(name.clone()));
        }
    }
    let mut writer = Writer { strings: Vec::new(), seen: HashMap::new(), records: Vec::new() };
    let mut starts = Vec::new();
    let mut at = 0;
    // Writing a struct may add shapes behind it.
    while at < shapes.order.len() {
        starts.push(writer.records.len());
        let shape = shapes.order[at].clone();
        write_shape(&mut writer, &mut shapes, &shape);
        at += 1;
    }
    let mut names = BTreeMap::new();
    let mut gvks = BTreeMap::new();
    for (name, ty) in &facts.types {
        let id = shapes.expr(name, None).id;
        names.insert(name.clone(), id);
        for gvk in &ty.gvk {
            let twice = gvks.insert(split_gvk(gvk), id);
            assert!(twice.is_none(), "{gvk} names two types");
        }
    }
    let groups = writer.records.len();
    writer.list(&facts.resources.groups, |w, g| {
        w.str(&g.name);
        w.strs(&g.versions);
    });
    let resources = writer.records.len();
    let mut rows: Vec<&OneResource> = facts.resources.resources.iter().collect();
    rows.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
    writer.list(&rows, |w, r| write_resource(w, r, &gvks));
    let gates = writer.records.len();
    writer.list(&facts.gates, |w, g| {
        w.str(&g.name);
        let stage = match g.stage.as_str() {
            "ALPHA" => 0,
            "BETA" => 1,
            "" => 2,
            "DEPRECATED" => 3,
            other => panic!("feature gate stage {other}"),
        };
        w.byte(u8::from(g.default) | u8::from(g.locked) << 1 | stage << 2);
    });
    let registered = writer.records.len();
    writer.strs(&facts.resources.registered);
    assemble(writer, &starts, &names, &gvks, [groups, resources, gates, registered])
}

type Gvk = (String, String, String);

fn split_gvk(text: &str) -> Gvk {
    let parts: Vec<&str> = text.split('/').collect();
    assert_eq!(parts.len(), 3, "gvk {text}");
    (parts[0].into(), parts[1].into(), parts[2].into())
}

/// The kind of its own, if a type has one: that of an API group before `meta.k8s.io`'s (Status), the newest
/// of `meta.k8s.io` (Table); none for types registered in every group (DeleteOptions).
fn own_gvk(gvks: &[String]) -> Option<Gvk> {
    let (meta, groups): (Vec<&String>, Vec<&String>) =
        gvks.iter().partition(|g| g.starts_with("meta.k8s.io/"));
    match (groups.as_slice(), meta.as_slice()) {
        ([one], _) | ([], [one, ..]) => Some(split_gvk(one)),
        _ => None,
    }
}

/// Puts header, indices, strings and records one behind the other.
fn assemble(
    mut writer: Writer,
    starts: &[usize],
    names: &BTreeMap<String, u32>,
    gvks: &BTreeMap<Gvk, u32>,
    tables: [usize; 4],
) -> Vec<u8> {
    let mut name_rows: Vec<usize> = Vec::new();
    for (name, id) in names {
        let (offset, len) = writer.intern(name);
        name_rows.extend([offset, len, *id as usize]);
    }
    let mut gvk_rows: Vec<usize> = Vec::new();
    for ((group, version, kind), id) in gvks {
        for part in [group, version, kind] {
            let (offset, len) = writer.intern(part);
            gvk_rows.extend([offset, len]);
        }
        gvk_rows.push(*id as usize);
    }
    let types_at = HEADER_WORDS * 4;
    let names_at = types_at + starts.len() * 4;
    let gvks_at = names_at + name_rows.len() * 4;
    let strings_at = gvks_at + gvk_rows.len() * 4;
    let records_at = strings_at + writer.strings.len();
    let header: [usize; HEADER_WORDS] = [
        strings_at,
        writer.strings.len(),
        types_at,
        starts.len(),
        names_at,
        names.len(),
        gvks_at,
        gvks.len(),
        records_at + tables[0],
        records_at + tables[1],
        records_at + tables[2],
        records_at + tables[3],
    ];
    let starts: Vec<usize> = starts.iter().map(|s| records_at + s).collect();
    let mut blob = Vec::with_capacity(records_at + writer.records.len());
    for words in [&header[..], &starts, &name_rows, &gvk_rows] {
        for word in words {
            blob.extend(u32::try_from(*word).expect("the facts are far below 4 GiB").to_le_bytes());
        }
    }
    blob.extend(writer.strings);
    blob.extend(writer.records);
    blob
}

fn write_shape(w: &mut Writer, shapes: &mut Shapes<'_>, shape: &Shape) {
    match shape {
        Shape::Named(name) => {
            w.byte(0);
            let facts = shapes.facts;
            write_struct(w, shapes, name, &facts.types[name]);
        }
        Shape::Map { value, atomic } => {
            w.byte(1);
            w.index(*value as usize);
            w.byte(u8::from(*atomic));
        }
        Shape::List { elem, pointer, message, kind, keys } => {
            w.byte(2);
            w.index(*elem as usize);
            w.byte(u8::from(*pointer) | u8::from(*message) << 1 | kind << 2);
            if *kind == 2 {
                w.strs(keys);
            }
        }
        Shape::Any => w.byte(5),
        Shape::Scalar(tag) => {
            w.byte(3);
            w.byte(*tag);
        }
        Shape::Special(tag, of) => {
            w.byte(4);
            w.byte(*tag);
            if let Some(of) = of {
                w.index(*of as usize);
            }
        }
    }
}

fn write_struct(w: &mut Writer, shapes: &mut Shapes<'_>, name: &str, facts: &TypeFacts) {
    w.str(name);
    let own = own_gvk(&facts.gvk);
    w.byte(u8::from(facts.atomic) | u8::from(own.is_some()) << 1);
    if let Some((group, version, kind)) = own {
        w.str(&group);
        w.str(&version);
        w.str(&kind);
    }
    let mut flat = Flat::default();
    flat.proto = flatten(shapes.facts, name, &mut flat.fields);
    w.index(flat.fields.len());
    for field in &flat.fields {
        write_field(w, shapes, field);
    }
    write_entries(w, &flat.proto);
}

fn write_entries(w: &mut Writer, entries: &[Entry]) {
    w.list(entries, |w, entry| {
        w.index(entry.number as usize);
        match &entry.member {
            Member::Field(at) => {
                w.byte(0);
                w.index(*at);
            }
            Member::Inline(inner, pointer) => {
                w.byte(1 + u8::from(*pointer));
                write_entries(w, inner);
            }
        }
    });
}

fn write_field(w: &mut Writer, shapes: &mut Shapes<'_>, field: &FieldFacts) {
    let expr = shapes.expr(&field.ty, Some(field));
    let is_map = field.ty.contains("map[string]");
    let flags = [
        expr.pointer,
        field.atomic && !is_map,
        field.required,
        field.merge_key.is_some(),
        field.default.is_some(),
        !field.enum_values.is_empty(),
        field.format.is_some(),
        field.go_type().is_some(),
    ];
    let omit = match field.omit.as_str() {
        "" => 0,
        "empty" => 1,
        "zero" => 2,
        other => panic!("omit {other}"),
    };
    let named = field.go_type();
    let patch = field.patch.as_deref().unwrap_or("");
    let way = |name: &str, bit: u8| if patch.split(',').any(|p| p == name) { bit } else { 0 };
    let ways = omit | way("merge", 4) | way("replace", 8) | way("retainKeys", 16);
    w.str(&field.json);
    w.str(&field.go);
    w.index(expr.id as usize);
    w.byte(flags.iter().enumerate().map(|(bit, on)| u8::from(*on) << bit).sum());
    let ways = ways | if field.proto.is_some() { 32 } else { 0 };
    let ways = ways | if field.embedded.is_empty() { 0 } else { 64 };
    w.byte(ways | if field.has_empty_default() { 128 } else { 0 });
    if let Some(tag) = &field.proto {
        let (number, form) = proto_tag(tag);
        w.index(number as usize);
        w.byte(form);
    }
    if let Some(key) = &field.merge_key {
        w.str(key);
    }
    if let Some(default) = &field.default {
        w.value(default);
    }
    if !field.enum_values.is_empty() {
        w.strs(&field.enum_values);
    }
    if let Some(format) = &field.format {
        w.str(format);
    }
    if let Some(named) = named {
        w.str(named);
    }
    if !field.embedded.is_empty() {
        w.str(&field.embedded);
    }
}

fn write_resource(w: &mut Writer, r: &OneResource, gvks: &BTreeMap<Gvk, u32>) {
    let find = |group: &str, version: &str, kind: &str| {
        gvks.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).copied()
    };
    let must = |group: &str, version: &str, kind: &str| {
        find(group, version, kind).unwrap_or_else(|| panic!("{group}/{version} {kind} has no type")) as usize
    };
    for name in [&r.group, &r.plural, &r.singular, &r.kind, &r.list_kind] {
        w.str(name);
    }
    w.byte(u8::from(r.namespaced));
    w.strs(&r.short_names);
    w.strs(&r.categories);
    w.list(&r.versions, |w, v| {
        w.str(&v.version);
        w.index(must(&r.group, &v.version, &r.kind));
        w.index(find(&r.group, &v.version, &r.list_kind).map_or(0, |id| id as usize + 1));
        w.strs(&v.verbs);
        w.list(&v.subresources, |w, s| {
            let (group, version) =
                (s.group.as_deref().unwrap_or(&r.group), s.version.as_deref().unwrap_or(&v.version));
            for name in [&s.name, group, version, &s.kind] {
                w.str(name);
            }
            w.byte(u8::from(s.version.is_some()));
            w.index(find(group, version, &s.kind).map_or(0, |id| id as usize + 1));
            w.strs(&s.verbs);
        });
        w.str(&v.storage_version_hash);
    });
    w.byte(u8::from(r.returns_deleted));
    w.byte(u8::from(r.storage.is_some()));
    if let Some(s) = &r.storage {
        for name in [&s.group, &s.version, &s.kind] {
            w.str(name);
        }
        w.index(must(&s.group, &s.version, &s.kind));
        w.str(&s.prefix);
        w.byte(u8::from(s.json));
        w.index(s.ttl_seconds as usize);
    }
}
