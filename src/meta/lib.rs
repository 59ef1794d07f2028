//! The words that all floors share. No I/O, no async, no dependencies of weight.
//!
//! | module | what |
//! |---|---|
//! | [`value`] | the tree of an object while a write is being decided |
//! | [`gvk`] | group, version, kind, resource |
//! | [`resource_version`] | positions in the store's history |

pub mod gvk;
pub mod resource_version;
pub mod value;

pub use bytes::Bytes;
pub use compact_str::CompactString;
pub use gvk::{GroupResource, GroupVersion, Gvk, Gvr};
pub use resource_version::ResourceVersion;
pub use value::{Map, Value};
