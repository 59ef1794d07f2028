//! Objects on their way out: encoded bytes of one revision, in whatever form the client negotiated.

use std::sync::Arc;

use bytes::Bytes;
use copepod_codec::{Body, frame};
use copepod_meta::time::{self, Timestamp};
use copepod_meta::{Status, Value};
use copepod_schema::Media;
use copepod_store::cache::{Entry, ObjectCodec};

use crate::api::{Form, Include, View};
use crate::collection::Collection;
use crate::errors;
use crate::forms::{self, Forms, Part};
use crate::served::Served;
use crate::view;

/// One object of the store at one revision, as one served version. Cheap to clone.
#[derive(Clone)]
pub struct Object {
    /// As what it is shown.
    pub served: Arc<Served>,
    kept: Kept,
}

/// Parts of a row at most.
const ROW_PARTS: usize = 5;

/// Where the bytes are.
#[derive(Clone)]
enum Kept {
    /// In the cache, shared with all readers.
    Entry(Arc<Collection>, Arc<Entry>),
    /// With us: a write's result that the cache has not seen yet, or that was never stored (dry run).
    Own { collection: Arc<Collection>, stored: Bytes, revision: u64 },
    /// Nowhere: a tree in the served version of something that is not stored.
    Tree(Arc<Value>),
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}@{}", self.served, self.revision())
    }
}

impl Object {
    pub(crate) fn of_entry(served: &Arc<Served>, collection: &Arc<Collection>, entry: Arc<Entry>) -> Object {
        Object { served: served.clone(), kept: Kept::Entry(collection.clone(), entry) }
    }
    pub(crate) fn of_bytes(
        served: &Arc<Served>,
        collection: &Arc<Collection>,
        stored: Bytes,
        revision: u64,
    ) -> Object {
        let kept = Kept::Own { collection: collection.clone(), stored, revision };
        Object { served: served.clone(), kept }
    }
    pub(crate) fn of_tree(served: &Arc<Served>, tree: Arc<Value>) -> Object {
        Object { served: served.clone(), kept: Kept::Tree(tree) }
    }

    /// Its bytes, to be framed by [`copepod_codec::frame`]. Shared with every other reader of the same form. Rows are whole JSON
    /// objects, and their own reader's.
    pub fn body(&self, form: Form) -> Result<Body, Status> {
        let part = match form.view {
            View::Object => Part::All,
            View::Partial => Part::Metadata,
            View::Row(include) => {
                let mut parts = Vec::with_capacity(ROW_PARTS);
                self.row_into(include, time::now(), &mut parts)?;
                return Ok(Body { bytes: parts.concat().into(), form: copepod_codec::Form::Whole });
            }
        };
        if let Kept::Tree(tree) = &self.kept {
            return forms::body_of(&self.served, tree, form.media, part);
        }
        let bytes = self.kept_bytes(form.media, part)?;
        Ok(Body {
            bytes,
            form: self.forms().map_or(copepod_codec::Form::Members, |f| f.shape(form.media, part)),
        })
    }

    /// Appends its row of a Table as it is shown at a moment, in parts: a JSON object when they stand behind each other. The
    /// cells are made once per revision, and what beside them is shared with the readers of that form.
    pub fn row_into(&self, include: Include, now: Timestamp, parts: &mut Vec<Bytes>) -> Result<(), Status> {
        let kept = match &self.kept {
            Kept::Tree(tree) => view::kept_row(self.served.kind.strategy, tree),
            _ => self.kept_bytes(Media::Json, Part::Row)?,
        };
        parts.push(view::row_at(&kept, now));
        match include {
            Include::None => parts.push(Bytes::from_static(b"null")),
            Include::Metadata => {
                parts.push(self.body(Form { media: Media::Json, view: View::Partial })?.bytes)
            }
            Include::Object => {
                let body = self.body(Form { media: Media::Json, view: View::Object })?;
                let frame = frame::object(&self.served.gvk(), &body);
                parts.extend([frame.head, body.bytes, frame.tail]);
            }
        }
        parts.push(Bytes::from_static(b"}"));
        Ok(())
    }

