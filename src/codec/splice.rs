//! Stored bytes -> the body that readers share, the revision put in, without a tree.
//!
//! The store holds objects without resourceVersion. Everything else is as readers see it when they ask in the
//! storage version, so a body is the stored bytes with a few bytes changed: protobuf, the metadata message
//! and its length; JSON, one member of metadata.

use std::ops::Range;

use copepod_meta::{Bytes, ResourceVersion};

use crate::error::CorruptError;
use crate::frame::{Body, Form};
use crate::json::SyntaxError;
use crate::json::scan::{Next, Scanner};
use crate::proto::envelope::{self, PREFIX};
use crate::proto::read::{BYTES, Cursor, ProtoError};
use crate::proto::write::{bytes_into, varint_into, varint_len};

/// Field numbers of the wire contract: every object's `metadata`, and `resourceVersion` in ObjectMeta.
const METADATA: u32 = 1;
const RESOURCE_VERSION: u32 = 6;

/// The body of a stored value at `version`. `unstructured` says that JSON is a custom resource's, with sorted
/// keys.
pub fn stored_body(
    stored: &[u8],
    version: ResourceVersion,
    unstructured: bool,
) -> Result<Body, CorruptError> {
    let version = shown(version);
    if let Some(unknown) = stored.strip_prefix(PREFIX) {
        let message = envelope::open_unknown(unknown)?.message;
        let bytes = splice_message(message, version.as_bytes())?;
        return Ok(Body { bytes: bytes.into(), form: Form::Protobuf });
    }
    if stored.first() != Some(&b'{') {
        return Err(CorruptError::Unrecognised);
    }
    let (bytes, form) = if unstructured {
        (splice_whole(stored, &version)?, Form::Whole)
    } else {
        (splice_members(stored, &version)?, Form::Members)
    };
    Ok(Body { bytes: Bytes::from(bytes), form })
}

/// A dry run's object has no revision.
fn shown(version: ResourceVersion) -> String {
    if version == ResourceVersion(0) { String::new() } else { version.to_string() }
}

/// How long the body is that [`stored_body`] makes, where what is stored is a message.
pub fn stored_message_len(stored: &[u8], version: ResourceVersion) -> Result<Option<usize>, CorruptError> {
    let Some(unknown) = stored.strip_prefix(PREFIX) else { return Ok(None) };
    let version = shown(version);
    Ok(Some(Splice::of(envelope::open_unknown(unknown)?.message, version.as_bytes())?.len()))
}

/// A message whose metadata has this resourceVersion.
fn splice_message(message: &[u8], version: &[u8]) -> Result<Vec<u8>, ProtoError> {
    Ok(Splice::of(message, version)?.bytes())
}

/// Where a message is cut for its revision.
struct Splice<'a> {
    message: &'a [u8],
    /// What stands before the metadata, and where the rest begins.
    start: usize,
    end: usize,
    metadata: &'a [u8],
    /// The resourceVersion that is in the metadata, or where it belongs.
    old: Range<usize>,
    version: &'a [u8],
    /// Length of the new metadata.
    metadata_len: usize,
}

impl<'a> Splice<'a> {
    fn of(message: &'a [u8], version: &'a [u8]) -> Result<Splice<'a>, ProtoError> {
        let mut cursor = Cursor::new(message);
        // Metadata is the first field of every kind; whatever stands before it is kept.
        let (mut start, mut metadata) = (0, &message[..0]);
        while let Some(tag) = cursor.tag()? {
            if tag.number == METADATA && tag.wire == BYTES {
                metadata = cursor.bytes()?;
                break;
            }
            cursor.skip(tag.wire)?;
            start = cursor.position();
        }
        let end = cursor.position();
        let old = resource_version_span(metadata)?;
        let field_len = 1 + varint_len(version.len() as u64) + version.len();
        let metadata_len = metadata.len() - old.len() + field_len;
        Ok(Splice { message, start, end, metadata, old, version, metadata_len })
    }

    fn len(&self) -> usize {
        let head = 1 + varint_len(self.metadata_len as u64);
        self.start + head + self.metadata_len + (self.message.len() - self.end)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        out.extend_from_slice(&self.message[..self.start]);
        varint_into(u64::from(METADATA) << 3 | u64::from(BYTES), &mut out);
        varint_into(self.metadata_len as u64, &mut out);
        out.extend_from_slice(&self.metadata[..self.old.start]);
        bytes_into(RESOURCE_VERSION, self.version, &mut out);
        out.extend_from_slice(&self.metadata[self.old.end..]);
        out.extend_from_slice(&self.message[self.end..]);
        out
    }
}

