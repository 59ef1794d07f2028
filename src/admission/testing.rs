//! One plugin over objects in memory: a request in, the object or the refusal out.

use crate::chain::{Config, PLUGINS};
use copepod_meta::testing::{Objects, json};
use copepod_meta::{AdmissionRequest, GroupVersion, Gvr, Operation, User, Value, debug_json};
use std::sync::Arc;

/// A create request of `object` in namespace `a`; `want` is the object after it (or a part of it), or `code message`.
pub struct Case<'a> {
    pub name: &'a str,
    pub object: &'a str,
    pub want: &'a str,
}

/// Objects that stand: group, resource, JSON.
pub type Standing<'a> = [(&'a str, &'a str, &'a str)];

pub fn objects(standing: &Standing<'_>) -> Arc<Objects> {
    let objects = Objects::default();
    standing.iter().for_each(|(group, resource, text)| objects.put(group, resource, json(text)));
    Arc::new(objects)
}

pub async fn run(plugin: &str, group: &str, resource: &str, standing: &Standing<'_>, case: Case<'_>) {
    run_as(&User::default(), plugin, group, resource, "", objects(standing), case).await;
}

pub async fn run_as(
    user: &User,
    plugin: &str,
    group: &str,
    resource: &str,
    subresource: &str,
    objects: Arc<Objects>,
    case: Case<'_>,
) {
    let config = Config { lister: objects.clone(), writer: objects, enable: Vec::new(), disable: Vec::new() };
    let (_, _, make) = PLUGINS.iter().find(|(name, ..)| *name == plugin).expect("a plugin");
    let plugin = make(&config);
    let mut object = json(case.object);
    let kind = GroupVersion::new(group, "v1").kind("Any");
    let mut request = AdmissionRequest {
        operation: Operation::Create,
        kind: &kind,
        resource: &Gvr::new(group, "v1", resource),
        subresource,
        namespace: "a",
        name: "",
        user,
        object: Some(&mut object),
        old_object: None,
        options: &Value::Null,
        dry_run: false,
        warnings: &mut Vec::new(),
    };
    let mut result = plugin.admit(&mut request).await;
    if result.is_ok() {
        result = plugin.validate(&mut request).await;
    }
    let got = match result {
        Ok(()) => debug_json::to_string(&object),
        Err(status) => format!("{} {}", status.code, status.message),
    };
    assert!(got.contains(case.want), "{}\n got: {got}\nwant: {}", case.name, case.want);
}
