//! Message -> JSON members, without a tree: the bytes that decoding and encoding would come to.
//!
//! A message's fields come in the order of their numbers, JSON's in that of the struct. So a level is read once to find where
//! each field is, and written from there. Values go from one text to the other; only the hand-written forms (quantities,
//! schemas ...) become values on the way.
//!
//! Does not: judge. What upstream's encoder does not write (a sub-message in pieces, a map out of order, wrong wire types,
//! malformed bytes) is [`Unusual`], and the caller decodes it, which is right for everything.

use copepod_meta::{Gvk, Value};
use copepod_schema::{
    Field, ListType, ProtoEntry, ProtoMember, Scalar, Special, StructType, Type, TypeId, Universe,
};

use crate::json::scan::{Scanner, lossy};
use crate::json::{
    TREE_DEPTH_MAX, Writer, base64_into, compact_into, integer_into, is_zero, leaves_out, or_zero, text_into,
};
use crate::proto::Decoder;
use crate::proto::read::{BYTES, Cursor, FIXED64, ProtoError, VARINT};

/// Bytes for which the way through a tree has to be taken.
#[derive(Debug)]
pub(crate) struct Unusual;

impl From<ProtoError> for Unusual {
    fn from(_: ProtoError) -> Unusual {
        Unusual
    }
}

/// The members of a root object and its closing brace, without type meta; with `gvk` the object that they are the members of.
pub(crate) fn object(
    universe: &Universe,
    message: &[u8],
    ty: &StructType,
    gvk: Option<&Gvk>,
) -> Result<Vec<u8>, Unusual> {
    let mut writer = Writer::new(universe, message.len() * 2);
    let mut first = true;
    if let Some(gvk) = gvk {
        writer.out.push(b'{');
        writer.type_meta(gvk, &mut first);
    }
    // Places are kept in 32 bits; no store takes an object of that size.
    u32::try_from(message.len()).map_err(|_| Unusual)?;
    let mut transcoder = Transcoder {
        writer,
        universe,
        message,
        slots: (Vec::with_capacity(SLOTS), Vec::with_capacity(SLOTS)),
        depth: 0,
    };
    transcoder.members(message, ty, first, true)?;
    let mut out = transcoder.writer.out;
    out.push(b'}');
    Ok(out)
}

/// Fields of the levels of a pod that are open at once.
const SLOTS: usize = 160;

struct Transcoder<'a, 'u> {
    universe: &'u Universe,
    writer: Writer<'u>,
    message: &'a [u8],
    /// The fields of the levels that are being written, one after the other: number and occurrences; start and end. Halves
    /// are written and read together: a read of what two writes have just made waits for both.
    slots: (Vec<u64>, Vec<u64>),
    depth: usize,
}

/// Where in the message a field is: from its first occurrence to its last one, others' in between.
#[derive(Clone, Copy)]
struct Slot {
    number: u32,
    occurrences: u32,
    start: u32,
    end: u32,
}

impl Slot {
    #[inline(always)]
    fn bytes<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.start as usize..self.end as usize]
    }

    /// Calls `each` with the wire type of each occurrence and a cursor at its value.
    #[inline(always)]
    fn each<'a>(
        &self,
        message: &'a [u8],
        mut each: impl FnMut(u8, &mut Cursor<'a>) -> Result<(), Unusual>,
    ) -> Result<(), Unusual> {
        let mut cursor = Cursor::new(self.bytes(message));
        while let Some(tag) = cursor.tag()? {
            if tag.number == self.number {
                each(tag.wire, &mut cursor)?;
            } else {
                cursor.skip(tag.wire)?;
            }
        }
        Ok(())
    }

    /// The wire type and a cursor at the value of a field that comes once.
    #[inline(always)]
    fn once<'a>(&self, message: &'a [u8]) -> Result<(u8, Cursor<'a>), Unusual> {
        let mut cursor = Cursor::new(self.bytes(message));
        match cursor.tag()? {
            Some(tag) if self.occurrences == 1 => Ok((tag.wire, cursor)),
            _ => Err(Unusual),
        }
    }

    /// The bytes of a field that comes once.
    #[inline(always)]
    fn only<'a>(&self, message: &'a [u8]) -> Result<&'a [u8], Unusual> {
        match self.once(message)? {
            (BYTES, mut cursor) => Ok(cursor.bytes()?),
            _ => Err(Unusual),
        }
    }
}

/// Any value that is empty.
static EMPTY: Value = Value::Bool(false);

