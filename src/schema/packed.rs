//! Reader of the packed facts: the binary form of `api/` that `build/` writes.
//!
//! Owns: the format's reading half. Nothing is parsed at start: a type is decoded when a [`crate::Universe`]
//! first needs it, the resource table when it is first asked for. Names stay slices of the blob.
//!
//! The blob is a product of our own build, checked by it; a malformed one is a bug, so reading asserts
//! instead of failing.
//!
//! Layout (little-endian): a header of `u32`s ([`Header`]), the strings, then records. Inside records:
//! numbers are varints, a string is offset and length in the string region, a list is its length and its
//! elements.

use std::sync::{LazyLock, OnceLock};

use copepod_meta::{CompactString, Gvk, Map, Value};

use crate::resources::{FeatureGate, Group, Media, Resource, ServedVersion, Stage, Storage, Subresource};
use crate::types::{
    Field, ListKind, ListType, MapType, Name, NameIndex, Omit, PatchStrategy, ProtoEntry, ProtoMember,
    ProtoTag, Scalar, Special, StructType, Type, TypeId, Wire,
};

static BLOB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/facts.bin"));

/// Names the state of the facts and of the schemas made from them.
pub(crate) const FACTS_HASH: &str = env!("COPEPOD_FACTS_HASH");

/// Positions in the header, in `u32` words.
#[derive(Clone, Copy)]
enum Header {
    Strings = 0,
    StringsLen = 1,
    Types = 2,
    TypeCount = 3,
    Names = 4,
    NameCount = 5,
    Gvks = 6,
    GvkCount = 7,
    Groups = 8,
    Resources = 9,
    Gates = 10,
    Registered = 11,
}

fn word(at: usize) -> usize {
    let bytes = [BLOB[at], BLOB[at + 1], BLOB[at + 2], BLOB[at + 3]];
    u32::from_le_bytes(bytes) as usize
}

fn header(field: Header) -> usize {
    word(field as usize * 4)
}

fn string_at(offset: usize, len: usize) -> &'static str {
    let region = header(Header::Strings);
    debug_assert!(offset + len <= header(Header::StringsLen));
    std::str::from_utf8(&BLOB[region + offset..region + offset + len]).expect("the build packs only UTF-8")
}

/// A fixed-width string reference of the sorted indices: two words.
fn fixed_string(at: usize) -> &'static str {
    string_at(word(at), word(at + 4))
}

/// How many types the facts hold.
pub(crate) fn type_count() -> usize {
    header(Header::TypeCount)
}

/// Binary search over `count` rows of `width` bytes; a row's last word is the type.
fn search(
    start: usize,
    count: usize,
    width: usize,
    compare: impl Fn(usize) -> std::cmp::Ordering,
) -> Option<TypeId> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        let at = start + middle * width;
        match compare(at) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(TypeId(word(at + width - 4) as u32)),
        }
    }
    None
}

/// The type with this OpenAPI-like name.
pub(crate) fn find_name(name: &str) -> Option<TypeId> {
    search(header(Header::Names), header(Header::NameCount), 12, |at| fixed_string(at).cmp(name))
}

/// The type registered for this kind.
pub(crate) fn find_gvk(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    search(header(Header::Gvks), header(Header::GvkCount), 28, |at| {
        (fixed_string(at), fixed_string(at + 8), fixed_string(at + 16)).cmp(&(group, version, kind))
    })
}

/// Decodes one type.
pub(crate) fn decode_type(id: TypeId) -> Type {
    let table = header(Header::Types);
    Reader { at: word(table + id.0 as usize * 4) }.ty()
}

/// A cursor over the blob.
struct Reader {
    at: usize,
}

impl Reader {
    fn byte(&mut self) -> u8 {
        let byte = BLOB[self.at];
        self.at += 1;
        byte
    }

    fn number(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    fn index(&mut self) -> usize {
        self.number() as usize
    }

    fn str(&mut self) -> &'static str {
        let (offset, len) = (self.index(), self.index());
        string_at(offset, len)
    }

