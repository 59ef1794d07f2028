//! The registry as its callers see it: who asks, for what, and what comes back.
//!
//! The HTTP edge makes a [`Target`] and a [`Caller`] from a request it has authenticated and authorized, calls the verb on
//! [`crate::Registry`], and frames what comes back. It never looks into objects: an [`Object`] gives its bytes in the
//! [`Form`] that the client negotiated.
//!
//! Bodies carry no type meta; [`copepod_codec::frame`] puts around them what makes them an answer, an item or an event.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use copepod_meta::{Gvk, Status, User, Value};
use copepod_schema::{Media, TypeId};
use parking_lot::Mutex;

pub use crate::object::{Listing, Object};
pub use crate::options::{
    DeleteOptions, FieldValidation, GetOptions, ListOptions, PatchType, Preconditions, WriteOptions,
};
use crate::served::Served;
pub use crate::watch::{EventKind, Watch, WatchEvent};

/// Most warnings that one request collects: a `Warning` header each, and clients read few.
/// upstream: apiserver/pkg/endpoints/filters/warning.go
const WARNINGS_MAX: usize = 64;

/// Who asks, and what the request carries along through all floors.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Authenticated (or impersonated) user.
    pub user: Arc<User>,
    /// `User-Agent` header: names the field manager where none is given.
    pub user_agent: String,
    /// URL path, for authorization inside a request (create on update).
    pub path: String,
    /// What the client is to be warned of.
    pub warnings: Warnings,
    /// When the client will have given up; `None` = never.
    pub deadline: Option<Instant>,
}

/// Warnings of one request, in order, each once.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds one, unless it was said already.
    pub fn add(&self, text: impl Into<String>) {
        let (text, mut all) = (text.into(), self.0.lock());
        if all.len() < WARNINGS_MAX && !all.contains(&text) {
            all.push(text);
        }
    }
    /// All so far.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource at one served version, from [`crate::Registry::lookup`].
    pub served: Arc<Served>,
    /// Namespace of the URL, "" for cluster scope and all namespaces.
    pub namespace: String,
    /// Name of the URL, "" for collections.
    pub name: String,
    /// `status`, `scale`, ...; "" for the resource itself.
    pub subresource: String,
}

/// The encoding of a body that a client sent.
pub use copepod_codec::Media as BodyMedia;

/// A body that a client sent.
#[derive(Clone, Debug)]
pub struct Body {
    /// How it is encoded.
    pub media: BodyMedia,
    /// The bytes, already limited in size by the edge.
    pub bytes: Bytes,
}

/// Which part of an object a client wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// All of it.
    Object,
    /// `PartialObjectMetadata`: its metadata.
    Partial,
    /// A row of a `Table`, with what beside the cells.
    Row(Include),
}

/// `includeObject` of a Table. upstream: meta/v1 IncludeObjectPolicy
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Include {
    /// Cells only.
    None,
    /// A PartialObjectMetadata: the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// The bytes that a client negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Encoding. Rows exist in JSON only (YAML is made of JSON at the edge).
    pub media: Media,
    /// Which part.
    pub view: View,
}

/// What a verb on one object answers.
#[derive(Debug)]
pub struct Answer {
    /// 200, 201 or 202.
    pub code: u16,
    /// The object of the answer.
    pub content: Content,
}

/// The object of an [`Answer`].
#[derive(Debug)]
pub enum Content {
    /// An object of the store.
    Stored(Object),
    /// Something that is not stored: a Scale, a review, a token. Encode it by its type.
    Tree {
        /// The tree in the version of `gvk`, without type meta.
        value: Value,
        /// Its type among the built-in ones.
        ty: TypeId,
        /// Its kind.
        gvk: Gvk,
        /// Its columns and row in a Table without its end; `None`: it is never shown in one.
        table: Option<ShowAsTable>,
    },
    /// `kind: Status` with status Success.
    Status(Status),
}

/// Columns and row of a tree.
pub type ShowAsTable = fn(&Value) -> (Bytes, Bytes);

impl Answer {
    pub(crate) fn ok(content: Content) -> Answer {
        Answer { code: 200, content }
    }
    pub(crate) fn created(content: Content) -> Answer {
        Answer { code: 201, content }
    }
}
