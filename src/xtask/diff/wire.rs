//! Bodies of every media type as JSON text, so that one comparison serves all; and whether protobuf is what our encoder
//! makes of the same object (it is held to upstream's bytes by the corpus).

use copepod_codec::Media;
use copepod_meta::{Gvk, Value};
use copepod_schema::{TypeId, Universe};
use serde_json::Value as Json;

/// First bytes of a protobuf object.
const ENVELOPE: &[u8] = b"k8s\0";

/// JSON text of a body, or why there is none.
pub fn to_json_text(body: &[u8], content_type: &str) -> String {
    if body.starts_with(ENVELOPE) {
        return protobuf_to_json(body).unwrap_or_else(|why| format!("{why}: {}", hex(body)));
    }
    if content_type.contains("yaml")
        && let Ok((json, _)) = copepod_codec::yaml_to_json(body)
        // Only a layout that our emitter makes as well can be shown as JSON.
        && copepod_codec::json_to_yaml(&json) == body
    {
        return String::from_utf8_lossy(&json).into_owned();
    }
    String::from_utf8_lossy(body).into_owned()
}

/// What is stored or sent in the protobuf envelope, as JSON.
pub fn protobuf_to_json(bytes: &[u8]) -> Result<String, String> {
    let (value, ty, gvk) = decode_protobuf(bytes)?;
    let universe = Universe::builtin();
    let again = copepod_codec::encode(&value, universe, ty, Some(&gvk), Media::Protobuf);
    let json = copepod_codec::encode(&value, universe, ty, Some(&gvk), Media::Json);
    let json = json.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&json).into_owned();
    match again {
        Ok(again) if again.as_ref() == bytes => Ok(text),
        // Seen as a difference unless both servers do it: the bytes hold more than the tree.
        Ok(_) => Ok(format!("{text}\n(in a protobuf layout of its own)")),
        Err(error) => Err(error.to_string()),
    }
}

fn decode_protobuf(bytes: &[u8]) -> Result<(Value, TypeId, Gvk), String> {
    let gvk = copepod_codec::type_meta(bytes, Media::Protobuf).map_err(|e| e.to_string())?;
    let ty = type_of(&gvk).ok_or_else(|| format!("no type for {gvk:?}"))?;
    let decoded = copepod_codec::decode(bytes, Media::Protobuf, Universe::builtin(), ty, None);
    Ok((decoded.map_err(|e| e.to_string())?.value, ty, gvk))
}

/// JSON of an object in the protobuf envelope, if it can be that.
pub fn json_to_protobuf(json: &[u8]) -> Option<Vec<u8>> {
    let gvk = copepod_codec::type_meta(json, Media::Json).ok()?;
    let (universe, ty) = (Universe::builtin(), type_of(&gvk)?);
    let decoded = copepod_codec::decode(json, Media::Json, universe, ty, None).ok()?;
    let encoded = copepod_codec::encode(&decoded.value, universe, ty, Some(&gvk), Media::Protobuf).ok()?;
    Some(encoded.to_vec())
}

/// The type of a kind; those of meta/v1 are registered in every group.
fn type_of(gvk: &Gvk) -> Option<TypeId> {
    let universe = Universe::builtin();
    let meta = || universe.by_name(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{}", gvk.kind));
    universe.by_gvk(gvk).or_else(meta)
}

/// Whole events out of a watch's bytes; what is left stays in `buffer`. Each is JSON text.
pub fn take_events(buffer: &mut Vec<u8>, content_type: &str) -> Vec<String> {
    let mut events = Vec::new();
    if content_type.contains("protobuf") {
        while let Some(length) = buffer.first_chunk::<4>().map(|l| u32::from_be_bytes(*l) as usize) {
            if buffer.len() < 4 + length {
                break;
            }
            let frame: Vec<u8> = buffer.drain(..4 + length).skip(4).collect();
            events.push(protobuf_event(&frame));
        }
        return events;
    }
    while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
        let line: Vec<u8> = buffer.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line).trim().to_string();
        if !line.is_empty() {
            events.push(line);
        }
    }
    events
}

/// A watch event: its type, and the object's own envelope in a RawExtension.
fn protobuf_event(frame: &[u8]) -> String {
    let event = members(frame).and_then(|event| {
        let of = |number| event.iter().find(|(n, _)| *n == number).map(|(_, bytes)| *bytes);
        let object = members(of(2)?)?;
        Some((of(1)?, object.first()?.1))
    });
    let Some((ty, object)) = event else { return format!("no event: {}", hex(frame)) };
    let ty = Json::from(String::from_utf8_lossy(ty).into_owned());
    format!("{{\"type\":{ty},\"object\":{}}}", to_json_text(object, ""))
}

/// The length-delimited members of a message that has no others.
fn members(mut message: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut out = Vec::new();
    while let Some((tag, mut rest)) = message.split_first() {
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (member, after) = rest.split_at_checked(length)?;
        out.push((tag >> 3, member));
        message = after;
    }
    Some(out)
}

/// At most this much of bytes that mean nothing to us.
const SHOWN_BYTES_MAX: usize = 200;

/// Bytes for people.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(SHOWN_BYTES_MAX).map(|b| format!("{b:02x}")).collect()
}
