//! The type graph's data model: what one type, one field, one list is.
//!
//! One model serves the built-in kinds (read from `api/`, names borrowed from the packed blob) and custom
//! resources (built at run time from their OpenAPI schemas, names owned). It describes; it decodes, defaults
//! and validates nothing.
//!
//! Invariants:
//! * a [`TypeId`] is only meaningful together with the [`crate::Universe`] that gave it;
//! * [`StructType::fields`] is in the order in which Go's JSON encoder writes them, members of JSON-inlined
//!   structs in place; [`StructType::proto`] is the same fields in protobuf order, nested where Go nests a
//!   message;
//! * map keys are always strings.

use std::borrow::Cow;
use std::sync::OnceLock;

use copepod_meta::{Gvk, Value};

/// A name: borrowed from the packed facts for built-in types, owned for custom resources.
pub type Name = Cow<'static, str>;

/// Index of a type in its [`crate::Universe`].
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct TypeId(pub u32);

/// What a value can be.
#[derive(Debug, Clone)]
pub enum Type {
    /// An object with known fields.
    Struct(StructType),
    /// An object with arbitrary string keys.
    Map(MapType),
    /// An array.
    List(ListType),
    /// A plain scalar.
    Scalar(Scalar),
    /// A type with a hand-written wire form.
    Special(Special),
    /// Arbitrary JSON, kept as it is (custom resources: `x-kubernetes-preserve-unknown-fields` without
    /// properties).
    Any,
}

/// The scalars of the API.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum Scalar {
    /// `bool`
    Bool,
    /// `int32`, and named types of it
    Int32,
    /// `int64` and `int`
    Int64,
    /// `uint8`, `uint16`, `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `float64`
    Float64,
    /// `string`, and named types of it
    String,
    /// `[]byte`: base64 in JSON
    Bytes,
    /// Custom resources only, `type: number`: an integer stays an integer, anything else is a float64.
    Number,
}

/// Types whose JSON or protobuf form is hand-written upstream.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum Special {
    /// `meta/v1.Time`: RFC 3339 seconds, `null` when zero; protobuf Timestamp
    Time,
    /// `meta/v1.MicroTime`: RFC 3339 with six digits; protobuf Timestamp
    MicroTime,
    /// `meta/v1.Duration`: Go duration text; protobuf `int64` nanoseconds
    Duration,
    /// `resource.Quantity`: canonical text; protobuf message with the text
    Quantity,
    /// `intstr.IntOrString`
    IntOrString,
    /// `meta/v1.FieldsV1`: verbatim JSON; protobuf bytes
    FieldsV1,
    /// `runtime.RawExtension`: verbatim JSON, `null` when empty; protobuf bytes
    RawExtension,
    /// `runtime.Unknown`: the protobuf envelope
    Unknown,
    /// `apiextensions.JSON`: verbatim JSON, `null` when empty
    Json,
    /// `apiextensions.JSONSchemaPropsOrBool` over that version's JSONSchemaProps
    JsonSchemaPropsOrBool(TypeId),
    /// `apiextensions.JSONSchemaPropsOrArray` over that version's JSONSchemaProps
    JsonSchemaPropsOrArray(TypeId),
    /// `apiextensions.JSONSchemaPropsOrStringArray` over that version's JSONSchemaProps
    JsonSchemaPropsOrStringArray(TypeId),
    /// A whole embedded object with its own `apiVersion` and `kind` (`runtime.Object`)
    Object,
}

