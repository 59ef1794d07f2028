//! The words that all floors share. No I/O, no dependencies of weight.
//!
//! | module | what |
//! |---|---|
//! | [`value`] | the tree of an object while a write is being decided |
//! | [`gvk`] | group, version, kind, resource |
//! | [`resource_version`] | positions in the store's history |
//! | [`field`] | field paths and field errors |
//! | [`status`] | why a request failed, with upstream's code, reason, message, details |
//! | [`request`] | user, request attributes, the traits Authorizer, Lister, Writer, Admission |
//! | [`debug_json`] | a tree as JSON for messages and tests |

pub mod debug_json;
pub mod field;
pub mod gvk;
pub mod request;
pub mod resource_version;
pub mod status;
pub mod value;

pub use bytes::Bytes;
pub use compact_str::CompactString;
pub use field::{ErrorList, FieldError, Path};
pub use gvk::{GroupResource, GroupVersion, Gvk, Gvr};
pub use request::{
    Admission, AdmissionRequest, Attributes, Authorizer, BoxFuture, Decision, Listed, Lister, Operation,
    RulesFor, User, Writer,
};
pub use resource_version::ResourceVersion;
pub use status::{Cause, Details, Reason, Status};
pub use value::{Map, Value};