/// Where resourceVersion is in an ObjectMeta, or the empty range where it belongs.
fn resource_version_span(metadata: &[u8]) -> Result<Range<usize>, ProtoError> {
    let mut cursor = Cursor::new(metadata);
    loop {
        let start = cursor.position();
        let Some(tag) = cursor.tag()? else { return Ok(start..start) };
        if tag.number > RESOURCE_VERSION {
            return Ok(start..start);
        }
        cursor.skip(tag.wire)?;
        if tag.number == RESOURCE_VERSION {
            return Ok(start..cursor.position());
        }
    }
}

/// One member of an object's text: its name, and where it (name, colon, value) and its value stand.
struct Member<'a> {
    name: std::borrow::Cow<'a, str>,
    span: Range<usize>,
    value: Range<usize>,
}

/// Walks an object's members until `visit` says to stop; the position after the last one walked.
fn members<'a>(text: &'a [u8], mut visit: impl FnMut(Member<'a>) -> Next) -> Result<usize, SyntaxError> {
    let mut scan = Scanner::new(text);
    scan.peek_value()?;
    scan.bump();
    let mut start = next_quote(text, scan.position());
    let mut key = scan.first_key()?;
    while let Some(name) = key {
        scan.peek_value()?;
        let value_start = scan.position();
        scan.skip(1)?;
        let end = scan.position();
        if visit(Member { name, span: start..end, value: value_start..end }) == Next::End {
            return Ok(end);
        }
        start = next_quote(text, end);
        key = scan.next_key()?;
    }
    Ok(scan.position() - 1)
}

/// Where the next name begins.
fn next_quote(text: &[u8], from: usize) -> usize {
    text[from..].iter().position(|&c| c == b'"').map_or(text.len(), |at| from + at)
}

/// Stored JSON of a custom resource: the whole object, resourceVersion in its place among the sorted keys.
fn splice_whole(stored: &[u8], version: &str) -> Result<Vec<u8>, CorruptError> {
    let stored = stored.trim_ascii_end();
    let mut metadata = None;
    members(stored, |member| {
        if member.name == "metadata" {
            metadata = Some(member.value);
            return Next::End;
        }
        Next::More
    })?;
    let metadata = metadata.ok_or(CorruptError::NoMetadata)?;
    let mut out = Vec::with_capacity(stored.len() + 40);
    out.extend_from_slice(&stored[..metadata.start]);
    splice_metadata(&stored[metadata.clone()], version, |name| name < "resourceVersion", &mut out)?;
    out.extend_from_slice(&stored[metadata.end..]);
    Ok(out)
}

/// Stored JSON of a built-in type: the members without type meta, resourceVersion in its place in struct
/// order.
fn splice_members(stored: &[u8], version: &str) -> Result<Vec<u8>, CorruptError> {
    const BEFORE: [&str; 5] = ["name", "generateName", "namespace", "selfLink", "uid"];
    let stored = stored.trim_ascii_end();
    let mut out = Vec::with_capacity(stored.len() + 40);
    let mut found = false;
    let mut failure = None;
    let mut type_meta = 0;
    let end = members(stored, |member| {
        if member.name == "kind" || member.name == "apiVersion" {
            type_meta += 1;
            return Next::More;
        }
        if !out.is_empty() {
            out.push(b',');
        }
        if member.name != "metadata" {
            out.extend_from_slice(&stored[member.span]);
            return Next::More;
        }
        found = true;
        out.extend_from_slice(b"\"metadata\":");
        let metadata = &stored[member.value];
        failure = splice_metadata(metadata, version, |name| BEFORE.contains(&name), &mut out).err();
        // Nothing after this has to be looked at once the type meta is behind us.
        if type_meta == 2 { Next::End } else { Next::More }
    })?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    if !found {
        return Err(CorruptError::NoMetadata);
    }
    out.extend_from_slice(&stored[end..]);
    Ok(out)
}

