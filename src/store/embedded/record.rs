//! One row of the log: what a revision did to a key.
//!
//! `format:u8 flags:u8 create:u64 version:u64 deadline_ms:u64 key_len:u32 key value`, integers big-endian.

use super::OpenError;

/// The layout above. A higher one was written by a newer program.
const FORMAT: u8 = 1;
const DELETED: u8 = 1;
const HEAD_BYTES: usize = 2 + 3 * 8 + 4;

/// A row, its bytes borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) key: &'a [u8],
    /// `None`: the key was deleted.
    pub(super) value: Option<&'a [u8]>,
    pub(super) create_revision: u64,
    pub(super) version: u64,
    /// When the key goes away by itself, in milliseconds of Unix time; 0: never.
    pub(super) deadline_ms: u64,
}

impl<'a> Record<'a> {
    pub(super) fn encoded_len(&self) -> usize {
        HEAD_BYTES + self.key.len() + self.value.map_or(0, <[u8]>::len)
    }

    /// Writes the row into a buffer of exactly `encoded_len` bytes.
    pub(super) fn encode(&self, row: &mut [u8]) {
        let mut rest = row;
        let mut put = |bytes: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            head.copy_from_slice(bytes);
            rest = tail;
        };
        put(&[FORMAT, if self.value.is_none() { DELETED } else { 0 }]);
        put(&self.create_revision.to_be_bytes());
        put(&self.version.to_be_bytes());
        put(&self.deadline_ms.to_be_bytes());
        put(&(self.key.len() as u32).to_be_bytes());
        put(self.key);
        put(self.value.unwrap_or_default());
    }

    pub(super) fn decode(revision: u64, row: &'a [u8]) -> Result<Self, OpenError> {
        Self::parse(row)
            .ok_or_else(|| OpenError::Corrupt(format!("the row of revision {revision} cannot be read")))
    }

    fn parse(row: &'a [u8]) -> Option<Self> {
        let (&[format, flags], rest) = row.split_first_chunk::<2>()?;
        let (create, rest) = rest.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<8>()?;
        let (deadline, rest) = rest.split_first_chunk::<8>()?;
        let (key_len, rest) = rest.split_first_chunk::<4>()?;
        let (key, value) = rest.split_at_checked(u32::from_be_bytes(*key_len) as usize)?;
        let deleted = flags & DELETED != 0;
        (format == FORMAT && !key.is_empty() && (!deleted || value.is_empty())).then_some(Self {
            key,
            value: (!deleted).then_some(value),
            create_revision: u64::from_be_bytes(*create),
            version: u64::from_be_bytes(*version),
            deadline_ms: u64::from_be_bytes(*deadline),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_and_damage_is_noticed() {
        for (value, version) in [(Some(&b"v"[..]), 3), (Some(b""), 1), (None, 0)] {
            let record = Record { key: b"/k", value, create_revision: 7, version, deadline_ms: 9 };
            let mut row = vec![0; record.encoded_len()];
            record.encode(&mut row);
            assert_eq!(Record::decode(1, &row).expect("own row"), record);
            for cut in 0..HEAD_BYTES + 2 {
                assert!(Record::decode(1, &row[..cut]).is_err(), "cut at {cut}");
            }
            row[0] = 2;
            assert!(Record::decode(1, &row).is_err(), "a format of the future");
        }
    }
}
