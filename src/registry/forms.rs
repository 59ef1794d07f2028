//! What the objects of a collection look like to readers: the cache's codec.
//!
//! A form of the cache is a served version of a resource that shows the collection, a media type, and whether all of the object
//! is wanted, its metadata only, or its row of a Table. Forms are small numbers so that the cache can compare them;
//! [`Forms::number`] and [`Forms::split`] are the only places that know how.
//!
//! The stored version in the stored media type is the stored message with its revision spliced in, its JSON is written from that
//! message; every other form is made through a tree.

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
use crate::{view, wire};

/// The forms of one collection.
pub(crate) struct Forms {
    types: Types,
    storage: Storage,
    /// Owns the stored form.
    kind: Kind,
    seen_as: Vec<SeenAs>,
    /// Selectable fields beyond name and namespace, in the order of [`Attributes::fields`].
    fields: &'static [&'static str],
    /// Where the metadata is in a stored message.
    metadata: codec::peek::Plan,
    /// Where that is of which the selectable fields are made; `None`: all of the object is needed.
    selected: Option<Glance>,
}

/// Paths to be read out of a message, and the same taken apart.
struct Glance {
    plan: codec::peek::Plan,
    paths: Box<[Box<[&'static str]>]>,
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
    /// The row of a Table without what stands beside the cells; JSON only. See [`view::kept_row`].
    Row,
}

/// The forms of one served version; a form's number is its version's place times their number, and its place here.
const OF_A_VERSION: [(Media, Part); 5] = [
    (Media::Protobuf, Part::All),
    (Media::Protobuf, Part::Metadata),
    (Media::Json, Part::All),
    (Media::Json, Part::Metadata),
    (Media::Json, Part::Row),
];

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
        debug_assert!(
            seen_as.len() <= usize::from(u8::MAX) / OF_A_VERSION.len(),
            "forms are numbered in a byte"
        );
        let metadata = codec::peek::Plan::new(&types, storage.ty, ["metadata"]);
        let selected = kind.strategy.field_paths().map(|paths| {
            let plan = codec::peek::Plan::new(&types, storage.ty, paths.iter().copied());
            Glance { plan, paths: paths.iter().map(|path| path.split('.').collect()).collect() }
        });
        Forms { seen_as, fields: kind.strategy.selectable_fields(), metadata, selected, types, storage, kind }
    }

    /// The number of a form; `None` if the collection is not shown so.
    pub(crate) fn number(&self, group: &str, version: &str, media: Media, part: Part) -> Option<Number> {
        let at = self.seen_as.iter().position(|s| s.gvk.group == group && s.gvk.version == version)?;
        let form = OF_A_VERSION.iter().position(|form| *form == (media, part))?;
        u8::try_from(at * OF_A_VERSION.len() + form).ok().map(Number)
    }

    fn split(&self, number: Number) -> (&SeenAs, Media, Part) {
        let number = usize::from(number.0);
        let (media, part) = OF_A_VERSION[number % OF_A_VERSION.len()];
        (&self.seen_as[number / OF_A_VERSION.len()], media, part)
    }

    /// Whether a form is what is stored, with the revision put in.
    fn is_spliced(&self, number: Number) -> bool {
        let (seen_as, media, part) = self.split(number);
        seen_as.is_stored && media == self.storage.media && part == Part::All
    }

    /// The length of a body, where that is known without making it.
    pub(crate) fn body_len(
        &self,
        stored: &Bytes,
        revision: u64,
        number: Number,
    ) -> Result<Option<usize>, CodecError> {
        if self.is_cheap(number) { Ok(wire::spliced_len(stored, revision)?) } else { Ok(None) }
    }

    /// JSON made of the stored message without a tree, where nothing but the encoding differs and the message is as usual.
    fn transcoded(&self, stored: &Bytes, revision: u64, number: Number) -> Result<Option<Bytes>, CodecError> {
        let (seen_as, media, part) = self.split(number);
        let strategy = self.kind.strategy;
        let ty = match part {
            Part::All if strategy.restore().is_none() => seen_as.ty,
            // Whatever else is in the message is unknown to this type.
            Part::Metadata if strategy.hub_metadata().is_none() => wire::partial_type(),
            _ => return Ok(None),
        };
        if media != Media::Json || !seen_as.is_stored || self.storage.media != Media::Protobuf {
            return Ok(None);
        }
        let message = wire::splice(&self.types, stored, revision)?;
        let gvk = (part == Part::Metadata).then(partial_gvk);
        Ok(codec::transcode(&message, &self.types, ty, gvk.as_ref()))
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

    /// A tree of which at least the metadata is there.
    fn metadata(&self, seen_as: &SeenAs, stored: &Bytes, revision: u64) -> Result<Value, CodecError> {
        // A message's metadata can be read without the rest. Conversions may move annotations, and JSON has no types.
        match codec::peek::Encoded::stored(stored)? {
            message @ codec::peek::Encoded::Message(_) if seen_as.is_stored => {
                let mut metadata = self.metadata.read(message, &self.types)?;
                let mut tree = Value::map();
                tree.set(&["metadata"], metadata.pop().unwrap_or_default());
                set_revision(&mut tree, revision);
                Ok(tree)
            }
            _ => self.tree(seen_as, stored, revision),
        }
    }

    fn tree(&self, seen_as: &SeenAs, stored: &Bytes, revision: u64) -> Result<Value, CodecError> {
        let mut tree = wire::decode_stored(&self.types, &self.storage, stored)?;
        if let Some(restore) = self.kind.strategy.restore() {
            restore(&mut tree);
        }
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
            if let Some(hub_metadata) = served.kind.strategy.hub_metadata() {
                hub_metadata(&mut metadata);
            }
            partial_body(metadata, media)
        }
        Part::Row => {
            let bytes = view::kept_row(served.kind.strategy, tree);
            return Ok(codec::Body { bytes, form: codec::Form::Whole });
        }
    };
    body.map_err(errors::unencodable)
}