/// Writes a metadata object with this resourceVersion after the members for which `before` holds.
fn splice_metadata(
    metadata: &[u8],
    version: &str,
    before: impl Fn(&str) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), SyntaxError> {
    let mut at = None;
    let mut after = None;
    let end = members(metadata, |member| {
        if before(&member.name) {
            at = Some(member.span.end);
            return Next::More;
        }
        // The old one goes; otherwise the new one is put in before this member.
        after = Some(if member.name == "resourceVersion" { member.span.end } else { member.span.start });
        Next::End
    })?;
    let field = format!("\"resourceVersion\":\"{version}\"");
    match at {
        Some(at) => {
            out.extend_from_slice(&metadata[..at]);
            out.push(b',');
        }
        None => out.push(b'{'),
    }
    out.extend_from_slice(field.as_bytes());
    match after {
        Some(after) => {
            if metadata[after] == b'"' {
                out.push(b',');
            }
            out.extend_from_slice(&metadata[after..]);
        }
        None => out.extend_from_slice(&metadata[end..]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(stored: &str, unstructured: bool) -> String {
        let body = stored_body(stored.as_bytes(), ResourceVersion(7), unstructured).expect("spliced");
        String::from_utf8(body.bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn members_get_the_revision_in_struct_order() {
        for (stored, want) in [
            (
                r#"{"kind":"A","apiVersion":"v1","metadata":{"name":"x","uid":"u","generation":1},"spec":{}}"#,
                r#""metadata":{"name":"x","uid":"u","resourceVersion":"7","generation":1},"spec":{}}"#,
            ),
            (
                "{\"kind\":\"A\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"x\"}}\n",
                r#""metadata":{"name":"x","resourceVersion":"7"}}"#,
            ),
            (r#"{"kind":"A","apiVersion":"v1","metadata":{}}"#, r#""metadata":{"resourceVersion":"7"}}"#),
            (
                r#"{"kind":"A","apiVersion":"v1","metadata":{"name":"x","resourceVersion":"3","labels":{}}}"#,
                r#""metadata":{"name":"x","resourceVersion":"7","labels":{}}}"#,
            ),
            (
                r#"{"metadata":{"labels":{"a":"b"}},"kind":"A","spec":1,"apiVersion":"v1"}"#,
                r#""metadata":{"resourceVersion":"7","labels":{"a":"b"}},"spec":1}"#,
            ),
        ] {
            assert_eq!(json(stored, false), want);
        }
    }

    #[test]
    fn whole_objects_get_the_revision_in_key_order() {
        for (stored, want) in [
            (
                "{\"apiVersion\":\"a/v1\",\"kind\":\"A\",\"metadata\":{\"name\":\"x\",\"uid\":\"u\"},\"spec\":{}}\n",
                r#"{"apiVersion":"a/v1","kind":"A","metadata":{"name":"x","resourceVersion":"7","uid":"u"},"spec":{}}"#,
            ),
            (
                r#"{"apiVersion":"a/v1","kind":"A","metadata":{"name":"x"}}"#,
                r#"{"apiVersion":"a/v1","kind":"A","metadata":{"name":"x","resourceVersion":"7"}}"#,
            ),
        ] {
            assert_eq!(json(stored, true), want);
        }
    }

    #[test]
    fn corrupt_values_are_refused() {
        for stored in ["", "x", "{", "{}", "{\"metadata\":{\"a\"}}", "k8s\0\u{12}\u{50}"] {
            assert!(stored_body(stored.as_bytes(), ResourceVersion(1), false).is_err(), "{stored}");
            assert!(stored_body(stored.as_bytes(), ResourceVersion(1), true).is_err(), "{stored}");
        }
    }
}
