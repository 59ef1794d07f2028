//! What several plugins need.

use copepod_meta::{AdmissionRequest, GroupResource, Status, Value};

/// The annotation of pods that mirror a static pod.
pub const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// Whether the request is about `group`'s `resource`.
pub fn is(request: &AdmissionRequest<'_>, group: &str, resource: &str) -> bool {
    request.resource.group == group && request.resource.resource == resource
}

/// The request's resource without version.
pub fn resource(request: &AdmissionRequest<'_>) -> GroupResource {
    request.resource.group_resource()
}

/// 403 in the name of the object. upstream: apiserver/pkg/admission/errors.go NewForbidden
pub fn forbidden(request: &AdmissionRequest<'_>, why: impl std::fmt::Display) -> Status {
    Status::forbidden(&resource(request), &object_name(request), &why.to_string())
}

/// The name, or what is known of it before it is generated.
fn object_name(request: &AdmissionRequest<'_>) -> String {
    if !request.name.is_empty() {
        return request.name.into();
    }
    let text = |key| request.object.as_ref().map_or("", |o| o.str_at(&["metadata", key]));
    match (text("name"), text("generateName")) {
        ("", "") => "Unknown".into(),
        ("", prefix) => prefix.into(),
        (name, _) => name.into(),
    }
}

/// Whether a pod mirrors a static one.
pub fn is_mirror_pod(pod: &Value) -> bool {
    !pod.at(&["metadata", "annotations", MIRROR_POD]).is_null()
}

/// Appends to the list at `path`, making it if need be.
pub fn push(object: &mut Value, path: &[&str], item: Value) {
    let place = object.make(path);
    match place {
        Value::List(list) => list.push(item),
        other => *other = Value::List(vec![item]),
    }
}
