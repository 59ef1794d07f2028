//! The frame round every protobuf object on the wire and in the store: `k8s\0` and a `runtime.Unknown`.
//! upstream: apimachinery/pkg/runtime/serializer/protobuf/protobuf.go

use copepod_meta::Gvk;

use super::read::{BYTES, Cursor, ProtoError};
use super::write::{bytes_into, varint_into};
use crate::error::DecodeError;
use crate::json::scan::lossy;

/// First bytes of every protobuf object.
pub(crate) const PREFIX: &[u8; 4] = b"k8s\0";

/// After the message: contentEncoding and contentType, empty.
pub(crate) const TAIL: &[u8; 4] = &[0x1a, 0, 0x22, 0];

/// What an envelope says.
pub(crate) struct Envelope<'a> {
    pub(crate) api_version: std::borrow::Cow<'a, str>,
    pub(crate) kind: std::borrow::Cow<'a, str>,
    pub(crate) message: &'a [u8],
}

/// Opens an envelope that came from a client.
pub(crate) fn open(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::EmptyData);
    }
    let unknown = bytes.strip_prefix(PREFIX).ok_or(DecodeError::NoEnvelope)?;
    if unknown.is_empty() {
        return Err(DecodeError::EmptyBody);
    }
    Ok(open_unknown(unknown)?)
}

/// Opens what follows the prefix.
pub(crate) fn open_unknown(unknown: &[u8]) -> Result<Envelope<'_>, ProtoError> {
    let mut envelope = Envelope { api_version: "".into(), kind: "".into(), message: &[] };
    let mut cursor = Cursor::new(unknown);
    while let Some(tag) = cursor.tag()? {
        match (tag.number, tag.wire) {
            (1, BYTES) => {
                let mut meta = Cursor::new(cursor.bytes()?);
                while let Some(tag) = meta.tag()? {
                    match (tag.number, tag.wire) {
                        (1, BYTES) => envelope.api_version = lossy(meta.bytes()?),
                        (2, BYTES) => envelope.kind = lossy(meta.bytes()?),
                        (_, wire) => meta.skip(wire)?,
                    }
                }
            }
            (2, BYTES) => envelope.message = cursor.bytes()?,
            (_, wire) => cursor.skip(wire)?,
        }
    }
    Ok(envelope)
}

/// Everything before a message of `len` bytes.
pub(crate) fn head_into(gvk: &Gvk, len: usize, out: &mut Vec<u8>) {
    let mut meta = Vec::with_capacity(64);
    bytes_into(1, gvk.api_version().as_bytes(), &mut meta);
    bytes_into(2, gvk.kind.as_bytes(), &mut meta);
    out.extend_from_slice(PREFIX);
    bytes_into(1, &meta, out);
    out.push(0x12);
    varint_into(len as u64, out);
}
