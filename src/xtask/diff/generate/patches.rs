//! Patches of every type: of what is there, of what is not, and such as are no patches.

use super::*;

impl Maker<'_> {
    pub(super) fn json_patch(&mut self) {
        let (path, name) = self.target();
        let mut operations = Vec::new();
        for change in self.changes(&name, "") {
            operations.push(match change {
                Mutation::Set(pointer, value) => {
                    let op = *self.chance.pick(&["add", "replace", "test", "add"]);
                    json!({"op": op, "path": pointer, "value": value})
                }
                Mutation::Remove(pointer) => json!({"op": "remove", "path": pointer}),
            });
        }
        match self.chance.below(10) {
            0 => operations
                .push(json!({"op": "copy", "from": "/metadata/labels/app", "path": "/metadata/labels/copy"})),
            1 => operations.push(
                json!({"op": "move", "from": "/metadata/labels/app", "path": "/metadata/labels/moved"}),
            ),
            2 => operations.push(json!({"op": "bad", "path": "/x"})),
            3 => operations
                .push(json!({"op": "add", "path": "/metadata/finalizers", "value": ["example.com/f"]})),
            _ => {}
        }
        self.patch(&path, "application/json-patch+json", Json::Array(operations), &[]);
    }

    /// The object that has only what changes; what goes is null.
    pub(super) fn difference(&mut self, name: &str, under: &str) -> Json {
        let mut patch = json!({});
        for change in self.changes(name, under) {
            let (pointer, value) = match change {
                Mutation::Set(pointer, value) => (pointer, value),
                Mutation::Remove(pointer) => (pointer, Json::Null),
            };
            self.place(&mut patch, name, &pointer, value);
        }
        patch
    }

    /// Lists on the way are given an element with the keys of the one that is meant.
    pub(super) fn place(&mut self, patch: &mut Json, name: &str, pointer: &str, value: Json) {
        let parts = pointer_parts(pointer);
        let Some(index) = parts.iter().position(|p| p.parse::<usize>().is_ok()) else {
            set(patch, pointer, value);
            return;
        };
        let list = crate::diff::script::pointer_of(&parts[..index]);
        let element = self
            .objects
            .get(name)
            .and_then(|o| o.pointer(&crate::diff::script::pointer_of(&parts[..=index])))
            .cloned()
            .unwrap_or_default();
        let mut item = if element.is_object() { json!({}) } else { value.clone() };
        if element.is_object() {
            for key in
                ["name", "containerPort", "port", "mountPath", "key", "ip", "type", "topologyKey", "uid"]
            {
                if let Some(value) = element.get(key) {
                    item[key] = value.clone();
                }
            }
            set(&mut item, &crate::diff::script::pointer_of(&parts[index + 1..]), value);
            // The element itself may have become something else.
            if self.chance.percent(8) && item.is_object() {
                item["$patch"] = json!(*self.chance.pick(&["delete", "replace", "merge", "bad"]));
            }
        }
        set(patch, &list, json!([item]));
    }

    pub(super) fn merge_patch(&mut self, ty: &str) {
        let (path, name) = self.target();
        let patch = self.difference(&name, "");
        self.patch(&path, ty, patch, &[]);
    }

    pub(super) fn apply(&mut self) {
        let name = self.name();
        let mut object = match self.objects.get(&name) {
            Some(known) if self.chance.percent(60) => known.clone(),
            _ => self.fresh(&name),
        };
        if self.chance.percent(30) {
            self.subject.mutation(&mut self.chance, &object).apply(&mut object);
        }
        // Part of it only: what was applied before and is not applied now goes.
        if self.chance.percent(50)
            && let Json::Object(members) = &mut object
        {
            let parts: Vec<String> = members
                .keys()
                .filter(|k| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata"))
                .cloned()
                .collect();
            if !parts.is_empty() {
                let dropped = self.chance.pick(&parts).clone();
                if let Some(Json::Object(inner)) = members.get_mut(&dropped)
                    && let Some(key) = inner.keys().nth(self.chance.below(inner.len())).cloned()
                {
                    inner.remove(&key);
                }
            }
        }
        let mut query = vec![*self.chance.pick(&[
            "fieldManager=m1",
            "fieldManager=m1",
            "fieldManager=m2",
            "fieldManager=",
        ])];
        if self.chance.percent(40) {
            query.push("force=true");
        }
        let path = format!("{}/{name}", self.subject.path());
        let id = self.id();
        self.patch(&path, "application/apply-patch+yaml", object.clone(), &query);
        if self.steps.last().is_some_and(|s| s.accept.is_empty() && !s.ask.contains("dryRun")) {
            self.objects.entry(name.clone()).or_insert(object);
            self.last.insert(name, id);
        }
    }

    pub(super) fn patch(&mut self, path: &str, ty: &str, body: Json, query: &[&str]) {
        let mut step =
            Step { id: self.id(), accept: self.write_accept(), content_type: ty.into(), ..Step::default() };
        step.ask = format!("PATCH {path}{}", self.write_query(query));
        step.body = Some(body);
        self.push(step);
    }
}
