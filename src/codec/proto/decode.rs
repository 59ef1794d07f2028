//! Message -> tree, guided by a type. The tree's invariants are those of the JSON decoder (`json::decode`).
//!
//! Fields are collected first and built afterwards: a sub-message that comes in several pieces is the
//! concatenation of the pieces, which is what merging them means, and maps are sorted once. So the work is
//! linear in the input whatever the input is.

use copepod_meta::quantity::Quantity;
use copepod_meta::{Bytes, CompactString, Map, Value};
use copepod_schema::{
    Field, ListType, ProtoEntry, ProtoMember, Scalar, Special, StructType, Type, TypeId, Universe,
};

use super::read::{BYTES, Cursor, FIXED64, Malformed, ProtoError, Tag, VARINT};
use crate::json::scan::{Scanner, lossy};
use crate::json::{TREE_DEPTH_MAX, by_name, is_zero_field, or_zero};
use crate::time::{self, Instant, Precision};

/// Messages being decoded.
pub(crate) struct Decoder<'u> {
    universe: &'u Universe,
    depth: usize,
}

/// A field's value in the making.
enum Slot<'a> {
    Scalar(Value),
    /// A sub-message.
    Message(&'a [u8]),
    /// A sub-message that came in pieces: all of them, one after the other.
    Joined(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(CompactString, Value)>),
}

/// One field (not of a whole message) from its collected occurrences: for peeking.
pub(crate) fn field_value(
    universe: &Universe,
    field: &Field,
    occurrences: &[(Tag, Cursor)],
) -> Result<Value, ProtoError> {
    let mut decoder = Decoder::new(universe);
    let mut slot = None;
    for (tag, cursor) in occurrences {
        decoder.collect(&mut slot, field, *tag, &mut cursor.clone())?;
    }
    match slot {
        Some(slot) => {
            let value = decoder.finish(slot, field.ty)?;
            Ok(if is_zero_field(universe, field, &value) { Value::Null } else { value })
        }
        None => Ok(Value::Null),
    }
}

