//! The paths of a group-version: every operation of every resource, with upstream's words, ids and
//! parameters.
//!
//! upstream: apiserver/pkg/endpoints/installer.go registerResourceHandlers,
//! apiserver/pkg/endpoints/openapi/openapi.go

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use super::target::Target;
use crate::resources::{Resource, ServedVersion, Subresource};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Answers are in any of these.
const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Lists may be watches too.
const WATCH_MEDIA: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCH_MEDIA: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Subresources whose GET answers with text, and the options it takes. Discovery does not say so.
const TEXT_SUBRESOURCES: [(&str, &str, &str, &str); 1] =
    [("", "pods", "log", "io.k8s.api.core.v1.PodLogOptions")];

/// What is known of a type's name for a kind: the part of the document that differs between built-ins and
/// custom resources.
pub(super) trait TypeNames {
    /// The published name of a kind's type.
    fn type_name(&self, group: &str, version: &str, kind: &str) -> Option<String>;
}

/// Renders paths of one group-version.
pub(super) struct Paths<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) names: &'a dyn TypeNames,
    pub(super) schemas: &'a mut Schemas,
    /// Custom resources: no protobuf, no strategic merge patch, no old watch paths, and a few other words.
    pub(super) custom: bool,
}

/// One operation before it becomes JSON.
struct Operation {
    method: &'static str,
    id: String,
    description: String,
    action: &'static str,
    kind: (String, String, String),
    parameters: Vec<Value>,
    body: Option<Value>,
    /// Status code and content; 401 is added to all.
    responses: Vec<(&'static str, Value)>,
}

/// `rbac.authorization.k8s.io` is `rbacAuthorization`; the core group is `core`.
pub(super) fn camel_group(group: &str) -> String {
    if group.is_empty() {
        return "core".into();
    }
    let mut out = String::new();
    for (i, part) in group.trim_end_matches(".k8s.io").split('.').enumerate() {
        out += &if i == 0 { part.to_owned() } else { capital(part) };
    }
    out
}

pub(super) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// `/api/v1` or `/apis/apps/v1`.
pub(super) fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

impl Paths<'_> {
    /// All paths, by path.
    pub(super) fn render<'r>(
        &mut self,
        resources: impl Iterator<Item = (&'r Resource, &'r ServedVersion)>,
    ) -> BTreeMap<String, Value> {
        let mut paths = BTreeMap::new();
        let root = root(self.group, self.version);
        let list = format!("{META}.APIResourceList");
        if !self.custom {
            let operation = json!({
                "tags": [self.tag()],
                "description": "get available resources",
                "operationId": format!("get{}APIResources", self.operation_group()),
                "responses": {"200": self.answer("OK", &reference(&list), false), "401": unauthorized()},
            });
            paths.insert(format!("{root}/"), json!({ "get": operation }));
        }
        for (resource, served) in resources {
            self.resource(&root, resource, served, &mut paths);
        }
        paths
    }

    fn tag(&self) -> String {
        format!("{}_{}", camel_group(self.group), self.version)
    }

    /// The middle of operation ids: `CoreV1`, `RbacAuthorizationV1`.
    pub(super) fn operation_group(&self) -> String {
        capital(&camel_group(self.group)) + &capital(self.version)
    }

    fn resource(
        &mut self,
        root: &str,
        resource: &Resource,
        served: &ServedVersion,
        paths: &mut BTreeMap<String, Value>,
    ) {
        let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let plural = &resource.plural;
        let collection = format!("{root}{scope}/{plural}");
        let item = format!("{collection}/{{name}}");
        let watched = format!("{root}/watch{scope}/{plural}");
        let one = Target::new(self, resource, served);
        let mut add = |path: String, target: &Target, operations: Vec<Operation>, this: &mut Self| {
            if !operations.is_empty() {
                let value = this.path_item(&path, target, operations);
                paths.insert(path, value);
            }
        };
        add(collection, &one, self.collection(&one, served), self);
        add(item.clone(), &one, self.item(&one, resource, served), self);
        if resource.namespaced && served.has_verb("list") {
            add(format!("{root}/{plural}"), &one, vec![self.list(&one, true)], self);
        }
        if served.has_verb("watch") && !self.custom {
            add(watched.clone(), &one, vec![self.watch(&one, true, false)], self);
            add(format!("{watched}/{{name}}"), &one, vec![self.watch(&one, false, false)], self);
            if resource.namespaced {
                add(format!("{root}/watch/{plural}"), &one, vec![self.watch(&one, true, true)], self);
            }
        }
        for sub in &served.subresources {
            let target = one.subresource(self, sub);
            let path = format!("{item}/{}", sub.name);
            let (operations, deep) = self.subresource(&target, resource, sub);
            add(path.clone(), &target, operations, self);
            if !deep.is_empty() {
                add(format!("{path}/{{path}}"), &target, deep, self);
            }
        }
    }

    fn collection(&mut self, one: &Target, served: &ServedVersion) -> Vec<Operation> {
        let mut operations = Vec::new();
        if served.has_verb("list") {
            operations.push(self.list(one, false));
        }
        if served.has_verb("create") {
            operations.push(self.create(one, format!("create {}", with_article(&one.kind))));
        }
        if served.has_verb("deletecollection") {
            let without: &[&str] = if self.custom { &[] } else { &["allowWatchBookmarks", "watch"] };
            let mut parameters = self.options("ListOptions", without);
            if !self.custom {
                parameters.extend(self.delete_parameters());
            }
            operations.push(Operation {
                method: "delete",
                id: one.id("delete", "Collection", "", ""),
                description: format!("delete collection of {}", one.kind),
                action: "deletecollection",
                kind: one.gvk.clone(),
                parameters: self.with_pretty(parameters),
                body: if self.custom { None } else { Some(self.body(&delete_options())) },
                responses: vec![("200", self.answer("OK", &reference(&format!("{META}.Status")), false))],
            });
        }
        operations
    }

    fn item(&mut self, one: &Target, resource: &Resource, served: &ServedVersion) -> Vec<Operation> {
        let mut operations = Vec::new();
        if served.has_verb("get") {
            operations.push(self.read(one, format!("read the specified {}", one.kind)));
        }
        if served.has_verb("update") {
            operations.push(self.replace(one, format!("replace the specified {}", one.kind)));
        }
        if served.has_verb("delete") {
            let status = reference(&format!("{META}.Status"));
            let answer = if resource.returns_deleted { one.schema.clone() } else { status };
            let parameters = self.delete_parameters();
            operations.push(Operation {
                method: "delete",
                id: one.id("delete", "", "", ""),
                description: format!("delete {}", with_article(&one.kind)),
                action: "delete",
                kind: one.gvk.clone(),
                parameters: self.with_pretty(parameters),
                body: Some(self.body(&delete_options())),
                responses: vec![
                    ("200", self.answer("OK", &answer, false)),
                    ("202", self.answer("Accepted", &answer, false)),
                ],
            });
        }
        if served.has_verb("patch") {
            operations.push(self.patch(one, format!("partially update the specified {}", one.kind)));
        }
        operations
    }

    /// Operations of a subresource, and those of the path below it for proxies.
    fn subresource(
        &mut self,
        target: &Target,
        resource: &Resource,
        sub: &Subresource,
    ) -> (Vec<Operation>, Vec<Operation>) {
        let text = TEXT_SUBRESOURCES.iter().find(|(group, plural, name, _)| {
            (*group, *plural, *name) == (&*resource.group, &*resource.plural, &*sub.name)
        });
        if sub.kind.ends_with("Options") {
            let deep = if sub.has_verb("update") { self.connect(target, sub, true) } else { Vec::new() };
            return (self.connect(target, sub, false), deep);
        }
        let mut operations = Vec::new();
        let (name, parent) = (&sub.name, &resource.kind);
        if let Some((_, _, _, options)) = text {
            let mut read = self.read(target, format!("read {name} of the specified {parent}"));
            let parameters = self.parameters_of(options, &[]);
            read.parameters = self.with_pretty(parameters);
            let mut answer = self.answer("OK", &json!({"type": "string"}), false);
            answer["content"]["text/plain"] = json!({"schema": {"type": "string"}});
            read.responses = vec![("200", answer)];
            return (vec![read], Vec::new());
        }
        if sub.has_verb("get") {
            operations.push(self.read(target, format!("read {name} of the specified {parent}")));
        }
        if sub.has_verb("update") {
            operations.push(self.replace(target, format!("replace {name} of the specified {parent}")));
        }
        if sub.has_verb("patch") {
            operations.push(self.patch(target, format!("partially update {name} of the specified {parent}")));
        }
        if sub.has_verb("create") {
            operations.push(self.create(target, format!("create {name} of {}", with_article(parent))));
        }
        (operations, Vec::new())
    }

    fn list(&mut self, one: &Target, all_namespaces: bool) -> Operation {
        let parameters = self.options("ListOptions", &[]);
        let verbs = if one.watched && !self.custom { "list or watch" } else { "list" };
        let id = if all_namespaces { one.all_namespaces("list", "") } else { one.id("list", "", "", "") };
        Operation {
            method: "get",
            id,
            description: format!("{verbs} objects of kind {}", one.kind),
            action: "list",
            kind: one.gvk.clone(),
            parameters: self.with_pretty(parameters),
            body: None,
            responses: vec![("200", self.answer("OK", &one.list_schema, true))],
        }
    }

    fn watch(&mut self, one: &Target, list: bool, all_namespaces: bool) -> Operation {
        let parameters = self.options("ListOptions", &[]);
        let suffix = if list { "List" } else { "" };
        let id = if all_namespaces {
            one.all_namespaces("watch", suffix)
        } else {
            one.id("watch", "", suffix, "")
        };
        let kind = &one.kind;
        let description = if list {
            format!(
                "watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list \
                 operation instead."
            )
        } else {
            format!(
                "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation \
                 instead, filtered to a single item with the 'fieldSelector' parameter."
            )
        };
        Operation {
            method: "get",
            id,
            description,
            action: if list { "watchlist" } else { "watch" },
            kind: one.gvk.clone(),
            parameters: self.with_pretty(parameters),
            body: None,
            responses: vec![("200", self.answer("OK", &reference(&format!("{META}.WatchEvent")), true))],
        }
    }

    fn read(&mut self, one: &Target, description: String) -> Operation {
        let parameters = if self.custom { self.options("GetOptions", &[]) } else { Vec::new() };
        Operation {
            method: "get",
            id: one.id("read", "", "", ""),
            description,
            action: "get",
            kind: one.gvk.clone(),
            parameters: self.with_pretty(parameters),
            body: None,
            responses: vec![("200", self.answer("OK", &one.schema, false))],
        }
    }

    fn replace(&mut self, one: &Target, description: String) -> Operation {
        let parameters = self.options("UpdateOptions", &[]);
        Operation {
            method: "put",
            id: one.id("replace", "", "", ""),
            description,
            action: "put",
            kind: one.gvk.clone(),
            parameters: self.with_pretty(parameters),
            body: Some(self.body(&one.schema)),
            responses: vec![
                ("200", self.answer("OK", &one.schema, false)),
                ("201", self.answer("Created", &one.schema, false)),
            ],
        }
    }

    fn create(&mut self, one: &Target, description: String) -> Operation {
        let parameters = self.options("CreateOptions", &[]);
        Operation {
            method: "post",
            id: one.id("create", "", "", ""),
            description,
            action: "post",
            kind: one.gvk.clone(),
            parameters: self.with_pretty(parameters),
            body: Some(self.body(&one.schema)),
            responses: vec![
                ("200", self.answer("OK", &one.schema, false)),
                ("201", self.answer("Created", &one.schema, false)),
                ("202", self.answer("Accepted", &one.schema, false)),
            ],
        }
    }

    fn patch(&mut self, one: &Target, description: String) -> Operation {
        let parameters = self.options("PatchOptions", &[]);
        let patch = reference(&format!("{META}.Patch"));
        let media = PATCH_MEDIA.iter().filter(|media| !self.custom || !media.contains("strategic"));
        let mut responses = vec![("200", self.answer("OK", &one.schema, false))];
        if !self.custom {
            responses.push(("201", self.answer("Created", &one.schema, false)));
        }
        let body: Map<String, Value> =
            media.map(|media| ((*media).to_owned(), json!({"schema": patch}))).collect();
        Operation {
            method: "patch",
            id: one.id("patch", "", "", ""),
            description,
            action: "patch",
            kind: one.gvk.clone(),
            parameters: self.with_pretty(parameters),
            body: Some(Value::Object(body)),
            responses,
        }
    }

    /// Streaming subresources: GET and POST, proxies every method.
    fn connect(&mut self, target: &Target, sub: &Subresource, with_path: bool) -> Vec<Operation> {
        let methods: &[&'static str] = if sub.has_verb("update") {
            &["get", "put", "post", "delete", "options", "head", "patch"]
        } else {
            &["get", "post"]
        };
        let name = self.names.type_name(&sub.group, &sub.version, &sub.kind);
        let parameters = name.map(|name| self.parameters_of(&name, &[])).unwrap_or_default();
        let answer = json!({"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}});
        methods
            .iter()
            .map(|method| {
                let suffix = if with_path { "WithPath" } else { "" };
                Operation {
                    method,
                    id: target.connect_id(method, suffix),
                    description: format!(
                        "connect {} requests to {} of {}",
                        method.to_uppercase(),
                        sub.name,
                        target.parent
                    ),
                    action: "connect",
                    kind: target.gvk.clone(),
                    parameters: parameters.clone(),
                    body: None,
                    responses: vec![("200", answer.clone())],
                }
            })
            .collect()
    }

    fn path_item(&mut self, path: &str, target: &Target, mut operations: Vec<Operation>) -> Value {
        let mut common = Vec::new();
        if path.contains("{name}") {
            common.push(path_parameter("name", &format!("name of the {}", target.kind)));
        }
        if path.contains("{namespace}") {
            common.push(path_parameter(
                "namespace",
                "object name and auth scope, such as for teams and projects",
            ));
        }
        if path.contains("{path}") {
            common.push(path_parameter("path", "path to the resource"));
        }
        // What all operations of a path share stands above them.
        let shared: Vec<Value> = operations[0]
            .parameters
            .iter()
            .filter(|p| operations.iter().all(|operation| operation.parameters.contains(p)))
            .cloned()
            .collect();
        for operation in &mut operations {
            operation.parameters.retain(|p| !shared.contains(p));
        }
        common.extend(shared);
        sort_parameters(&mut common);
        let mut item = Map::new();
        for operation in operations {
            let (method, value) = self.operation(operation);
            item.insert(method, value);
        }
        if !common.is_empty() {
            item.insert("parameters".into(), json!(common));
        }
        Value::Object(item)
    }

    fn operation(&self, mut operation: Operation) -> (String, Value) {
        let mut value = Map::new();
        value.insert("tags".into(), json!([self.tag()]));
        value.insert("description".into(), json!(operation.description));
        value.insert("operationId".into(), json!(operation.id));
        if !operation.parameters.is_empty() {
            sort_parameters(&mut operation.parameters);
            value.insert("parameters".into(), json!(operation.parameters));
        }
        if let Some(content) = operation.body {
            // Deletion works without a body, patches and writes do not.
            let mut body = json!({ "content": content });
            if matches!(operation.action, "post" | "put" | "patch") {
                body["required"] = json!(true);
            }
            value.insert("requestBody".into(), body);
        }
        let mut responses = Map::new();
        for (code, answer) in operation.responses {
            responses.insert(code.into(), answer);
        }
        responses.insert("401".into(), unauthorized());
        value.insert("responses".into(), Value::Object(responses));
        let (group, version, kind) = operation.kind;
        value.insert("x-kubernetes-action".into(), json!(operation.action));
        value.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({"group": group, "version": version, "kind": kind}),
        );
        (operation.method.to_owned(), Value::Object(value))
    }

    fn answer(&self, description: &str, schema: &Value, watch: bool) -> Value {
        let mut content = Map::new();
        for media in MEDIA.iter().chain(if watch { &WATCH_MEDIA[..] } else { &[] }) {
            if !(self.custom && (media.contains("protobuf") || media.contains("watch"))) {
                content.insert((*media).to_owned(), json!({ "schema": schema }));
            }
        }
        json!({"description": description, "content": content})
    }

    fn body(&self, schema: &Value) -> Value {
        if self.custom {
            json!({"application/json": {"schema": schema}, "application/yaml": {"schema": schema}})
        } else {
            json!({"*/*": {"schema": schema}})
        }
    }

    fn with_pretty(&self, mut parameters: Vec<Value>) -> Vec<Value> {
        parameters.push(query_parameter(
            "pretty",
            "string",
            "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or \
             command-line HTTP tool (curl and wget).",
        ));
        parameters
    }

    fn delete_parameters(&mut self) -> Vec<Value> {
        self.options("DeleteOptions", &[])
    }

    fn options(&mut self, kind: &str, without: &[&str]) -> Vec<Value> {
        self.parameters_of(&format!("{META}.{kind}"), without)
    }

    /// The fields of an options type as query parameters.
    fn parameters_of(&mut self, name: &str, without: &[&str]) -> Vec<Value> {
        let schema = self.schemas.get(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let schema = schema.unwrap_or_default();
        let mut parameters = Vec::new();
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            if matches!(field.as_str(), "kind" | "apiVersion") || without.contains(&field.as_str()) {
                continue;
            }
            let kind = match property["type"].as_str() {
                Some("array") => property["items"]["type"].as_str().unwrap_or("string"),
                Some(kind) => kind,
                // Objects (preconditions, times) are not in the query.
                None => continue,
            };
            let text = property["description"].as_str().unwrap_or("");
            parameters.push(query_parameter(field, kind, text));
        }
        parameters
    }
}

fn delete_options() -> Value {
    reference(&format!("{META}.DeleteOptions"))
}

fn unauthorized() -> Value {
    json!({"description": "Unauthorized"})
}

fn query_parameter(name: &str, kind: &str, description: &str) -> Value {
    let mut parameter = json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}});
    if !description.is_empty() {
        parameter["description"] = json!(description);
    }
    parameter
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

fn sort_parameters(parameters: &mut [Value]) {
    let key = |p: &Value| (p["name"].as_str().map(str::to_owned), p["in"].as_str().map(str::to_owned));
    parameters.sort_by_key(key);
}

/// `a Pod`, `an Eviction`; plurals have no article.
/// upstream: apiserver/pkg/endpoints/installer.go GetArticleForNoun
fn with_article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return kind.to_owned();
    }
    let vowel = kind.starts_with(|c: char| "AEIOUaeiou".contains(c));
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
