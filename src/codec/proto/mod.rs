//! Protobuf as upstream's generated code writes it, driven by the type graph instead of generated.
//!
//! | module | what |
//! |---|---|
//! | `read` | varints, tags, lengths; skipping unknown fields |
//! | `decode` | message -> tree |
//! | `write` | a buffer filled from its end, so that lengths are known when they are written |
//! | `encode` | tree -> message |
//! | `envelope` | `k8s\0` and the `runtime.Unknown` round every object |
//!
//! Gogo's rules: scalars held by value are always written, zero or not; nil pointers, nil and empty lists and
//! maps are not; map entries are sorted by key; fields come in tag order; JSON-inlined structs are messages
//! of their own.

mod decode;
mod encode;
pub(crate) mod envelope;
pub(crate) mod read;
pub(crate) mod write;

pub(crate) use decode::{Decoder, field_value};
pub(crate) use encode::encode_message;
pub use read::{Malformed, ProtoError};