    fn name(&mut self) -> Name {
        Name::Borrowed(self.str())
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Reader) -> T) -> Box<[T]> {
        let count = self.index();
        (0..count).map(|_| item(self)).collect()
    }

    fn names(&mut self) -> Box<[Name]> {
        self.list(Reader::name)
    }

    fn type_id(&mut self) -> TypeId {
        TypeId(self.number() as u32)
    }

    /// Zero is none.
    fn optional_type_id(&mut self) -> Option<TypeId> {
        self.number().checked_sub(1).map(|id| TypeId(id as u32))
    }

    fn ty(&mut self) -> Type {
        match self.byte() {
            0 => Type::Struct(self.struct_type()),
            1 => Type::Map(MapType { value: self.type_id(), atomic: self.byte() != 0 }),
            2 => Type::List(self.list_type()),
            3 => Type::Scalar(self.scalar()),
            4 => Type::Special(self.special()),
            5 => Type::Any,
            tag => unreachable!("type tag {tag}"),
        }
    }

    fn scalar(&mut self) -> Scalar {
        match self.byte() {
            0 => Scalar::Bool,
            1 => Scalar::Int32,
            2 => Scalar::Int64,
            3 => Scalar::Uint32,
            4 => Scalar::Uint64,
            5 => Scalar::Float64,
            6 => Scalar::String,
            7 => Scalar::Bytes,
            tag => unreachable!("scalar tag {tag}"),
        }
    }

    fn special(&mut self) -> Special {
        match self.byte() {
            0 => Special::Time,
            1 => Special::MicroTime,
            2 => Special::Duration,
            3 => Special::Quantity,
            4 => Special::IntOrString,
            5 => Special::FieldsV1,
            6 => Special::RawExtension,
            7 => Special::Unknown,
            8 => Special::Json,
            9 => Special::JsonSchemaPropsOrBool(self.type_id()),
            10 => Special::JsonSchemaPropsOrArray(self.type_id()),
            11 => Special::JsonSchemaPropsOrStringArray(self.type_id()),
            12 => Special::Object,
            tag => unreachable!("special tag {tag}"),
        }
    }

    fn list_type(&mut self) -> ListType {
        let elem = self.type_id();
        let flags = self.byte();
        let kind = match flags >> 2 {
            0 => ListKind::Atomic,
            1 => ListKind::Set,
            _ => ListKind::Map { keys: self.names() },
        };
        ListType { elem, elem_pointer: flags & 1 != 0, proto_message: flags & 2 != 0, kind }
    }

    fn struct_type(&mut self) -> StructType {
        let name = self.name();
        let flags = self.byte();
        let gvk = (flags & 2 != 0).then(|| Gvk::new(self.str(), self.str(), self.str()));
        let fields = self.list(Reader::field);
        let by_json = NameIndex::of(&fields);
        let proto = self.list(Reader::proto_entry);
        StructType {
            name,
            fields,
            by_json,
            proto,
            gvk,
            atomic: flags & 1 != 0,
            preserve_unknown: false,
            embedded_resource: false,
            always_written: OnceLock::new(),
        }
    }

    fn proto_entry(&mut self) -> ProtoEntry {
        let number = self.number() as u32;
        let member = match self.byte() {
            0 => ProtoMember::Field(self.index() as u16),
            tag => ProtoMember::Inline { pointer: tag == 2, entries: self.list(Reader::proto_entry) },
        };
        ProtoEntry { number, member }
    }

    fn field(&mut self) -> Field {
        let (json, go_name, ty) = (self.name(), self.name(), self.type_id());
        let (flags, ways) = (self.byte(), self.byte());
        let has = |bit: u8| flags & bit != 0;
        let omit = match ways & 3 {
            0 => Omit::Never,
            1 => Omit::Empty,
            _ => Omit::Zero,
        };
        let proto = (ways & 32 != 0).then(|| {
            let (number, form) = (self.number() as u32, self.byte());
            let wire = match form & 3 {
                0 => Wire::Varint,
                1 => Wire::Fixed64,
                2 => Wire::Bytes,
                _ => Wire::Fixed32,
            };
            ProtoTag { number, wire, packed: form & 4 != 0 }
        });
        Field {
            json,
            go_name,
            ty,
            pointer: has(1),
            omit,
            proto,
            patch_strategy: PatchStrategy {
                merge: ways & 4 != 0,
                replace: ways & 8 != 0,
                retain_keys: ways & 16 != 0,
            },
            atomic: has(2),
            required: has(4),
            nullable: false,
            patch_merge_key: has(8).then(|| self.name()),
            default: has(16).then(|| self.value()),
            empty_default: ways & 128 != 0,
            enum_values: has(32).then(|| self.names()),
            format: has(64).then(|| self.name()),
            go_type: has(128).then(|| self.name()),
            embedded: (ways & 64 != 0).then(|| self.name()),
        }
    }

    fn value(&mut self) -> Value {
        match self.byte() {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => {
                let zigzag = self.number();
                Value::Int((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
            }
            4 => Value::Float(f64::from_bits(self.number())),
            5 => Value::String(CompactString::const_new(self.str())),
            6 => Value::List(self.list(Reader::value).into_vec()),
            _ => {
                let entries = self.list(|r| (CompactString::const_new(r.str()), r.value()));
                Value::Map(Map::from_entries(entries.into_vec()))
            }
        }
    }

    fn group(&mut self) -> Group {
        Group { name: self.name(), versions: self.names() }
    }

    fn resource(&mut self) -> Resource {
        Resource {
            group: self.name(),
            plural: self.name(),
            singular: self.name(),
            kind: self.name(),
            list_kind: self.name(),
            namespaced: self.byte() != 0,
            short_names: self.names(),
            categories: self.names(),
            versions: self.list(Reader::served_version),
            returns_deleted: self.byte() != 0,
            storage: (self.byte() != 0).then(|| self.storage()),
        }
    }

    fn served_version(&mut self) -> ServedVersion {
        ServedVersion {
            version: self.name(),
            ty: self.type_id(),
            list_ty: self.optional_type_id(),
            verbs: self.names(),
            subresources: self.list(Reader::subresource),
            storage_version_hash: self.name(),
        }
    }

    fn subresource(&mut self) -> Subresource {
        Subresource {
            name: self.name(),
            group: self.name(),
            version: self.name(),
            kind: self.name(),
            states_group_version: self.byte() != 0,
            ty: self.optional_type_id(),
            verbs: self.names(),
        }
    }

    fn storage(&mut self) -> Storage {
        Storage {
            group: self.name(),
            version: self.name(),
            kind: self.name(),
            ty: self.type_id(),
            prefix: self.name(),
            media: if self.byte() == 0 { Media::Protobuf } else { Media::Json },
            ttl_seconds: self.number() as u32,
        }
    }

    fn gate(&mut self) -> FeatureGate {
        let name = self.name();
        let flags = self.byte();
        let stage = match flags >> 2 {
            0 => Stage::Alpha,
            1 => Stage::Beta,
            2 => Stage::Stable,
            _ => Stage::Deprecated,
        };
        FeatureGate { name, default: flags & 1 != 0, locked: flags & 2 != 0, stage }
    }
}

static GROUPS: LazyLock<Box<[Group]>> =
    LazyLock::new(|| Reader { at: header(Header::Groups) }.list(Reader::group));
static RESOURCES: LazyLock<Box<[Resource]>> =
    LazyLock::new(|| Reader { at: header(Header::Resources) }.list(Reader::resource));
static GATES: LazyLock<Box<[FeatureGate]>> =
    LazyLock::new(|| Reader { at: header(Header::Gates) }.list(Reader::gate));

/// All group-versions that upstream's servers know, served or not, as `group/version`, sorted.
pub(crate) fn registered_group_versions() -> Box<[Name]> {
    Reader { at: header(Header::Registered) }.names()
}

/// The built-in groups in discovery's order, the core group first.
pub fn groups() -> &'static [Group] {
    &GROUPS
}

/// The built-in resources, sorted by group and plural name.
pub fn resources() -> &'static [Resource] {
    &RESOURCES
}

/// A built-in resource and one of its served versions.
pub fn resource(
    group: &str,
    version: &str,
    plural: &str,
) -> Option<(&'static Resource, &'static ServedVersion)> {
    let all = resources();
    let at = all.binary_search_by(|r| (r.group.as_ref(), r.plural.as_ref()).cmp(&(group, plural))).ok()?;
    let resource = &all[at];
    resource.version(version).map(|served| (resource, served))
}

/// Upstream's feature gates, sorted by name.
pub fn feature_gates() -> &'static [FeatureGate] {
    &GATES
}