/// An object with known fields.
#[derive(Debug, Clone)]
pub struct StructType {
    /// OpenAPI-like name, `io.k8s.api.core.v1.Pod`. Empty for the anonymous structs of a custom resource.
    pub name: Name,
    /// In the order in which the JSON encoder writes them, members of JSON-inlined structs in place.
    pub fields: Box<[Field]>,
    /// Indices into `fields`, sorted by JSON name (bytewise): see [`StructType::field`].
    pub by_json: NameIndex,
    /// Protobuf layout; empty if the type has no protobuf form.
    pub proto: Box<[ProtoEntry]>,
    /// The kind, for top-level types. Types registered under many groups (DeleteOptions ...) have none here.
    pub gvk: Option<Gvk>,
    /// `x-kubernetes-map-type: atomic`: server-side apply treats the whole object as one value.
    pub atomic: bool,
    /// Custom resources: `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// Custom resources: `x-kubernetes-embedded-resource`: apiVersion, kind and metadata are implied.
    pub embedded_resource: bool,
    /// See [`crate::Universe::always_written`].
    pub always_written: OnceLock<u64>,
}

/// Indices of a struct's fields in the order of their JSON names, and what finds a name among them.
#[derive(Debug, Clone, Default)]
pub struct NameIndex {
    indices: Box<[u16]>,
    /// What each name begins with: nearly always enough to tell it from the others, and all of them are in a few cache lines.
    heads: Box<[u64]>,
}

impl std::ops::Deref for NameIndex {
    type Target = [u16];
    fn deref(&self) -> &[u16] {
        &self.indices
    }
}

impl NameIndex {
    /// The index of fields.
    pub fn of(fields: &[Field]) -> NameIndex {
        let mut indices: Vec<u16> = (0..fields.len() as u16).collect();
        indices.sort_by(|&a, &b| fields[usize::from(a)].json.cmp(&fields[usize::from(b)].json));
        let heads = indices.iter().map(|&i| head(&fields[usize::from(i)].json)).collect();
        NameIndex { indices: indices.into_boxed_slice(), heads }
    }

    fn find(&self, name: &str, fields: &[Field]) -> Option<usize> {
        let head = head(name);
        let from = self.heads.partition_point(|other| *other < head);
        let same = self.heads[from..].iter().take_while(|other| **other == head);
        let mut found = self.indices[from..].iter().zip(same).map(|(&index, _)| usize::from(index));
        found.find(|&index| fields[index].json == name)
    }
}

/// The first eight bytes as a number, which is in order as the names are.
fn head(name: &str) -> u64 {
    let mut bytes = [0; 8];
    let len = name.len().min(8);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    u64::from_be_bytes(bytes)
}

/// One step of a struct's protobuf layout. Entries of one level are sorted by number.
#[derive(Debug, Clone)]
pub struct ProtoEntry {
    /// Field number in the message of this level.
    pub number: u32,
    /// What is there.
    pub member: ProtoMember,
}

/// What stands under a protobuf field number.
#[derive(Debug, Clone)]
pub enum ProtoMember {
    /// `fields[index]`
    Field(u16),
    /// A JSON-inlined struct: a nested message whose members are fields of the same [`StructType`]. Go embeds
    /// it by value, so it is written even when empty, unless `pointer`.
    Inline {
        /// The nested message's own layout.
        entries: Box<[ProtoEntry]>,
        /// Go embeds a pointer: left out when none of its members is set.
        pointer: bool,
    },
}

