//! The resource or subresource under whose name operations are published: ids, kinds, schemas.

use serde_json::Value;

use super::paths::{Paths, capital, reference};
use crate::resources::{Resource, ServedVersion, Subresource};

/// A resource or subresource under whose name operations are published.
pub(super) struct Target {
    /// `CoreV1`
    pub(super) group: String,
    pub(super) scope: &'static str,
    /// Kind of the resource itself, of which ids are made.
    pub(super) parent: String,
    /// Kind that is read and written.
    pub(super) kind: String,
    pub(super) gvk: (String, String, String),
    pub(super) suffix: String,
    pub(super) watched: bool,
    pub(super) schema: Value,
    pub(super) list_schema: Value,
}

impl Target {
    pub(super) fn new(paths: &Paths<'_>, resource: &Resource, served: &ServedVersion) -> Target {
        let name = |kind: &str| paths.names.type_name(paths.group, paths.version, kind).unwrap_or_default();
        Target {
            group: paths.operation_group(),
            scope: if resource.namespaced { "Namespaced" } else { "" },
            parent: resource.kind.to_string(),
            kind: resource.kind.to_string(),
            gvk: (paths.group.to_owned(), paths.version.to_owned(), resource.kind.to_string()),
            suffix: String::new(),
            watched: served.has_verb("watch"),
            schema: reference(&name(&resource.kind)),
            list_schema: reference(&name(&resource.list_kind)),
        }
    }

    pub(super) fn subresource(&self, paths: &Paths<'_>, sub: &Subresource) -> Target {
        let name = paths.names.type_name(&sub.group, &sub.version, &sub.kind).unwrap_or_default();
        let own = (sub.group.to_string(), sub.version.to_string(), sub.kind.to_string());
        // A custom resource's subresources go by the resource's kind, whatever they carry.
        let (kind, gvk) =
            if paths.custom { (self.kind.clone(), self.gvk.clone()) } else { (sub.kind.to_string(), own) };
        Target {
            group: self.group.clone(),
            scope: self.scope,
            parent: self.parent.clone(),
            kind,
            gvk,
            suffix: capital(&sub.name),
            watched: false,
            schema: reference(&name),
            list_schema: Value::Null,
        }
    }

    /// `deleteCoreV1CollectionNamespacedPod`, `readCoreV1NamespacedPodStatus`.
    pub(super) fn id(&self, verb: &str, before_scope: &str, after_kind: &str, end: &str) -> String {
        let Target { group, scope, parent, suffix, .. } = self;
        format!("{verb}{group}{before_scope}{scope}{parent}{after_kind}{suffix}{end}")
    }

    /// `listCoreV1PodForAllNamespaces`
    pub(super) fn all_namespaces(&self, verb: &str, after_kind: &str) -> String {
        format!("{verb}{}{}{after_kind}ForAllNamespaces", self.group, self.parent)
    }

    /// `connectCoreV1GetNamespacedPodExec`
    pub(super) fn connect_id(&self, method: &str, end: &str) -> String {
        self.id("connect", &capital(method), "", end)
    }
}
