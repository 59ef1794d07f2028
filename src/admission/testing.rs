//! One plugin over objects in memory: a request in, the object or the refusal out.

use crate::chain::{Config, PLUGINS};
use copepod_meta::{
    AdmissionRequest, BoxFuture, GroupResource, GroupVersion, Gvr, Listed, Lister, Map, Operation,
    ResourceVersion, Status, User, Value, Writer, debug_json,
};
use parking_lot::Mutex;
use std::sync::Arc;

#[derive(Default)]
pub struct Objects(Mutex<Vec<(GroupResource, Listed)>>);

impl Objects {
    fn find(&self, resource: &GroupResource, namespace: &str, name: &str) -> Vec<Listed> {
        let objects = self.0.lock();
        let matching = objects.iter().filter(|(r, l)| {
            r == resource
                && (namespace.is_empty() || l.object.str_at(&["metadata", "namespace"]) == namespace)
                && (name.is_empty() || l.object.str_at(&["metadata", "name"]) == name)
        });
        matching.map(|(_, l)| l.clone()).collect()
    }
}

impl Lister for Objects {
    fn get<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listed>, Status>> {
        Box::pin(async move { Ok(self.find(resource, namespace, name).pop()) })
    }
    fn get_consistent<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listed>, Status>> {
        self.get(resource, namespace, name)
    }
    fn list<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Listed>, Status>> {
        Box::pin(async move { Ok(self.find(resource, namespace, "")) })
    }
    fn changed(&self, resource: &GroupResource) -> u64 {
        self.0.lock().iter().filter(|(r, _)| r == resource).count() as u64
    }
}

impl Writer for Objects {
    fn create<'a>(
        &'a self,
        _: &'a GroupResource,
        _: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move { Ok(object) })
    }
    fn update<'a>(
        &'a self,
        resource: &'a GroupResource,
        _: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let mut objects = self.0.lock();
            let name = object.str_at(&["metadata", "name"]);
            let same = |(r, l): &&mut (GroupResource, Listed)| {
                r == resource && l.object.str_at(&["metadata", "name"]) == name
            };
            if let Some((_, listed)) = objects.iter_mut().find(same) {
                listed.object = Arc::new(object.clone());
            }
            Ok(object)
        })
    }
}

pub fn value(json: &str) -> Value {
    fn convert(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Int(n.as_i64().expect("an integer")),
            serde_json::Value::String(s) => Value::string(s),
            serde_json::Value::Array(items) => Value::List(items.iter().map(convert).collect()),
            serde_json::Value::Object(members) => {
                Value::Map(members.iter().map(|(k, v)| (k.as_str(), convert(v))).collect::<Map>())
            }
        }
    }
    convert(&serde_json::from_str(json).expect("JSON"))
}

/// A create request of `object` in namespace `a`; `want` is the object after it (or a part of it), or `code message`.
pub struct Case {
    pub name: &'static str,
    pub object: &'static str,
    pub want: &'static str,
}

/// Objects that stand: group, resource, JSON.
pub type Standing<'a> = [(&'a str, &'a str, &'a str)];

pub fn objects(standing: &Standing<'_>) -> Arc<Objects> {
    let list = standing.iter().enumerate().map(|(i, (group, resource, json))| {
        let listed = Listed { object: Arc::new(value(json)), revision: ResourceVersion(i as u64 + 1) };
        (GroupResource::new(group, resource), listed)
    });
    Arc::new(Objects(Mutex::new(list.collect())))
}

pub async fn run(plugin: &str, group: &str, resource: &str, standing: &Standing<'_>, case: Case) {
    run_as(&User::default(), plugin, group, resource, "", objects(standing), case).await;
}

pub async fn run_as(
    user: &User,
    plugin: &str,
    group: &str,
    resource: &str,
    subresource: &str,
    objects: Arc<Objects>,
    case: Case,
) {
    let config = Config { lister: objects.clone(), writer: objects, enable: Vec::new(), disable: Vec::new() };
    let (_, _, make) = PLUGINS.iter().find(|(name, ..)| *name == plugin).expect("a plugin");
    let plugin = make(&config);
    let mut object = value(case.object);
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