fn partial_gvk() -> Gvk {
    Gvk::new("meta.k8s.io", "v1", "PartialObjectMetadata")
}

/// A PartialObjectMetadata: in JSON a whole object, type meta and all.
fn partial_body(metadata: Value, media: Media) -> Result<codec::Body, codec::EncodeError> {
    let mut partial = Value::map();
    partial.set(&["metadata"], metadata);
    let (ty, gvk) = (wire::partial_type(), partial_gvk());
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
        let encoded = codec::peek::Encoded::stored(stored)?;
        let (mut tree, labels) = match (&self.selected, encoded) {
            (Some(Glance { plan, paths }), message @ codec::peek::Encoded::Message(_)) => {
                let mut tree = Value::map();
                for (path, value) in paths.iter().zip(plan.read(message, &self.types)?) {
                    if !value.is_null() {
                        tree.set(path, value);
                    }
                }
                (tree, wire::peek_labels(stored)?)
            }
            _ => {
                let tree = wire::decode_stored(&self.types, &self.storage, stored)?;
                let labels = wire::labels_of(&tree);
                (tree, labels)
            }
        };
        self.kind.strategy.to_hub(&self.storage.version, &mut tree);
        let fields = self.fields.iter().map(|f| self.kind.strategy.field(&tree, f).into()).collect();
        Ok(Attributes { namespace, name, labels, fields })
    }

    /// A message is copied with a few bytes changed; JSON has to be read for that.
    fn is_cheap(&self, form: Number) -> bool {
        let (_, media, _) = self.split(form);
        media == Media::Protobuf && self.is_spliced(form)
    }

    fn body(&self, stored: &Bytes, revision: u64, form: Number) -> Result<Bytes, CodecError> {
        let (seen_as, media, part) = self.split(form);
        if self.is_spliced(form) {
            return Ok(wire::splice(&self.types, stored, revision)?.bytes);
        }
        if let Some(json) = self.transcoded(stored, revision, form)? {
            return Ok(json);
        }
        match part {
            Part::All => {
                let tree = self.tree(seen_as, stored, revision)?;
                Ok(codec::encode_body(&tree, &self.types, seen_as.ty, &seen_as.gvk, media.into())?.bytes)
            }
            Part::Metadata => {
                let mut metadata = self.metadata(seen_as, stored, revision)?;
                let mut metadata = metadata.remove(&["metadata"]).unwrap_or_else(Value::map);
                if let Some(hub_metadata) = self.kind.strategy.hub_metadata() {
                    hub_metadata(&mut metadata);
                }
                Ok(partial_body(metadata, media)?.bytes)
            }
            Part::Row => {
                let mut hub = wire::decode_stored(&self.types, &self.storage, stored)?;
                self.kind.strategy.to_hub(&self.storage.version, &mut hub);
                set_revision(&mut hub, revision);
                Ok(view::kept_row(seen_as.kind.strategy, &hub))
            }
        }
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

    /// What is read out of a message without decoding it is what decoding it would tell.
    #[test]
    fn a_glance_tells_what_a_tree_would() {
        let resource = |plural| copepod_schema::resources().iter().find(|r| r.plural == plural);
        let resource = Arc::new(resource("pods").expect("in the facts").clone());
        let storage = resource.storage.clone().expect("stored");
        let (types, kind) = (Types::Builtin, copepod_kinds::kind_of(&resource));
        let mut forms = Forms::new(types.clone(), storage.clone(), kind, &[resource]);
        assert!(forms.selected.is_some());
        for json in [
            r#"{"metadata":{"name":"a"},"spec":{},"status":{}}"#,
            r#"{"metadata":{"name":"a","labels":{"b":"c","a":""}},"spec":{"nodeName":"n","restartPolicy":"Never",
                "hostNetwork":true,"schedulerName":"s","serviceAccountName":"x","serviceAccount":"x"},
                "status":{"phase":"Running","podIP":"1.2.3.4","nominatedNodeName":"m"}}"#,
            r#"{"spec":{"nodeName":"n"},"status":{"podIPs":[{"ip":"1.2.3.4"},{"ip":"::1"}]}}"#,
            r#"{"spec":{"serviceAccount":"old"},"status":{"podIP":"1.2.3.4","podIPs":[{"ip":"5.6.7.8"}]}}"#,
        ] {
            let gvk = Gvk::new("", "v1", "Pod");
            let decoded = codec::decode(json.as_bytes(), codec::Media::Json, &types, storage.ty, Some(&gvk));
            let mut tree = decoded.expect("a pod").value;
            let stored = wire::encode_stored(&types, &storage, &mut tree).expect("encoded");
            let key = b"/registry/pods/ns/a";
            let glance = forms.attributes(key, &stored).expect("read");
            let plan = forms.selected.take();
            let whole = forms.attributes(key, &stored).expect("read");
            forms.selected = plan;
            assert_eq!(glance, whole, "{json}");
        }
    }

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
