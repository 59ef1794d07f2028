//! For tests of the floors that decide: objects in memory behind the traits through which they read and write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{BoxFuture, GroupResource, Listed, Lister, Map, ResourceVersion, Status, Value, Writer};

/// Objects by resource. Each write has the next revision.
#[derive(Debug, Default)]
pub struct Objects(Mutex<Vec<(GroupResource, Listed)>>);

impl Objects {
    /// Adds an object.
    pub fn put(&self, group: &str, resource: &str, object: Value) {
        let mut objects = self.objects();
        let listed = Listed { object: Arc::new(object), revision: next(&objects) };
        objects.push((GroupResource::new(group, resource), listed));
    }

    fn objects(&self) -> MutexGuard<'_, Vec<(GroupResource, Listed)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, resource: &GroupResource, namespace: &str, name: &str) -> Vec<Listed> {
        let objects = self.objects();
        let matching = objects.iter().filter(|(r, l)| {
            r == resource
                && (namespace.is_empty() || l.object.str_at(&["metadata", "namespace"]) == namespace)
                && (name.is_empty() || l.object.str_at(&["metadata", "name"]) == name)
        });
        matching.map(|(_, l)| l.clone()).collect()
    }
}

fn next(objects: &[(GroupResource, Listed)]) -> ResourceVersion {
    ResourceVersion(objects.iter().map(|(_, l)| l.revision.0).max().unwrap_or(0) + 1)
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
        self.objects().iter().filter(|(r, _)| r == resource).map(|(_, l)| l.revision.0).max().unwrap_or(0)
    }
}

impl Writer for Objects {
    fn create<'a>(
        &'a self,
        resource: &'a GroupResource,
        _: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        self.put(&resource.group, &resource.resource, object.clone());
        Box::pin(async move { Ok(object) })
    }
    fn update<'a>(
        &'a self,
        resource: &'a GroupResource,
        _: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let mut objects = self.objects();
            let revision = next(&objects);
            let text = |of: &Value, member| of.str_at(&["metadata", member]).to_string();
            let same = |(r, l): &&mut (GroupResource, Listed)| {
                let is = |member| text(&l.object, member) == text(&object, member);
                r == resource && is("name") && is("namespace")
            };
            match objects.iter_mut().find(same) {
                Some((_, listed)) => *listed = Listed { object: Arc::new(object.clone()), revision },
                None => return Err(Status::not_found(resource, &text(&object, "name"))),
            }
            Ok(object)
        })
    }
}

/// A tree from JSON text.
pub fn json(text: &str) -> Value {
    tree(&serde_json::from_str(text).expect("JSON of a test"))
}

fn tree(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => Value::Int(n.as_i64().expect("an integer")),
        serde_json::Value::String(s) => Value::string(s),
        serde_json::Value::Array(items) => Value::List(items.iter().map(tree).collect()),
        serde_json::Value::Object(members) => {
            Value::Map(members.iter().map(|(k, v)| (k.as_str(), tree(v))).collect::<Map>())
        }
    }
}
