//! JSON, read and written as Go does.
//!
//! | module | what |
//! |---|---|
//! | `scan` | tokens, syntax errors, skipping |
//! | `decode` | text -> tree, guided by a type |
//! | `untyped` | text -> tree without a type (patches, custom resources) |
//! | `special` | text -> tree for the hand-written forms (times, quantities ...) |
//! | `encode` | tree -> text |
//! | `convert` | a plain tree fitted to a type, as upstream's converter does it |
//! | `names` | what Go calls values and types, for messages |
//! | `plain` | tree -> the tree of its JSON |
//! | `number` | Go's float text |

mod base64;
mod convert;
mod decode;
mod encode;
mod names;
mod number;
mod plain;
pub(crate) mod scan;
mod special;
mod untyped;

pub(crate) use base64::{decode as base64_decode, encode_into as base64_into};
pub(crate) use convert::convert;
pub use decode::TREE_DEPTH_MAX;
pub(crate) use decode::{
    Frame, RootError, by_name, decode_root, decode_value, is_zero, is_zero_field, or_zero,
};
pub(crate) use encode::{Writer, compact_into, indent, integer_into, leaves_out, text_into};
pub(crate) use plain::{plain_changes, plain_root};
pub use scan::SyntaxError;
pub(crate) use untyped::decode_any;
