//! RoleBinding and ClusterRoleBinding.

use copepod_meta::{ErrorList, Value, names};

use super::GROUP;
use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::{each, fill};
use crate::equality::same;
use crate::metadata::{self, path_segment_name};
use crate::print;
use crate::strategy::{Cell, Column, Context, Row, Strategy};

/// The strategy of both.
pub struct Binding {
    /// A RoleBinding, not a ClusterRoleBinding.
    pub namespaced: bool,
}

/// upstream: SetDefaults_RoleBinding, SetDefaults_ClusterRoleBinding, SetDefaults_Subject
fn default(binding: &mut Value) {
    fill(binding.make(&["roleRef"]), "apiGroup", GROUP);
    for subject in each(binding, &["subjects"]) {
        if matches!(subject.str_at(&["kind"]), "User" | "Group") {
            fill(subject, "apiGroup", GROUP);
        }
    }
}

impl Strategy for Binding {
    fn default(&self, _version: &str, binding: &mut Value) {
        default(binding);
    }
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        path_segment_name(name, prefix)
    }
    fn validate_create(&self, _cx: &Context, binding: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(binding, e);
        validate(binding, self.namespaced, e);
    }
    fn validate_update(&self, _cx: &Context, binding: &Value, old: &Value, e: &mut ErrorList) {
        validate_update(binding, old, self.namespaced, e);
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns(if self.namespaced { "rbac/RoleBinding" } else { "rbac/ClusterRoleBinding" })
    }
    fn row(&self, binding: &Value) -> Row {
        row(binding)
    }
}

/// upstream: ValidateRoleBinding, ValidateClusterRoleBinding, less metadata
fn validate(binding: &Value, namespaced: bool, e: &mut ErrorList) {
    let root = At::root(binding);
    let role = root.get("roleRef");
    role.get("apiGroup").one_of(e, &[GROUP]);
    role.get("kind").one_of(e, if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] });
    let name = role.get("name");
    if name.need(e) {
        name.invalid_each(e, names::path_segment(name.str()));
    }
    for subject in root.get("subjects").items() {
        validate_subject(subject, namespaced, e);
    }
}

/// upstream: ValidateRoleBindingSubject
fn validate_subject(subject: At, namespaced: bool, e: &mut ErrorList) {
    let (kind, name, group) = (subject.get("kind"), subject.get("name"), subject.get("apiGroup"));
    name.need(e);
    match kind.str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                name.dns_subdomain(e);
            }
            if !group.is_empty() {
                group.not_supported(e, &[""]);
            }
            if !namespaced {
                subject.get("namespace").need(e);
            }
        }
        "User" | "Group" => group.one_of(e, &[GROUP]),
        _ => kind.not_supported(e, &["ServiceAccount", "User", "Group"]),
    }
}

fn validate_update(binding: &Value, old: &Value, namespaced: bool, e: &mut ErrorList) {
    metadata::validate_core(binding, namespaced, &path_segment_name, e);
    validate(binding, namespaced, e);
    metadata::validate_update_core(binding, old, e);
    if !same(binding.get("roleRef"), old.get("roleRef")) {
        let root = At::root(binding);
        let role = root.get("roleRef");
        role.invalid_printed(e, print::internal(role.value, "rbac/RoleRef"), "cannot change roleRef");
    }
}

fn row(binding: &Value) -> Row {
    let role = format!("{}/{}", binding.str_at(&["roleRef", "kind"]), binding.str_at(&["roleRef", "name"]));
    let of = |kind: &str| {
        let all = binding.list_at(&["subjects"]).iter().filter(|s| s.str_at(&["kind"]) == kind);
        let names = all.map(|s| match (kind, s.str_at(&["namespace"])) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => {
                format!("{namespace}/{}", s.str_at(&["name"]))
            }
            _ => s.str_at(&["name"]).to_string(),
        });
        Cell::from(names.collect::<Vec<_>>().join(", "))
    };
    cells::row([
        cells::name(binding),
        role.into(),
        cells::age(binding),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ])
}
