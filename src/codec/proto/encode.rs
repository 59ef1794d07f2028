//! Tree -> message, byte for byte as gogo's generated code writes the Go struct that the tree stands for.

use copepod_meta::{Map, Value};
use copepod_schema::{
    Field, ListType, ProtoEntry, ProtoMember, Scalar, Special, StructType, Type, TypeId, Universe,
};

use super::read::FIXED64;
use super::write::BackWriter;
use crate::time::{self, Precision};

static NULL: Value = Value::Null;

/// The message of a root object, without envelope.
pub(crate) fn encode_message(universe: &Universe, value: &Value, ty: &StructType, out: &mut BackWriter) {
    Encoder { universe, out }.structure(value.as_map(), ty);
}

/// Fields up to which a struct's values are spread over slots on the stack instead of being searched one by
/// one.
const SLOTS: usize = 64;

/// The members of one struct.
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one message: boxing it would allocate"
)]
enum Members<'v> {
    Slots([&'v Value; SLOTS]),
    Map(Option<&'v Map>),
}

impl<'v> Members<'v> {
    fn of(map: Option<&'v Map>, ty: &StructType) -> Members<'v> {
        let Some(entries) = map.filter(|_| ty.fields.len() <= SLOTS) else { return Members::Map(map) };
        let mut slots = [&NULL; SLOTS];
        for (name, value) in entries.iter() {
            if let Some(index) = ty.field_index(name) {
                slots[index] = value;
            }
        }
        Members::Slots(slots)
    }

    fn get(&self, index: u16, ty: &StructType) -> &'v Value {
        match self {
            Members::Slots(slots) => slots[usize::from(index)],
            Members::Map(map) => {
                map.and_then(|m| m.get(&ty.fields[usize::from(index)].json)).unwrap_or(&NULL)
            }
        }
    }

    /// Whether any member of an inlined struct is there.
    fn any_set(&self, ty: &StructType, entries: &[ProtoEntry]) -> bool {
        entries.iter().any(|entry| match &entry.member {
            ProtoMember::Field(index) => !self.get(*index, ty).is_null(),
            ProtoMember::Inline { entries, .. } => self.any_set(ty, entries),
        })
    }
}

struct Encoder<'u, 'o> {
    universe: &'u Universe,
    out: &'o mut BackWriter,
}

impl Encoder<'_, '_> {
    fn structure(&mut self, map: Option<&Map>, ty: &StructType) {
        self.level(&Members::of(map, ty), ty, &ty.proto);
    }

    /// Writes the fields of one level, last one first.
    fn level(&mut self, members: &Members, ty: &StructType, entries: &[ProtoEntry]) {
        for entry in entries.iter().rev() {
            match &entry.member {
                ProtoMember::Field(index) => {
                    let field = &ty.fields[usize::from(*index)];
                    self.field(entry.number, field, members.get(*index, ty));
                }
                ProtoMember::Inline { entries, pointer } => {
                    if *pointer && !members.any_set(ty, entries) {
                        continue;
                    }
                    let end = self.out.len();
                    self.level(members, ty, entries);
                    self.out.close(entry.number, end);
                }
            }
        }
    }

    fn field(&mut self, number: u32, field: &Field, value: &Value) {
        if field.pointer && value.is_null() {
            return;
        }
        let universe = self.universe;
        match (universe.get(field.ty), value) {
            (Type::Map(map), Value::Map(entries)) => {
                for (key, item) in entries.iter().rev() {
                    let end = self.out.len();
                    self.element(2, map.value, item);
                    self.out.bytes(1, key.as_bytes());
                    self.out.close(number, end);
                }
            }
            (Type::Map(_), _) => {}
            (Type::List(list), value) if !list.proto_message => self.repeated(number, list, value),
            (Type::List(_), Value::Null) => {}
            _ => self.element(number, field.ty, value),
        }
    }

    fn repeated(&mut self, number: u32, list: &ListType, value: &Value) {
        for item in value.as_list().unwrap_or_default().iter().rev() {
            self.element(number, list.elem, item);
        }
    }

    /// One value that is there (null being its zero value).
    fn element(&mut self, number: u32, ty: TypeId, value: &Value) {
        let universe = self.universe;
        let ty = match universe.get(ty) {
            Type::Scalar(scalar) => return self.scalar(number, *scalar, value),
            ty => ty,
        };
        let end = self.out.len();
        match ty {
            Type::Struct(ty) => self.structure(value.as_map(), ty),
            Type::Special(special) => self.special(*special, value),
            Type::List(list) => self.repeated(1, list, value),
            Type::Scalar(_) | Type::Map(_) | Type::Any => {}
        }
        self.out.close(number, end);
    }

    fn scalar(&mut self, number: u32, scalar: Scalar, value: &Value) {
        match scalar {
            Scalar::String => self.out.bytes(number, value.as_str().unwrap_or_default().as_bytes()),
            Scalar::Bytes => match value {
                Value::Bytes(bytes) => self.out.bytes(number, bytes),
                Value::String(text) => self.out.bytes(number, text.as_bytes()),
                _ => {}
            },
            Scalar::Float64 | Scalar::Number => {
                let float = match value {
                    Value::Float(float) => *float,
                    Value::Int(integer) => *integer as f64,
                    _ => 0.0,
                };
                self.out.slice(&float.to_bits().to_le_bytes());
                self.out.tag(number, FIXED64);
            }
            Scalar::Bool => self.out.integer(number, u64::from(value.as_bool().unwrap_or_default())),
            // Negative 32-bit integers are sign-extended, as protobuf has it.
            Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 => {
                self.out.integer(number, value.as_int().unwrap_or_default() as u64);
            }
        }
    }

    fn special(&mut self, special: Special, value: &Value) {
        match special {
            Special::Time => self.timestamp(value, Precision::Seconds),
            Special::MicroTime => self.timestamp(value, Precision::Micros),
            Special::Duration => {
                let nanos = value.as_str().and_then(|t| time::parse_duration(t).ok()).unwrap_or_default();
                self.out.integer(1, nanos as u64);
            }
            Special::Quantity => self.out.bytes(1, value.as_str().unwrap_or("0").as_bytes()),
            Special::IntOrString => {
                self.out.bytes(3, value.as_str().unwrap_or_default().as_bytes());
                self.out.integer(2, value.as_int().unwrap_or_default() as u64);
                self.out.integer(1, u64::from(value.as_str().is_some()));
            }
            Special::FieldsV1 | Special::RawExtension | Special::Json => self.raw(1, value),
            Special::Unknown | Special::Object => {}
            Special::JsonSchemaPropsOrBool(ty) => {
                if value.as_map().is_some() {
                    self.element(2, ty, value);
                }
                let allows = value.as_map().is_some() || value.as_bool() == Some(true);
                self.out.integer(1, u64::from(allows));
            }
            Special::JsonSchemaPropsOrArray(ty) => match value {
                Value::List(items) => items.iter().rev().for_each(|item| self.element(2, ty, item)),
                Value::Map(_) => self.element(1, ty, value),
                _ => {}
            },
            Special::JsonSchemaPropsOrStringArray(ty) => match value {
                Value::List(items) => {
                    items.iter().rev().for_each(|item| self.scalar(2, Scalar::String, item));
                }
                Value::Map(_) => self.element(1, ty, value),
                _ => {}
            },
        }
    }

    /// Verbatim JSON; a tree in its place (put there by a merge) is written as JSON.
    fn raw(&mut self, number: u32, value: &Value) {
        match value {
            Value::Null => {}
            Value::Raw(raw) => self.out.bytes(number, raw),
            value => {
                let mut writer = crate::json::Writer::new(self.universe, 256);
                writer.any(value);
                self.out.bytes(number, &writer.out);
            }
        }
    }

    fn timestamp(&mut self, value: &Value, precision: Precision) {
        let Some(instant) = value.as_str().and_then(|t| time::parse(t, precision).ok()) else { return };
        if instant.is_zero() {
            return;
        }
        let nanos = if precision == Precision::Micros { instant.nanos } else { 0 };
        self.out.integer(2, nanos.into());
        self.out.integer(1, instant.seconds as u64);
    }
}