/// What was written of a value, as a tree would hold it.
#[derive(Clone, Copy, PartialEq)]
enum Written {
    /// A tree would hold null, and nothing was written.
    Null,
    /// Something that Go could not tell from nothing.
    Zero,
    /// Empty, but there.
    Empty,
    Full,
}

impl<'a> Transcoder<'a, '_> {
    fn enter(&mut self) -> Result<(), Unusual> {
        if self.depth >= TREE_DEPTH_MAX {
            return Err(Unusual);
        }
        self.depth += 1;
        Ok(())
    }

    /// Writes the members of a struct, without braces; whether a tree would hold any.
    fn members(
        &mut self,
        message: &'a [u8],
        ty: &StructType,
        mut first: bool,
        root: bool,
    ) -> Result<bool, Unusual> {
        self.enter()?;
        let base = self.slots.0.len();
        if ty.fields.len() > u64::BITS as usize {
            return Err(Unusual);
        }
        self.slots.0.resize(base + ty.fields.len(), 0);
        self.slots.1.resize(base + ty.fields.len(), 0);
        // A bit for each field that is there, or that JSON has without it.
        let mut wanted = self.universe.always_written(ty) | self.find(message, &ty.proto, base)?;
        let mut any = false;
        while wanted != 0 {
            let index = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            let (field, slot) = (&ty.fields[index], self.slot(base + index));
            if root && (field.json == "kind" || field.json == "apiVersion") {
                continue;
            }
            any |= self.member(field, &slot, &mut first)?;
        }
        self.slots.0.truncate(base);
        self.slots.1.truncate(base);
        self.depth -= 1;
        Ok(any)
    }

    fn slot(&self, at: usize) -> Slot {
        let (key, span) = (self.slots.0[at], self.slots.1[at]);
        Slot {
            number: (key >> 32) as u32,
            occurrences: key as u32,
            start: (span >> 32) as u32,
            end: span as u32,
        }
    }

    /// Finds the fields of one level, and of the JSON-inlined messages in it: a bit for each.
    fn find(&mut self, level: &'a [u8], entries: &[ProtoEntry], base: usize) -> Result<u64, Unusual> {
        let mut cursor = Cursor::new(level);
        // A level is a part of the message; both are in reach of 32 bits.
        let level_start = (level.as_ptr().addr() - self.message.as_ptr().addr()) as u32;
        // Fields come in order: the next one is this entry or a later one.
        let mut next = 0;
        let (mut inlined, mut found) = (0u64, 0u64);
        loop {
            let start = cursor.position();
            let Some(tag) = cursor.tag()? else { return Ok(found) };
            let known = entries.get(next).is_some_and(|entry| entry.number == tag.number);
            let index = match known.then_some(next) {
                Some(index) => index,
                None => match entries.binary_search_by_key(&tag.number, |entry| entry.number) {
                    Ok(index) => index,
                    Err(_) => {
                        cursor.skip(tag.wire)?;
                        continue;
                    }
                },
            };
            next = index;
            match &entries[index].member {
                ProtoMember::Field(at) => {
                    cursor.skip(tag.wire)?;
                    found |= 1 << at;
                    let at = base + usize::from(*at);
                    let occurrences = self.slots.0[at] & u64::from(u32::MAX);
                    let start = match occurrences {
                        0 => u64::from(level_start + start as u32) << 32,
                        _ => self.slots.1[at] >> 32 << 32,
                    };
                    self.slots.0[at] = u64::from(tag.number) << 32 | (occurrences + 1);
                    self.slots.1[at] = start | u64::from(level_start + cursor.position() as u32);
                }
                ProtoMember::Inline { entries, .. } => {
                    let bit = 1u64.checked_shl(index as u32).ok_or(Unusual)?;
                    if tag.wire != BYTES || inlined & bit != 0 {
                        return Err(Unusual);
                    }
                    inlined |= bit;
                    let inner = cursor.bytes()?;
                    self.enter()?;
                    found |= self.find(inner, entries, base)?;
                    self.depth -= 1;
                }
            }
        }
    }

    /// Writes a member if JSON has it; whether a tree would.
    fn member(&mut self, field: &Field, slot: &Slot, first: &mut bool) -> Result<bool, Unusual> {
        let (len, was_first) = (self.writer.out.len(), *first);
        if slot.occurrences > 0 {
            self.writer.name(&field.json, first);
            let written = self.field(field, slot)?;
            let nothing = match written {
                Written::Null => true,
                Written::Zero => !field.pointer,
                Written::Empty | Written::Full => false,
            };
            if !nothing {
                if written != Written::Full && leaves_out(self.universe, field, Some(&EMPTY)) {
                    self.writer.out.truncate(len);
                    *first = was_first;
                }
                return Ok(true);
            }
            self.writer.out.truncate(len);
            *first = was_first;
        }
        if !leaves_out(self.universe, field, None) {
            self.writer.name(&field.json, first);
            self.writer.field(field, None);
        }
        Ok(false)
    }

    fn field(&mut self, field: &Field, slot: &Slot) -> Result<Written, Unusual> {
        match self.universe.get(field.ty) {
            Type::Scalar(scalar) => {
                let (wire, mut cursor) = slot.once(self.message)?;
                self.scalar(*scalar, wire, &mut cursor)
            }
            Type::List(list) if !list.proto_message => {
                let mut items = 0;
                self.writer.out.push(b'[');
                slot.each(self.message, |wire, cursor| self.items(list, wire, cursor, &mut items))?;
                self.writer.out.push(b']');
                Ok(if items == 0 { Written::Empty } else { Written::Full })
            }
            Type::Map(map) => {
                self.entries(slot, map.value)?;
                Ok(Written::Full)
            }
            _ => self.message(slot.only(self.message)?, field.ty),
        }
    }

    /// Writes a sub-message of any type.
    fn message(&mut self, bytes: &'a [u8], ty: TypeId) -> Result<Written, Unusual> {
        match self.universe.get(ty) {
            Type::Struct(ty) => {
                self.writer.out.push(b'{');
                let any = self.members(bytes, ty, true, false)?;
                self.writer.out.push(b'}');
                Ok(if any { Written::Full } else { Written::Zero })
            }
            Type::List(list) => {
                let mut items = 0;
                self.writer.out.push(b'[');
                let mut cursor = Cursor::new(bytes);
                while let Some(tag) = cursor.tag()? {
                    match tag.number {
                        1 => self.items(list, tag.wire, &mut cursor, &mut items)?,
                        _ => cursor.skip(tag.wire)?,
                    }
                }
                self.writer.out.push(b']');
                Ok(if items == 0 { Written::Empty } else { Written::Full })
            }
            Type::Special(special) => {
                if let Some(number) = raw_number(*special) {
                    return self.raw(bytes, number);
                }
                let value = Decoder::new(self.universe).special(bytes, *special)?;
                if value.is_null() {
                    return Ok(Written::Null);
                }
                self.writer.value(&value, ty);
                Ok(match (is_zero(self.universe, ty, &value), value.is_empty()) {
                    (true, _) => Written::Zero,
                    (_, true) => Written::Empty,
                    _ => Written::Full,
                })
            }
            Type::Scalar(_) | Type::Map(_) | Type::Any => Ok(Written::Null),
        }
    }

    /// Verbatim JSON under a number.
    fn raw(&mut self, bytes: &[u8], number: u32) -> Result<Written, Unusual> {
        let raw = Cursor::new(bytes).find(number)?.unwrap_or_default();
        if raw.is_empty() {
            return Ok(Written::Null);
        }
        let mut scan = Scanner::new(raw);
        scan.skip(0).and_then(|_| scan.finish()).map_err(|_| Unusual)?;
        compact_into(raw, &mut self.writer.out);
        Ok(Written::Full)
    }

    /// Writes the scalar that a cursor is at.
    fn scalar(&mut self, scalar: Scalar, wire: u8, cursor: &mut Cursor<'a>) -> Result<Written, Unusual> {
        let full = |is: bool, otherwise| if is { Written::Full } else { otherwise };
        let out = &mut self.writer.out;
        Ok(match (scalar, wire) {
            (Scalar::String, BYTES) => {
                let bytes = cursor.bytes()?;
                text_into(&lossy(bytes), out);
                full(!bytes.is_empty(), Written::Zero)
            }
            (Scalar::Bytes, BYTES) => {
                let bytes = cursor.bytes()?;
                out.push(b'"');
                base64_into(bytes, out);
                out.push(b'"');
                full(!bytes.is_empty(), Written::Empty)
            }
            (Scalar::Float64 | Scalar::Number, FIXED64) => {
                let value = f64::from_bits(cursor.fixed64()?);
                self.writer.any(&Value::Float(value));
                full(value != 0.0, Written::Zero)
            }
            (Scalar::Bool, VARINT) => {
                let value = cursor.varint()? != 0;
                out.extend_from_slice(if value { b"true" } else { b"false" });
                full(value, Written::Zero)
            }
            (Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64, VARINT) => {
                let value = cursor.varint()?;
                // Go's conversions: the low bits.
                let value = match scalar {
                    Scalar::Int32 => (value as i32).into(),
                    Scalar::Uint32 => (value as u32).into(),
                    _ => value as i64,
                };
                integer_into(value, out);
                full(value != 0, Written::Zero)
            }
            _ => return Err(Unusual),
        })
    }

    /// Writes the items that one occurrence of a list holds: one, or packed numbers.
    fn items(
        &mut self,
        list: &ListType,
        wire: u8,
        cursor: &mut Cursor<'a>,
        items: &mut usize,
    ) -> Result<(), Unusual> {
        match self.universe.get(list.elem) {
            Type::Scalar(scalar) if wire == BYTES && !matches!(scalar, Scalar::String | Scalar::Bytes) => {
                let packed = cursor.bytes()?;
                let mut inner = Cursor::new(packed);
                let wire = if *scalar == Scalar::Float64 { FIXED64 } else { VARINT };
                while inner.position() < packed.len() {
                    self.comma(items);
                    self.scalar(*scalar, wire, &mut inner)?;
                }
            }
            Type::Scalar(scalar) => {
                self.comma(items);
                self.scalar(*scalar, wire, cursor)?;
            }
            _ => {
                self.comma(items);
                let bytes = if wire == BYTES { cursor.bytes()? } else { return Err(Unusual) };
                self.element(bytes, list.elem, list.elem_pointer)?;
            }
        }
        Ok(())
    }

    fn comma(&mut self, items: &mut usize) {
        if *items > 0 {
            self.writer.out.push(b',');
        }
        *items += 1;
    }

    /// Writes an item of a list or a value of a map.
    fn element(&mut self, bytes: &'a [u8], ty: TypeId, pointer: bool) -> Result<(), Unusual> {
        if self.message(bytes, ty)? == Written::Null {
            self.no_element(ty, pointer);
        }
        Ok(())
    }

    fn no_element(&mut self, ty: TypeId, pointer: bool) {
        let zero = or_zero(self.universe, Value::Null, ty);
        self.writer.element(&zero, ty, pointer);
    }

    /// Writes a map whose entries are sorted.
    fn entries(&mut self, slot: &Slot, ty: TypeId) -> Result<(), Unusual> {
        let mut last: Option<&str> = None;
        self.writer.out.push(b'{');
        slot.each(self.message, |wire, cursor| {
            let entry = if wire == BYTES { cursor.bytes()? } else { return Err(Unusual) };
            let (mut key, mut value) = (&[][..], None);
            let mut inner = Cursor::new(entry);
            while let Some(tag) = inner.tag()? {
                match tag.number {
                    1 if tag.wire == BYTES => key = inner.bytes()?,
                    2 if value.is_none() => {
                        value = Some((tag.wire, inner.clone()));
                        inner.skip(tag.wire)?;
                    }
                    1 | 2 => return Err(Unusual),
                    _ => inner.skip(tag.wire)?,
                }
            }
            let key = std::str::from_utf8(key).map_err(|_| Unusual)?;
            if last.is_some_and(|last| last >= key) {
                return Err(Unusual);
            }
            self.writer.quoted_name(key, &mut last.is_none());
            last = Some(key);
            self.map_value(value, ty)
        })?;
        self.writer.out.push(b'}');
        Ok(())
    }

    fn map_value(&mut self, value: Option<(u8, Cursor<'a>)>, ty: TypeId) -> Result<(), Unusual> {
        match (self.universe.get(ty), value) {
            (Type::Scalar(scalar), Some((wire, mut cursor))) => {
                self.scalar(*scalar, wire, &mut cursor)?;
            }
            // Go makes an empty slice, not nil, where the entry has no value.
            (Type::Scalar(Scalar::Bytes), None) => self.writer.out.extend_from_slice(b"\"\""),
            (_, None) => self.no_element(ty, false),
            (_, Some((BYTES, mut cursor))) => self.element(cursor.bytes()?, ty, false)?,
            (_, Some(_)) => return Err(Unusual),
        }
        Ok(())
    }
}

/// The field that holds the text of a form that is verbatim JSON.
fn raw_number(special: Special) -> Option<u32> {
    match special {
        Special::FieldsV1 | Special::RawExtension | Special::Json => Some(1),
        Special::Unknown => Some(2),
        _ => None,
    }
}