/// One field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    /// Name in JSON.
    pub json: Name,
    /// Name in Go (empty for custom resources).
    pub go_name: Name,
    /// The value's type.
    pub ty: TypeId,
    /// Go names of the JSON-inlined structs that hold it, from the outside in, as Go's decoder tells where a value is of
    /// the wrong type: `VolumeSource`.
    pub embedded: Option<Name>,
    /// The value's type as Go prints it, where `ty` does not tell it: `v1.PodPhase`, `[]v1.Capability`.
    pub go_type: Option<Name>,
    /// Go pointer: absent differs from zero.
    pub pointer: bool,
    /// When the JSON encoder leaves it out.
    pub omit: Omit,
    /// Protobuf number and wire form, in the message (or inline message) that holds the field.
    pub proto: Option<ProtoTag>,
    /// How strategic merge patch treats it.
    pub patch_strategy: PatchStrategy,
    /// Merge key of strategic merge patch, for lists of objects.
    pub patch_merge_key: Option<Name>,
    /// On the field itself: `x-kubernetes-map-type: atomic` (its type need not be atomic), or a list stated
    /// to be atomic.
    pub atomic: bool,
    /// In OpenAPI's `required`.
    pub required: bool,
    /// Custom resources: `nullable`.
    pub nullable: bool,
    /// The value which defaulting ALWAYS gives when the field is absent (nil for pointers, slices and maps;
    /// zero for others). Conditional defaults are code in `kinds`.
    pub default: Option<Value>,
    /// OpenAPI gives "" as its default although it is left out when it is empty: server-side apply takes that for a list item's
    /// key that is absent.
    pub empty_default: bool,
    /// Allowed values of the field, or of a list's elements. Facts of the OpenAPI document; validation is not
    /// implied.
    pub enum_values: Option<Box<[Name]>>,
    /// OpenAPI format (`int32`, `int64`, `double`, `byte`, `date-time`, ...).
    pub format: Option<Name>,
}

/// When an encoder leaves a field out of JSON.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum Omit {
    /// Always written.
    Never,
    /// `omitempty`: false, 0, "", nil, empty list or map. A non-pointer struct is always written.
    Empty,
    /// `omitzero`: as by Go's `IsZero` (a zero struct too).
    Zero,
}

/// Protobuf tag of a field.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct ProtoTag {
    /// Field number.
    pub number: u32,
    /// Wire form of one value (of one element, for lists).
    pub wire: Wire,
    /// Packed repeated scalars.
    pub packed: bool,
}

/// Protobuf wire forms in use.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum Wire {
    /// Variable-length integer.
    Varint,
    /// Eight bytes, little-endian.
    Fixed64,
    /// Length-delimited.
    Bytes,
    /// Four bytes, little-endian.
    Fixed32,
}

/// Strategic merge patch directives of a field; none set means replace for lists, merge for objects.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Default)]
pub struct PatchStrategy {
    /// `patchStrategy:"merge"`
    pub merge: bool,
    /// `patchStrategy:"replace"`
    pub replace: bool,
    /// `patchStrategy:"retainKeys"`
    pub retain_keys: bool,
}

/// A map from strings.
#[derive(Debug, Clone, Eq, PartialEq, Hash)]
pub struct MapType {
    /// Type of the values.
    pub value: TypeId,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
}

/// An array.
#[derive(Debug, Clone, Eq, PartialEq, Hash)]
pub struct ListType {
    /// Type of the elements.
    pub elem: TypeId,
    /// Go slice of pointers.
    pub elem_pointer: bool,
    /// How server-side apply and validation see it.
    pub kind: ListKind,
    /// In protobuf the list is a message of its own with `repeated items = 1` (ExtraValue, Verbs).
    pub proto_message: bool,
}

/// `x-kubernetes-list-type`. Absent is atomic.
#[derive(Debug, Clone, Eq, PartialEq, Hash)]
pub enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects told apart by keys.
    Map {
        /// JSON names of the keys, as declared.
        keys: Box<[Name]>,
    },
}

impl StructType {
    /// The field with this JSON name, exactly.
    pub fn field(&self, json: &str) -> Option<&Field> {
        self.field_index(json).map(|i| &self.fields[i])
    }

    /// Index into `fields` of the field with this JSON name.
    pub fn field_index(&self, json: &str) -> Option<usize> {
        self.by_json.find(json, &self.fields)
    }
}

impl Type {
    /// The struct, if it is one.
    pub fn as_struct(&self) -> Option<&StructType> {
        match self {
            Type::Struct(s) => Some(s),
            _ => None,
        }
    }
    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&ListType> {
        match self {
            Type::List(l) => Some(l),
            _ => None,
        }
    }
    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&MapType> {
        match self {
            Type::Map(m) => Some(m),
            _ => None,
        }
    }
}
