//! `pods/binding` and the older `bindings`: a scheduler gives a pod its node.
//!
//! upstream: pkg/registry/core/pod/storage/storage.go BindingREST

use copepod_meta::{ErrorList, FieldError, GroupResource, Map, Path, Reason, Status, Value};

use super::{Answered, Ask, Special, admit_create, pod, success, validate_create};
use crate::api::{Answer, Body, Content, WriteOptions};
use crate::metadata::{ensure_namespace, is_deleting};
use crate::options::WriteKind;
use crate::write::Update;

pub(super) struct Binding;

impl Special for Binding {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(bind(ask, body, options))
    }
}

async fn bind(ask: Ask<'_>, body: Body, options: &WriteOptions) -> Result<Answer, Status> {
    let mut binding = ask.decode(&body, options)?;
    ensure_namespace(&mut binding, &ask.target.namespace)?;
    let pods = GroupResource::new("", "pods");
    let name = binding.str_at(&["metadata", "name"]).to_string();
    let collection = ask.registry.collection(&pods)?;
    let call = ask.call(&collection, options, WriteKind::Create)?;
    admit_create(&call, &mut binding).await?;
    if !ask.target.name.is_empty() && ask.target.name != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    validate(&binding)?;
    validate_create(&call, &mut binding).await?;

    let pod_target = ask.registry.own_target(&pods, &ask.target.namespace, &name, "")?;
    let mut write = ask.call(&collection, options, WriteKind::Create)?;
    write.target = &pod_target;
    let text = |member| Some(binding.str_at(&["metadata", member])).filter(|s| !s.is_empty());
    let change = |old: Option<&Value>| assigned(old.unwrap_or(&Value::Null), &binding, &write.now);
    let update =
        Update { change: &change, uid: text("uid"), revision: text("resourceVersion"), force_create: false };
    write.mutate(&update).await?;
    Ok(Answer::created(Content::Status(success())))
}

/// upstream: ValidatePodBinding; its errors reach the client as a plain error
fn validate(binding: &Value) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    let target = Path::new("target");
    let kind = binding.at(&["target", "kind"]);
    if !matches!(kind.as_str().unwrap_or(""), "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.str_at(&["target", "name"]).is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let message = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
    Err(Status::new(500, Reason::Unknown, message))
}

/// The pod with its node. upstream: setPodNodeAndMetadata
fn assigned(pod: &Value, binding: &Value, now: &copepod_meta::CompactString) -> Result<Value, Status> {
    let name = pod.str_at(&["metadata", "name"]);
    let refuse = |why: String| Err(Status::conflict(&GroupResource::new("", "pods/binding"), name, &why));
    if is_deleting(pod) {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod.str_at(&["spec", "nodeName"]);
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !pod.list_at(&["spec", "schedulingGates"]).is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod.set(&["spec", "nodeName"], binding.str_at(&["target", "name"]));
    pod.remove(&["status", "nominatedNodeName"]);
    for member in ["annotations", "labels"] {
        for (key, value) in binding.map_at(&["metadata", member]).iter() {
            pod.make(&["metadata", member]).make_map().insert(key, value.clone());
        }
    }
    let condition = Map::from_iter([("type", "PodScheduled"), ("status", "True")]);
    pod::set_condition(&mut pod, condition, now);
    Ok(pod)
}
