//! Objects on their way out: encoded bytes of one revision, in whatever form the client negotiated.

use std::sync::Arc;

use bytes::Bytes;
use copepod_meta::Status;

use crate::api::Form;
use crate::served::Served;

/// One object of the store at one revision, as one served version. Cheap to clone.
#[derive(Clone)]
pub struct Object {
    /// As what it is shown.
    pub served: Arc<Served>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}@{}", self.served, self.revision())
    }
}

impl Object {
    /// Its bytes without type meta, see [`crate::api`]. Shared with every other reader of the same form.
    pub fn body(&self, form: Form) -> Result<Bytes, Status> {
        Err(Status::not_implemented(&format!("{form:?}")))
    }
    /// The revision that its `resourceVersion` shows.
    pub fn revision(&self) -> u64 {
        0
    }
}

/// A page of a collection at one revision.
#[derive(Debug)]
pub struct Listing {
    /// In key order.
    pub objects: Vec<Object>,
    /// As what they are shown.
    pub served: Arc<Served>,
    /// `metadata.resourceVersion` of the list.
    pub revision: u64,
    /// `metadata.continue`, "" on the last page.
    pub continue_token: String,
    /// `metadata.remainingItemCount`, when it is known.
    pub remaining: Option<i64>,
}
