//! A buffer filled from its end: a message's length is known once its content stands.

/// Bytes written back to front.
pub(crate) struct BackWriter {
    buffer: Vec<u8>,
    at: usize,
}

impl BackWriter {
    pub(crate) fn new(capacity: usize) -> BackWriter {
        let capacity = capacity.max(64);
        BackWriter { buffer: vec![0; capacity], at: capacity }
    }

    /// How many bytes are written.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.at
    }

    fn reserve(&mut self, count: usize) {
        if self.at >= count {
            return;
        }
        let len = self.len();
        let capacity = (self.buffer.len() * 2).max(len + count);
        let mut larger = vec![0; capacity];
        larger[capacity - len..].copy_from_slice(&self.buffer[self.at..]);
        self.buffer = larger;
        self.at = capacity - len;
    }

    pub(crate) fn slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.at -= bytes.len();
        self.buffer[self.at..self.at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn varint(&mut self, value: u64) {
        let (bytes, len) = varint(value);
        self.slice(&bytes[..len]);
    }

    pub(crate) fn tag(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    /// Closes a length-delimited field whose content was written since `end` (a former [`BackWriter::len`]).
    pub(crate) fn close(&mut self, number: u32, end: usize) {
        let len = self.len() - end;
        self.varint(len as u64);
        self.tag(number, super::read::BYTES);
    }

    /// A whole length-delimited field.
    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        let end = self.len();
        self.slice(bytes);
        self.close(number, end);
    }

    /// A whole varint field.
    pub(crate) fn integer(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.tag(number, super::read::VARINT);
    }

    /// What was written.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.buffer[self.at..]
    }
}

/// A varint's bytes and their number.
pub(crate) fn varint(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}

/// Appends a varint.
pub(crate) fn varint_into(value: u64, out: &mut Vec<u8>) {
    let (bytes, len) = varint(value);
    out.extend_from_slice(&bytes[..len]);
}

/// How many bytes a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    varint(value).1
}

/// Appends a length-delimited field.
pub(crate) fn bytes_into(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    varint_into(u64::from(number) << 3 | u64::from(super::read::BYTES), out);
    varint_into(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