impl<'u> Decoder<'u> {
    pub(crate) fn new(universe: &'u Universe) -> Decoder<'u> {
        Decoder { universe, depth: 0 }
    }

    /// A whole message.
    pub(crate) fn structure(&mut self, bytes: &[u8], ty: &StructType) -> Result<Value, ProtoError> {
        self.enter()?;
        let mut entries = Vec::new();
        self.level(bytes, ty, &ty.proto, &mut entries)?;
        self.depth -= 1;
        Ok(Value::Map(by_name(ty, entries)))
    }

    fn enter(&mut self) -> Result<(), ProtoError> {
        if self.depth >= TREE_DEPTH_MAX {
            return Err(Malformed::TooDeep.into());
        }
        self.depth += 1;
        Ok(())
    }

    /// The fields of one level: the message itself or a JSON-inlined part of it.
    fn level(
        &mut self,
        bytes: &[u8],
        ty: &StructType,
        entries: &[ProtoEntry],
        out: &mut Vec<(u16, Value)>,
    ) -> Result<(), ProtoError> {
        let mut slots: Vec<(usize, Option<Slot>)> = Vec::with_capacity(entries.len().min(8));
        let mut cursor = Cursor::new(bytes);
        while let Some(tag) = cursor.tag()? {
            let Ok(index) = entries.binary_search_by_key(&tag.number, |e| e.number) else {
                cursor.skip(tag.wire)?;
                continue;
            };
            // Fields come in order, so it is nearly always the last one or a new one.
            let known = slots.iter().rposition(|(seen, _)| *seen == index);
            let place = known.unwrap_or_else(|| {
                slots.push((index, None));
                slots.len() - 1
            });
            let slot = &mut slots[place].1;
            match &entries[index].member {
                ProtoMember::Field(at) => {
                    self.collect(slot, &ty.fields[usize::from(*at)], tag, &mut cursor)?
                }
                ProtoMember::Inline { .. } => add_piece(slot, tag, &mut cursor, "inline")?,
            }
        }
        for (index, slot) in slots {
            match (&entries[index].member, slot) {
                (ProtoMember::Field(at), Some(slot)) => {
                    let field = &ty.fields[usize::from(*at)];
                    let value = self.finish(slot, field.ty)?;
                    if !is_zero_field(self.universe, field, &value) {
                        out.push((*at, value));
                    }
                }
                (ProtoMember::Inline { entries, .. }, Some(Slot::Message(bytes))) => {
                    self.inline(bytes, ty, entries, out)?;
                }
                (ProtoMember::Inline { entries, .. }, Some(Slot::Joined(bytes))) => {
                    self.inline(&bytes, ty, entries, out)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn inline(
        &mut self,
        bytes: &[u8],
        ty: &StructType,
        entries: &[ProtoEntry],
        out: &mut Vec<(u16, Value)>,
    ) -> Result<(), ProtoError> {
        self.enter()?;
        self.level(bytes, ty, entries, out)?;
        self.depth -= 1;
        Ok(())
    }

    /// Adds one occurrence of a field to its slot.
    fn collect<'a>(
        &mut self,
        slot: &mut Option<Slot<'a>>,
        field: &Field,
        tag: Tag,
        cursor: &mut Cursor<'a>,
    ) -> Result<(), ProtoError> {
        let name = field.json.as_ref();
        match self.universe.get(field.ty) {
            Type::Scalar(scalar) => {
                *slot = Some(Slot::Scalar(scalar_value(*scalar, tag.wire, cursor, name)?))
            }
            Type::List(list) if !list.proto_message => {
                if !matches!(slot, Some(Slot::List(_))) {
                    *slot = Some(Slot::List(Vec::new()));
                }
                if let Some(Slot::List(items)) = slot {
                    self.elements(list, tag, cursor, name, items)?;
                }
            }
            Type::Map(map) => {
                let entry = self.map_entry(expect_bytes(tag, cursor, name)?, map.value, name)?;
                match slot {
                    Some(Slot::Map(entries)) => entries.push(entry),
                    _ => *slot = Some(Slot::Map(vec![entry])),
                }
            }
            _ => add_piece(slot, tag, cursor, name)?,
        }
        Ok(())
    }

    fn finish(&mut self, slot: Slot, ty: TypeId) -> Result<Value, ProtoError> {
        match slot {
            Slot::Scalar(value) => Ok(value),
            Slot::List(items) => Ok(Value::List(items)),
            Slot::Map(entries) => Ok(Value::Map(Map::from_entries(entries))),
            Slot::Message(bytes) => self.message(bytes, ty),
            Slot::Joined(bytes) => self.message(&bytes, ty),
        }
    }

    /// A sub-message of any type.
    fn message(&mut self, bytes: &[u8], ty: TypeId) -> Result<Value, ProtoError> {
        let universe = self.universe;
        match universe.get(ty) {
            Type::Struct(ty) => self.structure(bytes, ty),
            Type::Special(special) => self.special(bytes, *special),
            Type::List(list) => {
                let mut items = Vec::new();
                let mut cursor = Cursor::new(bytes);
                while let Some(tag) = cursor.tag()? {
                    match tag.number {
                        1 => self.elements(list, tag, &mut cursor, "items", &mut items)?,
                        _ => cursor.skip(tag.wire)?,
                    }
                }
                Ok(Value::List(items))
            }
            Type::Scalar(_) | Type::Map(_) | Type::Any => Ok(Value::Null),
        }
    }

    fn elements(
        &mut self,
        list: &ListType,
        tag: Tag,
        cursor: &mut Cursor,
        name: &str,
        items: &mut Vec<Value>,
    ) -> Result<(), ProtoError> {
        match self.universe.get(list.elem) {
            Type::Scalar(scalar @ (Scalar::String | Scalar::Bytes)) => {
                items.push(scalar_value(*scalar, tag.wire, cursor, name)?);
            }
            Type::Scalar(scalar) if tag.wire == BYTES => {
                let packed = cursor.bytes()?;
                let mut inner = Cursor::new(packed);
                let wire = if *scalar == Scalar::Float64 { FIXED64 } else { VARINT };
                while inner.position() < packed.len() {
                    items.push(scalar_value(*scalar, wire, &mut inner, name)?);
                }
            }
            Type::Scalar(scalar) => items.push(scalar_value(*scalar, tag.wire, cursor, name)?),
            _ => {
                let bytes = expect_bytes(tag, cursor, name)?;
                let item = self.message(bytes, list.elem)?;
                items.push(or_zero(self.universe, item, list.elem));
            }
        }
        Ok(())
    }

    fn map_entry(
        &mut self,
        bytes: &[u8],
        value_ty: TypeId,
        name: &str,
    ) -> Result<(CompactString, Value), ProtoError> {
        let mut key = CompactString::default();
        let mut value = Value::Null;
        let mut cursor = Cursor::new(bytes);
        while let Some(tag) = cursor.tag()? {
            match tag.number {
                1 => key = CompactString::from(lossy(expect_bytes(tag, &mut cursor, name)?)),
                2 => {
                    value = match self.universe.get(value_ty) {
                        Type::Scalar(scalar) => scalar_value(*scalar, tag.wire, &mut cursor, name)?,
                        _ => self.message(expect_bytes(tag, &mut cursor, name)?, value_ty)?,
                    }
                }
                _ => cursor.skip(tag.wire)?,
            }
        }
        // Go makes an empty slice, not nil, where the entry has no value.
        if value.is_null() && matches!(self.universe.get(value_ty), Type::Scalar(Scalar::Bytes)) {
            value = Value::Bytes(Bytes::new());
        }
        Ok((key, or_zero(self.universe, value, value_ty)))
    }

    /// A hand-written form.
    pub(crate) fn special(&mut self, bytes: &[u8], special: Special) -> Result<Value, ProtoError> {
        match special {
            Special::Time => Ok(timestamp(bytes, Precision::Seconds)?),
            Special::MicroTime => Ok(timestamp(bytes, Precision::Micros)?),
            Special::Duration => {
                let [nanos, ..] = integers(bytes)?;
                Ok(Value::String(CompactString::from(time::format_duration(nanos as i64))))
            }
            Special::Quantity => quantity(bytes),
            Special::IntOrString => int_or_string(bytes),
            Special::FieldsV1 | Special::RawExtension | Special::Json => raw_json(bytes, 1),
            Special::Unknown => raw_json(bytes, 2),
            Special::Object => Ok(Value::Null),
            Special::JsonSchemaPropsOrBool(ty) => {
                let [allows, ..] = integers(bytes)?;
                match Cursor::new(bytes).find(2)? {
                    Some(schema) => self.message(schema, ty),
                    None => Ok(Value::Bool(allows != 0)),
                }
            }
            Special::JsonSchemaPropsOrArray(ty) => {
                self.schema_or(bytes, ty, |decoder, bytes| decoder.message(bytes, ty))
            }
            Special::JsonSchemaPropsOrStringArray(ty) => {
                self.schema_or(bytes, ty, |_, bytes| Ok(Value::String(CompactString::from(lossy(bytes)))))
            }
        }
    }

    /// A schema under 1 or items under 2; the items win, as in JSON.
    fn schema_or(
        &mut self,
        bytes: &[u8],
        ty: TypeId,
        mut item: impl FnMut(&mut Self, &[u8]) -> Result<Value, ProtoError>,
    ) -> Result<Value, ProtoError> {
        let mut items = Vec::new();
        let mut cursor = Cursor::new(bytes);
        while let Some(bytes) = cursor.find(2)? {
            items.push(item(self, bytes)?);
        }
        if !items.is_empty() {
            return Ok(Value::List(items));
        }
        match Cursor::new(bytes).find(1)? {
            Some(schema) => self.message(schema, ty),
            None => Ok(Value::Null),
        }
    }
}

fn expect_bytes<'a>(tag: Tag, cursor: &mut Cursor<'a>, name: &str) -> Result<&'a [u8], ProtoError> {
    if tag.wire != BYTES {
        return Err(Malformed::WrongWireType(tag.wire, name.into()).into());
    }
    cursor.bytes()
}

fn add_piece<'a>(
    slot: &mut Option<Slot<'a>>,
    tag: Tag,
    cursor: &mut Cursor<'a>,
    name: &str,
) -> Result<(), ProtoError> {
    let piece = expect_bytes(tag, cursor, name)?;
    match slot {
        Some(Slot::Message(first)) => *slot = Some(Slot::Joined([*first, piece].concat())),
        Some(Slot::Joined(pieces)) => pieces.extend_from_slice(piece),
        _ => *slot = Some(Slot::Message(piece)),
    }
    Ok(())
}

fn scalar_value(scalar: Scalar, wire: u8, cursor: &mut Cursor, name: &str) -> Result<Value, ProtoError> {
    let expected = match scalar {
        Scalar::String | Scalar::Bytes => BYTES,
        Scalar::Float64 | Scalar::Number => FIXED64,
        Scalar::Bool | Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 => VARINT,
    };
    if wire != expected {
        return Err(Malformed::WrongWireType(wire, name.into()).into());
    }
    Ok(match scalar {
        Scalar::String => Value::String(CompactString::from(lossy(cursor.bytes()?))),
        Scalar::Bytes => Value::Bytes(Bytes::copy_from_slice(cursor.bytes()?)),
        Scalar::Float64 | Scalar::Number => Value::Float(f64::from_bits(cursor.fixed64()?)),
        Scalar::Bool => Value::Bool(cursor.varint()? != 0),
        // Go's conversions: the low bits.
        Scalar::Int32 => Value::Int((cursor.varint()? as i32).into()),
        Scalar::Uint32 => Value::Int((cursor.varint()? as u32).into()),
        Scalar::Int64 | Scalar::Uint64 => Value::Int(cursor.varint()? as i64),
    })
}

/// The varints under 1 and 2.
fn integers(bytes: &[u8]) -> Result<[u64; 2], ProtoError> {
    let mut found = [0; 2];
    let mut cursor = Cursor::new(bytes);
    while let Some(tag) = cursor.tag()? {
        match (tag.number, tag.wire) {
            (number @ 1..=2, VARINT) => found[number as usize - 1] = cursor.varint()?,
            (_, wire) => cursor.skip(wire)?,
        }
    }
    Ok(found)
}

fn timestamp(bytes: &[u8], precision: Precision) -> Result<Value, ProtoError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanos] = integers(bytes)?;
    let nanos = match precision {
        Precision::Seconds => 0,
        Precision::Micros => (nanos as u32).min(999_999_999) / 1000 * 1000,
    };
    let instant = Instant { seconds: seconds as i64, nanos };
    if instant.is_zero() {
        return Ok(Value::Null);
    }
    Ok(Value::String(CompactString::from(time::format(instant, precision))))
}

