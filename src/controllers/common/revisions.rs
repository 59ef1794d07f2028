//! ControllerRevisions: the states that a template has had, for rolling updates and rollbacks.
//!
//! upstream: pkg/controller/history/controller_history.go

use std::sync::Arc;

use copepod_client::Client;
use copepod_client::informer::{BY_CONTROLLER, Informer};
use copepod_client::object::{MetaExt, controller_reference};
use copepod_client::rest::{self, PatchType};
use kube::Resource;
use serde_json::{Value, json};

use super::resources::CONTROLLER_REVISIONS;
use super::template;
use crate::kinds::{ControllerRevision, Template};

/// Label of a revision, and of pods made from it.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// The data of a revision: a patch that brings the template back.
pub fn data(template: &Template) -> Value {
    let mut content = (*template.0).clone();
    if let Some(metadata) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    content["$patch"] = json!("replace");
    json!({"spec": {"template": content}})
}

/// The template that a revision stands for.
pub fn template_of(revision: &ControllerRevision) -> Template {
    let mut content = revision.data["spec"]["template"].clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("$patch");
    }
    Template(Arc::new(content))
}

/// The hash in the name of a revision.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    revision.metadata.label(HASH_LABEL).unwrap_or_default()
}

/// The revisions of an owner, the oldest first.
pub fn of<K: Resource>(revisions: &Informer<ControllerRevision>, owner: &K) -> Vec<Arc<ControllerRevision>> {
    let mut found = revisions.by_index(BY_CONTROLLER, owner.meta().uid());
    found.sort_by_key(|revision| {
        let created = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (revision.revision, created, revision.metadata.name().to_owned())
    });
    found
}

/// The revision of the owner's template: found, renumbered if an older one is used again, or made.
pub async fn current<K: Resource<DynamicType = ()>>(
    client: &Client,
    owner: &K,
    template: &Template,
    known: &[Arc<ControllerRevision>],
    collisions: Option<i32>,
) -> Result<Arc<ControllerRevision>, kube::Error> {
    let wanted = data(template);
    let newest = known.last().map_or(0, |revision| revision.revision);
    let namespace = MetaExt::namespace(owner.meta());
    if let Some(same) = known.iter().rev().find(|revision| revision.data == wanted) {
        if same.revision == newest {
            return Ok(same.clone());
        }
        let body = json!({"revision": newest + 1});
        let name = same.metadata.name();
        let merge = PatchType::Merge;
        return rest::patch(client, &CONTROLLER_REVISIONS, namespace, name, "", merge, &body)
            .await
            .map(Arc::new);
    }
    let hash = template::hash(&wanted, collisions);
    let mut labels = template.0["metadata"]["labels"].clone();
    if labels.is_null() {
        labels = json!({});
    }
    labels[HASH_LABEL] = json!(hash);
    let name = format!("{}-{hash}", owner.meta().name());
    let body = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": namespace, "labels": labels,
            "ownerReferences": [controller_reference(owner)]},
        "data": wanted, "revision": newest + 1,
    });
    match rest::create::<ControllerRevision>(client, &CONTROLLER_REVISIONS, namespace, &body).await {
        Err(error) if rest::is_already_exists(&error) => {
            let live: ControllerRevision = rest::get(client, &CONTROLLER_REVISIONS, namespace, &name).await?;
            // An earlier turn made it; anything else of that name is a collision for the caller to report.
            if live.data == wanted { Ok(Arc::new(live)) } else { Err(error) }
        }
        other => other.map(Arc::new),
    }
}

/// Deletes revisions beyond the limit that nothing uses, the oldest first.
pub async fn clean_up(
    client: &Client,
    known: &[Arc<ControllerRevision>],
    in_use: &[&str],
    limit: i32,
) -> Result<(), kube::Error> {
    let unused: Vec<&Arc<ControllerRevision>> =
        known.iter().filter(|revision| !in_use.contains(&revision.metadata.name())).collect();
    let excess = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for revision in &unused[..excess] {
        let (namespace, name) = (MetaExt::namespace(&revision.metadata), revision.metadata.name());
        match rest::delete(client, &CONTROLLER_REVISIONS, namespace, name, &json!({})).await {
            Err(error) if rest::is_not_found(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_brings_its_template_back() {
        let template = Template(Arc::new(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"newer": 1}})));
        let revision: ControllerRevision =
            serde_json::from_value(json!({"data": data(&template), "revision": 1})).expect("a revision");
        assert_eq!(template_of(&revision), template);
        assert_eq!(revision.data["spec"]["template"]["$patch"], "replace");
    }
}