    fn forms(&self) -> Option<&Forms> {
        match &self.kept {
            Kept::Entry(collection, _) | Kept::Own { collection, .. } => Some(&collection.forms),
            Kept::Tree(_) => None,
        }
    }

    /// The length of its body in a form, where that is known without making it.
    pub fn body_len(&self, form: Form) -> Result<Option<usize>, Status> {
        let (collection, stored, revision) = match &self.kept {
            Kept::Entry(collection, entry) => (collection, &entry.stored, entry.revision),
            Kept::Own { collection, stored, revision } => (collection, stored, *revision),
            Kept::Tree(_) => return Ok(None),
        };
        if form.view != View::Object {
            return Ok(None);
        }
        let number = self.number(form.media, Part::All)?;
        collection.forms.body_len(stored, revision, number).map_err(|e| errors::corrupt(&*e))
    }

    fn number(&self, media: Media, part: Part) -> Result<copepod_store::cache::Form, Status> {
        let (group, version) = (&self.served.resource.group, &self.served.version().version);
        let number = self.forms().and_then(|forms| forms.number(group, version, media, part));
        number.ok_or_else(|| Status::internal(format!("no form for {:?}", self.served)))
    }

    /// The bytes of a form of something stored.
    fn kept_bytes(&self, media: Media, part: Part) -> Result<Bytes, Status> {
        let number = self.number(media, part)?;
        let bytes = match &self.kept {
            Kept::Entry(collection, entry) => entry.body(number, &*collection.forms),
            Kept::Own { collection, stored, revision } => collection.forms.body(stored, *revision, number),
            Kept::Tree(_) => return Err(Status::internal("nothing of it is stored")),
        };
        bytes.map_err(|e| errors::corrupt(&*e))
    }

    /// The revision that its `resourceVersion` shows; 0 where it shows none.
    pub fn revision(&self) -> u64 {
        match &self.kept {
            Kept::Entry(_, entry) => entry.revision,
            Kept::Own { revision, .. } => *revision,
            Kept::Tree(_) => 0,
        }
    }

    /// Its tree as the served version shows it, resourceVersion included, without type meta.
    pub fn tree(&self) -> Result<Value, Status> {
        let (group, version) = (&self.served.resource.group, &self.served.version().version);
        let (collection, stored) = match &self.kept {
            Kept::Entry(collection, entry) => (collection, &entry.stored),
            Kept::Own { collection, stored, .. } => (collection, stored),
            Kept::Tree(tree) => return Ok((**tree).clone()),
        };
        let tree = collection.forms.tree_as(group, version, stored, self.revision());
        tree.map_err(|e| errors::corrupt(&*e))
    }

    /// Its namespace and name.
    pub fn names(&self) -> Result<(String, String), Status> {
        if let Kept::Entry(_, entry) = &self.kept {
            return Ok((entry.attributes.namespace.to_string(), entry.attributes.name.to_string()));
        }
        let tree = self.hub()?;
        let text = |member| tree.str_at(&["metadata", member]).to_string();
        Ok((text("namespace"), text("name")))
    }

    /// Its `resourceVersion` as it is shown. Of what is not stored that is what its author wrote, if anything.
    pub fn resource_version(&self) -> Result<String, Status> {
        match self.revision() {
            0 => Ok(self.hub()?.str_at(&["metadata", "resourceVersion"]).to_string()),
            revision => Ok(revision.to_string()),
        }
    }

    /// Its hub tree.
    pub(crate) fn hub(&self) -> Result<Value, Status> {
        match &self.kept {
            Kept::Entry(collection, entry) => collection.decode(&entry.stored, entry.revision),
            Kept::Own { collection, stored, revision } => collection.decode(stored, *revision),
            Kept::Tree(tree) => Ok((**tree).clone()),
        }
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
