//! The wire's lowest level. Nothing here allocates; lengths are checked against what is there before they are
//! believed.

/// Malformed protobuf. One pointer, because every byte that is read could be one: results of a few words go in registers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ProtoError(Box<Malformed>);

impl From<Malformed> for ProtoError {
    #[cold]
    fn from(malformed: Malformed) -> ProtoError {
        ProtoError(Box::new(malformed))
    }
}

/// What is wrong with it; the texts are gogo's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside a value.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// A varint of more than 64 bits.
    #[error("proto: integer overflow")]
    IntegerOverflow,
    /// Field number zero, or an end of a group that was not begun.
    #[error("proto: illegal tag {0} (wire type {1})")]
    IllegalTag(u64, u8),
    /// Wire types 6 and 7.
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    /// Known field, unexpected form.
    #[error("proto: wrong wireType = {0} for field {1}")]
    WrongWireType(u8, String),
    /// Messages nested deeper than a tree may be.
    #[error("proto: exceeded max depth")]
    TooDeep,
    /// Text in a hand-written form that does not parse.
    #[error("{0}")]
    Value(String),
}

/// Wire types.
pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const BYTES: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
pub(crate) const FIXED32: u8 = 5;

/// Groups inside groups; nobody writes even one.
const GROUP_DEPTH_MAX: usize = 100;

/// A cursor over a message.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Number and wire type before a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag {
    pub(crate) number: u32,
    pub(crate) wire: u8,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, ProtoError> {
        // Tags, most lengths and most numbers.
        if let Some(&byte) = self.bytes.get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(byte.into());
        }
        self.long_varint()
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, ProtoError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(Malformed::UnexpectedEof)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::IntegerOverflow.into())
    }

    /// The next field, or `None` at the end.
    // Inlined, its two parts stay in registers.
    #[inline(always)]
    pub(crate) fn tag(&mut self) -> Result<Option<Tag>, ProtoError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (number, wire) = (key >> 3, (key & 7) as u8);
        if number == 0 || number > u64::from(u32::MAX) || wire == GROUP_END {
            return Err(Malformed::IllegalTag(number, wire).into());
        }
        Ok(Some(Tag { number: number as u32, wire }))
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], ProtoError> {
        let left = (self.bytes.len() - self.at) as u64;
        if len > left {
            return Err(Malformed::UnexpectedEof.into());
        }
        let start = self.at;
        self.at += len as usize;
        Ok(&self.bytes[start..self.at])
    }

    /// A length-delimited value.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], ProtoError> {
        let len = self.varint()?;
        self.take(len)
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, ProtoError> {
        let mut value = [0; 8];
        value.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(value))
    }

    /// Steps over a value of this wire type.
    pub(crate) fn skip(&mut self, wire: u8) -> Result<(), ProtoError> {
        match wire {
            VARINT => self.varint().map(|_| ()),
            FIXED64 => self.take(8).map(|_| ()),
            BYTES => self.bytes().map(|_| ()),
            FIXED32 => self.take(4).map(|_| ()),
            GROUP_START => self.skip_group(),
            _ => Err(Malformed::IllegalWireType(wire).into()),
        }
    }

    fn skip_group(&mut self) -> Result<(), ProtoError> {
        let mut depth = 1;
        while depth > 0 {
            let wire = (self.varint()? & 7) as u8;
            match wire {
                GROUP_START if depth >= GROUP_DEPTH_MAX => return Err(Malformed::TooDeep.into()),
                GROUP_START => depth += 1,
                GROUP_END => depth -= 1,
                _ => self.skip(wire)?,
            }
        }
        Ok(())
    }

    /// The next length-delimited field number `wanted`, others being skipped.
    pub(crate) fn find(&mut self, wanted: u32) -> Result<Option<&'a [u8]>, ProtoError> {
        while let Some(tag) = self.tag()? {
            if tag.number == wanted && tag.wire == BYTES {
                return self.bytes().map(Some);
            }
            self.skip(tag.wire)?;
        }
        Ok(None)
    }
}
