//! What the objects of a collection look like to readers: the cache's codec.
//!
//! A form of the cache is a served version of a resource that shows the collection, a media type, and whether all of the
//! object is wanted or its metadata only. Forms are small numbers so that the cache can compare them; [`Forms::number`] and
//! [`Forms::split`] are the only places that know how.
//!
//! The stored version in the stored media type is the stored message with its revision spliced in; every other form is made
//! through a tree.

use std::sync::Arc;

use bytes::Bytes;
use copepod_codec as codec;
use copepod_kinds::Kind;
use copepod_meta::{CompactString, Gvk, Status, Value};
use copepod_schema::{Media, Resource, Storage, TypeId};
use copepod_store::cache::{Attributes, CodecError, Form as Number, ObjectCodec};

use crate::collection::set_revision;
use crate::errors;
use crate::served::Served;
use crate::types::Types;
use crate::wire;

/// The forms of one collection.
pub(crate) struct Forms {
    types: Types,
    storage: Storage,
    /// Owns the stored form.
    kind: Kind,
    seen_as: Vec<SeenAs>,
    /// Selectable fields beyond name and namespace, in the order of [`Attributes::fields`].
    fields: &'static [&'static str],
}

/// A served version that shows the collection.
struct SeenAs {
    gvk: Gvk,
    ty: TypeId,
    kind: Kind,
    /// The stored form needs no conversion.
    is_stored: bool,
}

/// Which part of an object a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    Metadata,
}

impl Forms {
    pub(crate) fn new(types: Types, storage: Storage, kind: Kind, seen_as: &[Arc<Resource>]) -> Forms {
        let seen_as = seen_as.iter().flat_map(|resource| {
            let kind = copepod_kinds::kind_of(resource);
            let storage = &storage;
            resource.versions.iter().map(move |v| SeenAs {
                gvk: Gvk::new(&resource.group, &v.version, &resource.kind),
                ty: v.ty,
                kind: kind.clone(),
                is_stored: v.ty == storage.ty,
            })
        });
        let seen_as: Vec<SeenAs> = seen_as.collect();
        debug_assert!(seen_as.len() <= usize::from(u8::MAX) / 4, "forms are numbered in a byte");
        Forms { seen_as, fields: kind.strategy.selectable_fields(), types, storage, kind }
    }

    /// The number of a form; `None` if the collection is not shown so.
    pub(crate) fn number(&self, group: &str, version: &str, media: Media, part: Part) -> Option<Number> {
        let at = self.seen_as.iter().position(|s| s.gvk.group == group && s.gvk.version == version)?;
        let number = at * 4 + usize::from(media == Media::Json) * 2 + usize::from(part == Part::Metadata);
        u8::try_from(number).ok().map(Number)
    }

    fn split(&self, number: Number) -> (&SeenAs, Media, Part) {
        let n = number.0;
        let media = if n & 2 == 0 { Media::Protobuf } else { Media::Json };
        let part = if n & 1 == 0 { Part::All } else { Part::Metadata };
        (&self.seen_as[usize::from(n / 4)], media, part)
    }

    /// What the bytes of a body are.
    pub(crate) fn shape(&self, media: Media, part: Part) -> codec::Form {
        match media {
            Media::Protobuf => codec::Form::Protobuf,
            // Items of a PartialObjectMetadataList say what they are, unlike items of typed lists.
            Media::Json if self.types.is_unstructured() || part == Part::Metadata => codec::Form::Whole,
            Media::Json => codec::Form::Members,
        }
    }

    /// Position of a selectable field in [`Attributes::fields`].
    pub(crate) fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| *f == name)
    }

    /// The fields on which the cache keeps an index.
    pub(crate) fn indexed_fields(&self) -> Box<[usize]> {
        self.kind.strategy.indexed_field().and_then(|name| self.field(name)).into_iter().collect()
    }

    /// The tree as one served version shows it.
    pub(crate) fn tree_as(
        &self,
        group: &str,
        version: &str,
        stored: &Bytes,
        revision: u64,
    ) -> Result<Value, CodecError> {
        let seen_as = self.seen_as.iter().find(|s| s.gvk.group == group && s.gvk.version == version);
        let seen_as = seen_as.ok_or_else(|| format!("not served as {group}/{version}"))?;
        self.tree(seen_as, stored, revision)
    }

    fn tree(&self, seen_as: &SeenAs, stored: &Bytes, revision: u64) -> Result<Value, CodecError> {
        let mut tree = wire::decode_stored(&self.types, &self.storage, stored)?;
        self.kind.strategy.restore(&mut tree);
        if !seen_as.is_stored {
            self.kind.strategy.to_hub(&self.storage.version, &mut tree);
            seen_as.kind.strategy.from_hub(&seen_as.gvk.version, &mut tree);
        }
        set_revision(&mut tree, revision);
        Ok(tree)
    }
}

