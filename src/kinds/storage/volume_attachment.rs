//! VolumeAttachment. upstream: pkg/registry/storage/volumeattachment/strategy.go, pkg/apis/storage/validation

use copepod_meta::{ErrorList, Path, Value, names};

use crate::cells;
use crate::check::At;
use crate::core::persistent_volume;
use crate::core::pod::legacy_volumes::csi_driver_name;
use crate::generic::{clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct VolumeAttachment;
/// `volumeattachments/status`
pub struct VolumeAttachmentStatus;

impl Strategy for VolumeAttachment {
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        clear_status(object);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }
    fn validate_create(&self, _cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(object, e);
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(object, false, &names::dns1123_subdomain_prefixed, e);
        validate(object, e);
        let root = At::root(object);
        let ty = "io.k8s.api.storage.v1.VolumeAttachmentSpec";
        let (spec, none) = (root.get("spec"), Value::map());
        let spec = if spec.is_set() { spec } else { spec.with(&none) };
        spec.immutable_internal(e, old.get("spec"), ty, "storage/VolumeAttachmentSpec");
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("storage/VolumeAttachment")
    }
    fn row(&self, object: &Value) -> Row {
        cells::row([
            cells::name(object),
            object.str_at(&["spec", "attacher"]).into(),
            object.str_at(&["spec", "source", "persistentVolumeName"]).into(),
            object.str_at(&["spec", "nodeName"]).into(),
            object.at(&["status", "attached"]).as_bool().unwrap_or(false).into(),
            cells::age(object),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&VolumeAttachmentStatus as &dyn Strategy)
    }
}

impl Strategy for VolumeAttachmentStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        metadata::reset_for_status(object, old);
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        VolumeAttachment.validate_update(cx, object, old, e);
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"], &["spec"]]
    }
}

/// upstream: ValidateVolumeAttachment
fn validate(object: &Value, e: &mut ErrorList) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let root = At::root(object);
    let spec = root.get("spec");
    csi_driver_name(spec.get("attacher"), e);
    let source = spec.get("source");
    let (inline, name) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => source.required(e, ONE),
        (true, true) => source.forbidden(e, ONE),
        (false, true) if name.str().is_empty() => {
            name.required(e, "must specify non empty persistentVolumeName");
        }
        (false, true) => {}
        (true, false) => persistent_volume::validate_inline(inline, e),
    }
    spec.get("nodeName").dns_subdomain(e);
    status(root.get("status"), e);
    if name.is_set() {
        let path = Path::new("spec.source.persistentVolumeName");
        At::new(name.value, path).dns_subdomain(e);
    }
}

fn status(status: At, e: &mut ErrorList) {
    const METADATA_MAX: usize = 256 << 10;
    const MESSAGE_MAX: usize = 1024;
    let attachment = status.get("attachmentMetadata");
    let size: usize = attachment.entries().map(|(k, v)| k.len() + v.len()).sum();
    if size > METADATA_MAX {
        attachment.too_long(e, METADATA_MAX);
    }
    for error in ["attachError", "detachError"].map(|m| status.get(m)) {
        if error.get("message").len() > MESSAGE_MAX {
            // Upstream names the other limit.
            error.get("message").too_long(e, METADATA_MAX);
        }
        let code = error.get("errorCode");
        if code.int() < 0 {
            code.invalid(e, names::range_error(0, i64::from(i32::MAX)));
        }
    }
}
