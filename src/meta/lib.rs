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
//! | [`names`] | syntax of names, keys and values |
//! | [`selector`], [`field_selector`] | label and field selectors |
//! | [`scheduling`] | requirements on labels, taints and tolerations |
//! | [`quantity`] | `100m`, `1.5Gi` |
//! | [`time`] | times and ages in their wire form |
//! | [`debug_json`] | a tree as JSON for messages and tests |

pub mod debug_json;
pub mod field;
pub mod field_selector;
pub mod gvk;
pub mod names;
pub mod pod_references;
pub mod quantity;
pub mod request;
pub mod resource_version;
pub mod scheduling;
pub mod selector;
pub mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod url;
pub mod value;

pub use bytes::Bytes;
pub use compact_str::CompactString;
pub use field::{ErrorList, FieldError, Path};
pub use field_selector::FieldSelector;
pub use gvk::{GroupResource, GroupVersion, Gvk, Gvr};
pub use jiff::Timestamp;
pub use quantity::Quantity;
pub use request::{
    Admission, AdmissionRequest, Attributes, Authorizer, BoxFuture, Decision, Listed, Lister, Operation,
    RulesFor, User, Writer,
};
pub use resource_version::ResourceVersion;
pub use selector::LabelSelector;
pub use status::{Cause, Details, Reason, Status};
pub use value::{Map, Value};