fn quantity(bytes: &[u8]) -> Result<Value, ProtoError> {
    let Some(text) = Cursor::new(bytes).find(1)? else { return Ok(Value::string("0")) };
    let quantity = Quantity::parse(&lossy(text)).map_err(|e| Malformed::Value(e.to_string()))?;
    Ok(Value::String(CompactString::from(quantity.to_string())))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtoError> {
    let [kind, integer] = integers(bytes)?;
    match kind {
        0 => Ok(Value::Int((integer as i32).into())),
        1 => {
            let text = Cursor::new(bytes).find(3)?.unwrap_or_default();
            Ok(Value::String(CompactString::from(lossy(text))))
        }
        _ => Err(Malformed::Value("impossible IntOrString.Type".into()).into()),
    }
}

/// Verbatim JSON under `number`. Upstream finds out when it next writes JSON, and then cannot list; here it
/// is refused.
fn raw_json(bytes: &[u8], number: u32) -> Result<Value, ProtoError> {
    let raw = Cursor::new(bytes).find(number)?.unwrap_or_default();
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    let mut scan = Scanner::new(raw);
    scan.skip(0).and_then(|_| scan.finish()).map_err(|e| Malformed::Value(e.0))?;
    Ok(Value::Raw(Bytes::copy_from_slice(raw)))
}