/// The body of a tree that is not stored.
pub(crate) fn body_of(
    served: &Served,
    tree: &Value,
    media: Media,
    part: Part,
) -> Result<codec::Body, Status> {
    let body = match part {
        Part::All => codec::encode_body(tree, &served.types, served.ty(), &served.gvk(), media.into()),
        Part::Metadata => {
            let mut metadata = tree.get("metadata").clone();
            served.kind.strategy.hub_metadata(&mut metadata);
            partial_body(metadata, media)
        }
    };
    body.map_err(errors::unencodable)
}

/// A PartialObjectMetadata: in JSON a whole object, type meta and all.
fn partial_body(metadata: Value, media: Media) -> Result<codec::Body, codec::EncodeError> {
    let mut partial = Value::map();
    partial.set(&["metadata"], metadata);
    let (ty, gvk) = (wire::partial_type(), Gvk::new("meta.k8s.io", "v1", "PartialObjectMetadata"));
    match media {
        Media::Protobuf => codec::encode_body(&partial, &Types::Builtin, ty, &gvk, codec::Media::Protobuf),
        Media::Json => {
            let bytes = codec::encode(&partial, &Types::Builtin, ty, Some(&gvk), codec::Media::Json)?;
            Ok(codec::Body { bytes, form: codec::Form::Whole })
        }
    }
}

impl ObjectCodec for Forms {
    fn attributes(&self, key: &[u8], stored: &Bytes) -> Result<Attributes, CodecError> {
        let (namespace, name) = names_in(key, &self.storage.prefix);
        if self.fields.is_empty() {
            let labels = wire::peek_labels(stored)?;
            return Ok(Attributes { namespace, name, labels, fields: Box::default() });
        }
        let mut tree = wire::decode_stored(&self.types, &self.storage, stored)?;
        self.kind.strategy.to_hub(&self.storage.version, &mut tree);
        let fields = self.fields.iter().map(|f| self.kind.strategy.field(&tree, f).into()).collect();
        Ok(Attributes { namespace, name, labels: wire::labels_of(&tree), fields })
    }

    fn body(&self, stored: &Bytes, revision: u64, form: Number) -> Result<Bytes, CodecError> {
        let (seen_as, media, part) = self.split(form);
        if seen_as.is_stored && media == self.storage.media && part == Part::All {
            return Ok(wire::splice(&self.types, stored, revision)?.bytes);
        }
        let mut tree = self.tree(seen_as, stored, revision)?;
        if part == Part::Metadata {
            let mut metadata = tree.remove(&["metadata"]).unwrap_or_else(Value::map);
            self.kind.strategy.hub_metadata(&mut metadata);
            let body = partial_body(metadata, media)?;
            return Ok(body.bytes);
        }
        Ok(codec::encode_body(&tree, &self.types, seen_as.ty, &seen_as.gvk, media.into())?.bytes)
    }
}

/// Namespace and name as a key tells them: what follows the resource's folder.
fn names_in(key: &[u8], prefix: &str) -> (CompactString, CompactString) {
    let text = String::from_utf8_lossy(key);
    let mut folder = String::with_capacity(prefix.len() + 2);
    folder.extend(["/", prefix, "/"]);
    let rest = text.find(&folder).map_or("", |at| &text[at + folder.len()..]);
    match rest.rsplit_once('/') {
        Some((namespace, name)) => (namespace.into(), name.into()),
        None => (CompactString::default(), rest.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_names() {
        for (key, prefix, want) in [
            ("/registry/pods/default/a", "pods", ("default", "a")),
            ("/registry/minions/n", "minions", ("", "n")),
            ("/r/services/specs/ns/s", "services/specs", ("ns", "s")),
            ("/registry/clusterroles/system:node", "clusterroles", ("", "system:node")),
        ] {
            let (namespace, name) = names_in(key.as_bytes(), prefix);
            assert_eq!((namespace.as_str(), name.as_str()), want, "{key}");
        }
    }
}
