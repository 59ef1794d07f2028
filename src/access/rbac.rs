//! Role based access control: the RBAC authorizer, the rules of a user, and whether rules cover others.
//!
//! The four kinds are read through the lister and compiled into an index by subject; the index is rebuilt when one of them
//! changed, at the first decision after it. A binding to a role that does not exist gives nothing and is no error for others.
//!
//! upstream: plugin/pkg/auth/authorizer/rbac/rbac.go, pkg/registry/rbac/validation/rule.go,
//! component-helpers/auth/rbac/validation/policy_comparator.go

use copepod_meta::{
    Attributes, Authorizer, BoxFuture, Decision, GroupResource, Lister, Map, RulesFor, Status, User, Value,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// One `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups, `*` for all.
    pub api_groups: Vec<String>,
    /// Resources, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Names; none: all.
    pub resource_names: Vec<String>,
    /// URL paths; only cluster roles have them.
    pub non_resource_urls: Vec<String>,
}

fn has(set: &[String], element: &str) -> bool {
    set.iter().any(|s| s == element)
}

fn has_all(set: &[String], elements: &[String]) -> bool {
    elements.iter().all(|e| has(set, e))
}

impl Rule {
    /// From a `rbac.authorization.k8s.io/v1 PolicyRule` tree.
    pub fn from_value(value: &Value) -> Rule {
        let texts = |key| value.list_at(&[key]).iter().filter_map(Value::as_str).map(Into::into).collect();
        Rule {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            non_resource_urls: texts("nonResourceURLs"),
        }
    }

    /// Whether this rule alone allows the request.
    pub fn allows(&self, a: &Attributes) -> bool {
        if !(has(&self.verbs, "*") || has(&self.verbs, &a.verb)) {
            return false;
        }
        if !a.is_resource {
            return self.non_resource_urls.iter().any(|url| url_covers(url, &a.path));
        }
        (has(&self.api_groups, "*") || has(&self.api_groups, &a.group))
            && self.resources.iter().any(|r| resource_matches(r, &a.resource, &a.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, &a.name))
    }

    /// Into rules of one verb, one group, one resource, one name each. upstream: BreakdownRule
    fn atoms(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        let one = |s: &String| vec![s.clone()];
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let atom = Rule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        out.push(atom);
                    } else {
                        let named = self.resource_names.iter();
                        out.extend(named.map(|n| Rule { resource_names: one(n), ..atom.clone() }));
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            out.extend(self.verbs.iter().map(|verb| Rule {
                verbs: one(verb),
                non_resource_urls: one(url),
                ..Rule::default()
            }));
        }
        out
    }

    /// upstream: ruleCovers; `atom` has at most one of each.
    fn covers(&self, atom: &Rule) -> bool {
        let resources = has(&self.resources, "*")
            || atom.resources.iter().all(|r| {
                has(&self.resources, r)
                    || r.split_once('/').is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")))
            });
        let names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty() && has_all(&self.resource_names, &atom.resource_names));
        (has(&self.verbs, "*") || has_all(&self.verbs, &atom.verbs))
            && (has(&self.api_groups, "*") || has_all(&self.api_groups, &atom.api_groups))
            && resources
            && names
            && atom
                .non_resource_urls
                .iter()
                .all(|u| self.non_resource_urls.iter().any(|own| url_covers(own, u)))
    }

    /// As upstream's messages print a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    /// upstream: pkg/apis/rbac/helpers.go CompactString
    pub fn compact(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| {
            let quoted: Vec<String> = list.iter().map(|s| copepod_meta::field::quote(s)).collect();
            format!("{name}:[{}]", quoted.join(" "))
        })
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

fn url_covers(own: &str, path: &str) -> bool {
    own == "*" || own == path || (own.ends_with('*') && path.starts_with(own.trim_end_matches('*')))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((r, s)) => !subresource.is_empty() && s == subresource && (r == "*" || r == resource),
    }
}

/// The parts of `wanted` that `owned` does not cover; none: all is covered. upstream: Covers
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !owned.iter().any(|own| own.covers(atom))).collect()
}

/// A binding seen from one of its subjects.
#[derive(Debug)]
struct Grant {
    /// "" for a ClusterRoleBinding.
    namespace: String,
    /// `ClusterRoleBinding "x" of ClusterRole "y" to Group "z"`
    source: String,
    rules: Result<Arc<[Rule]>, String>,
}

#[derive(Debug, Default)]
struct Index {
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
    /// Order of upstream's walk: cluster bindings first, each kind in the order of the list.
    versions: [u64; 4],
}

/// The RBAC authorizer.
pub struct Rbac {
    lister: Arc<dyn Lister>,
    resources: [GroupResource; 4],
    index: Mutex<Arc<Index>>,
}

const CLUSTER_ROLE_BINDINGS: usize = 0;
const ROLE_BINDINGS: usize = 1;
const CLUSTER_ROLES: usize = 2;
const ROLES: usize = 3;

impl Rbac {
    /// Over the objects that `lister` shows.
    pub fn new(lister: Arc<dyn Lister>) -> Rbac {
        let names = ["clusterrolebindings", "rolebindings", "clusterroles", "roles"];
        let resources = names.map(|r| GroupResource::new("rbac.authorization.k8s.io", r));
        Rbac { lister, resources, index: Mutex::default() }
    }

    async fn index(&self) -> Result<Arc<Index>, Status> {
        // Taken before the objects are read: a change in between leads to one more rebuild, never to a stale index.
        let versions = std::array::from_fn(|i| self.lister.changed(&self.resources[i]));
        let known = self.index.lock().clone();
        if known.versions == versions && versions != [0; 4] {
            return Ok(known);
        }
        let mut lists = Vec::with_capacity(4);
        for resource in &self.resources {
            lists.push(self.lister.list(resource, "").await?);
        }
        let mut roles: HashMap<(String, String), Arc<[Rule]>> = HashMap::new();
        for role in lists[CLUSTER_ROLES].iter().chain(&lists[ROLES]) {
            let rules = role.object.list_at(&["rules"]).iter().map(Rule::from_value).collect();
            roles.insert(name_of(&role.object), rules);
        }
        let mut index = Index { versions, ..Index::default() };
        for binding in lists[CLUSTER_ROLE_BINDINGS].iter().chain(&lists[ROLE_BINDINGS]) {
            index.add(&binding.object, &roles);
        }
        let index = Arc::new(index);
        *self.index.lock() = index.clone();
        Ok(index)
    }

    /// All rules that a user has in `namespace` ("" = only cluster-wide ones), and what went wrong with single bindings.
    pub async fn rules(&self, user: &User, namespace: &str) -> Result<(Vec<Rule>, Vec<String>), Status> {
        let index = self.index().await?;
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in index.grants(user, namespace) {
            match &grant.rules {
                Ok(own) => rules.extend(own.iter().cloned()),
                Err(e) => errors.push(e.clone()),
            }
        }
        Ok((rules, errors))
    }

    /// The rules of a role reference, for escalation checks of bindings. `namespace`: of the binding.
    pub async fn role_rules(&self, role_ref: &Value, namespace: &str) -> Result<Vec<Rule>, Status> {
        let (kind, name) = (role_ref.str_at(&["kind"]), role_ref.str_at(&["name"]));
        let (resource, namespace) = match kind {
            "Role" => (&self.resources[ROLES], namespace),
            "ClusterRole" => (&self.resources[CLUSTER_ROLES], ""),
            other => return Err(Status::internal(format!("unsupported role reference kind: {other:?}"))),
        };
        match self.lister.get(resource, namespace, name).await? {
            Some(role) => Ok(role.object.list_at(&["rules"]).iter().map(Rule::from_value).collect()),
            None => Err(Status::not_found(resource, name)),
        }
    }
}

fn name_of(object: &Value) -> (String, String) {
    let metadata = object.get("metadata");
    (metadata.str_at(&["namespace"]).into(), metadata.str_at(&["name"]).into())
}

impl Index {
    fn add(&mut self, binding: &Value, roles: &HashMap<(String, String), Arc<[Rule]>>) {
        let (namespace, name) = name_of(binding);
        let (ref_kind, ref_name) =
            (binding.str_at(&["roleRef", "kind"]), binding.str_at(&["roleRef", "name"]));
        let (role_namespace, plural) = match ref_kind {
            "Role" => (namespace.clone(), "role"),
            _ => (String::new(), "clusterrole"),
        };
        let rules = match roles.get(&(role_namespace, ref_name.to_string())) {
            Some(rules) => Ok(rules.clone()),
            None => Err(format!("{plural}.rbac.authorization.k8s.io {ref_name:?} not found")),
        };
        for subject in binding.list_at(&["subjects"]) {
            let (kind, subject_name) = (subject.str_at(&["kind"]), subject.str_at(&["name"]));
            let own = subject.str_at(&["namespace"]);
            let subject_namespace = if own.is_empty() { namespace.as_str() } else { own };
            let (key, shown) = match kind {
                "User" | "Group" => (subject_name.to_string(), subject_name.to_string()),
                "ServiceAccount" if !subject_namespace.is_empty() => (
                    format!("system:serviceaccount:{subject_namespace}:{subject_name}"),
                    format!("{subject_name}/{subject_namespace}"),
                ),
                _ => continue,
            };
            let (binding_kind, shown_name) = match namespace.as_str() {
                "" => ("ClusterRoleBinding", name.clone()),
                ns => ("RoleBinding", format!("{name}/{ns}")),
            };
            let source =
                format!("{binding_kind} {shown_name:?} of {ref_kind} {ref_name:?} to {kind} {shown:?}");
            let grant = Arc::new(Grant { namespace: namespace.clone(), source, rules: rules.clone() });
            let map = if kind == "Group" { &mut self.groups } else { &mut self.users };
            map.entry(key).or_default().push(grant);
        }
    }

    fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Grant>> {
        let own = self.users.get(&user.name).into_iter();
        let groups = user.groups.iter().filter_map(|g| self.groups.get(g));
        own.chain(groups).flatten().filter(move |g| g.namespace.is_empty() || g.namespace == namespace)
    }
}

impl Authorizer for Rbac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Result<Decision, Status>> {
        Box::pin(async move {
            let index = self.index().await?;
            let mut errors: Vec<&str> = Vec::new();
            for grant in index.grants(&attributes.user, &attributes.namespace) {
                match &grant.rules {
                    Ok(rules) if rules.iter().any(|r| r.allows(attributes)) => {
                        return Ok(Decision::Allow { reason: format!("RBAC: allowed by {}", grant.source) });
                    }
                    Ok(_) => {}
                    Err(e) if errors.contains(&e.as_str()) => {}
                    Err(e) => errors.push(e),
                }
            }
            let reason = match errors.as_slice() {
                [] => String::new(),
                [one] => format!("RBAC: {one}"),
                many => format!("RBAC: [{}]", many.join(", ")),
            };
            Ok(Decision::NoOpinion { reason })
        })
    }

    fn rules_for<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<RulesFor, Status>> {
        Box::pin(async move {
            let (rules, errors) = self.rules(user, namespace).await?;
            let mut out = RulesFor { evaluation_error: errors.join(", "), ..RulesFor::default() };
            let list = |texts: &[String]| texts.iter().map(Value::string).collect::<Vec<Value>>();
            for rule in &rules {
                if !rule.resources.is_empty() {
                    let mut tree = Map::default();
                    for (key, texts) in [
                        ("verbs", &rule.verbs),
                        ("apiGroups", &rule.api_groups),
                        ("resources", &rule.resources),
                        ("resourceNames", &rule.resource_names),
                    ] {
                        if !texts.is_empty() {
                            tree.insert(key, list(texts));
                        }
                    }
                    out.resource_rules.push(Value::Map(tree));
                }
                if !rule.non_resource_urls.is_empty() {
                    let entries = [("verbs", &rule.verbs), ("nonResourceURLs", &rule.non_resource_urls)];
                    let tree: Map = entries.into_iter().map(|(k, texts)| (k, list(texts))).collect();
                    out.non_resource_rules.push(Value::Map(tree));
                }
            }
            Ok(out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copepod_meta::testing::{Objects, json as object};

    fn request(user: &str, groups: &[&str], what: &str) -> Attributes {
        let parts: Vec<&str> = what.split(' ').collect();
        let user = User {
            name: user.into(),
            groups: groups.iter().map(|g| g.to_string()).collect(),
            ..User::default()
        };
        let mut a = Attributes { user: Arc::new(user), verb: parts[0].into(), ..Attributes::default() };
        if parts[1].starts_with('/') {
            a.path = parts[1].into();
            return a;
        }
        let (resource, subresource) = parts[1].split_once('/').unwrap_or((parts[1], ""));
        (a.is_resource, a.resource, a.subresource) = (true, resource.into(), subresource.into());
        a.namespace = parts.get(2).unwrap_or(&"").to_string();
        a.name = parts.get(3).unwrap_or(&"").to_string();
        a
    }

    fn cluster() -> Rbac {
        let objects = Objects::default();
        let g = "rbac.authorization.k8s.io";
        let put = |objects: &Objects, resource, json: &str| objects.put(g, resource, object(json));
        put(
            &objects,
            "clusterroles",
            r#"{"metadata":{"name":"view"},"rules":[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods","pods/log","*/scale"]},{"verbs":["get"],"nonResourceURLs":["/healthz/*"]}]}"#,
        );
        put(
            &objects,
            "roles",
            r#"{"metadata":{"name":"one","namespace":"a"},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["secrets"],"resourceNames":["s"]}]}"#,
        );
        put(
            &objects,
            "clusterrolebindings",
            r#"{"metadata":{"name":"all"},"roleRef":{"kind":"ClusterRole","name":"view"},"subjects":[{"kind":"Group","name":"dev"}]}"#,
        );
        put(
            &objects,
            "rolebindings",
            r#"{"metadata":{"name":"rb","namespace":"a"},"roleRef":{"kind":"Role","name":"one"},"subjects":[{"kind":"ServiceAccount","name":"sa"}]}"#,
        );
        put(
            &objects,
            "rolebindings",
            r#"{"metadata":{"name":"lost","namespace":"a"},"roleRef":{"kind":"Role","name":"gone"},"subjects":[{"kind":"User","name":"bob"}]}"#,
        );
        Rbac::new(Arc::new(objects))
    }

    #[tokio::test]
    async fn decisions() {
        let rbac = cluster();
        let sa = "system:serviceaccount:a:sa";
        for (user, groups, what, want) in [
            (
                "al",
                vec!["dev"],
                "get pods x",
                r#"allow: RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "view" to Group "dev""#,
            ),
            (
                "al",
                vec!["dev"],
                "get pods/log x",
                r#"allow: RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "view" to Group "dev""#,
            ),
            (
                "al",
                vec!["dev"],
                "get deployments/scale x",
                r#"allow: RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "view" to Group "dev""#,
            ),
            ("al", vec!["dev"], "get deployments x", "no: "),
            ("al", vec!["dev"], "delete pods x", "no: "),
            (
                "al",
                vec!["dev"],
                "get /healthz/x",
                r#"allow: RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "view" to Group "dev""#,
            ),
            ("al", vec!["dev"], "get /metrics", "no: "),
            (
                sa,
                vec![],
                "update secrets a s",
                r#"allow: RBAC: allowed by RoleBinding "rb/a" of Role "one" to ServiceAccount "sa/a""#,
            ),
            (sa, vec![], "update secrets a t", "no: "),
            (sa, vec![], "update secrets b s", "no: "),
            ("bob", vec![], "get pods a", r#"no: RBAC: role.rbac.authorization.k8s.io "gone" not found"#),
        ] {
            let got = match rbac.authorize(&request(user, &groups, what)).await.expect("decides") {
                Decision::Allow { reason } => format!("allow: {reason}"),
                Decision::Deny { reason } => format!("deny: {reason}"),
                Decision::NoOpinion { reason } => format!("no: {reason}"),
            };
            assert_eq!(got, want, "{user} {what}");
        }
    }

    #[test]
    fn what_is_not_covered_is_named() {
        let rule = |verbs: &[&str], resources: &[&str], names: &[&str]| Rule {
            verbs: verbs.iter().map(|s| s.to_string()).collect(),
            api_groups: vec![String::new()],
            resources: resources.iter().map(|s| s.to_string()).collect(),
            resource_names: names.iter().map(|s| s.to_string()).collect(),
            ..Rule::default()
        };
        for (owned, wanted, want) in [
            (rule(&["*"], &["*"], &[]), rule(&["get"], &["pods"], &[]), ""),
            (
                rule(&["get"], &["pods"], &[]),
                rule(&["get", "list"], &["pods"], &[]),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#,
            ),
            (
                rule(&["get"], &["pods"], &["a"]),
                rule(&["get"], &["pods"], &[]),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#,
            ),
            (rule(&["get"], &["pods"], &[]), rule(&["get"], &["pods"], &["a"]), ""),
            (rule(&["get"], &["*/scale"], &[]), rule(&["get"], &["pods/scale"], &[]), ""),
        ] {
            let got: Vec<String> = uncovered(&[owned], &[wanted]).iter().map(Rule::compact).collect();
            assert_eq!(got.join(";"), want);
        }
        let urls = |verb: &str, urls: &[&str]| Rule {
            verbs: vec![verb.into()],
            non_resource_urls: urls.iter().map(|s| s.to_string()).collect(),
            ..Rule::default()
        };
        for (owned, wanted, want) in [
            (urls("get", &["/metrics/*"]), urls("get", &["/metrics/a"]), ""),
            (urls("*", &["*"]), urls("post", &["/a", "/b/*"]), ""),
            (
                urls("get", &["/metrics/*"]),
                urls("get", &["/metrics/a", "/other"]),
                r#"{NonResourceURLs:["/other"], Verbs:["get"]}"#,
            ),
            (
                rule(&["get"], &["pods"], &[]),
                Rule { api_groups: vec!["*".into()], ..rule(&["get"], &["pods"], &[]) },
                r#"{APIGroups:["*"], Resources:["pods"], Verbs:["get"]}"#,
            ),
        ] {
            let got: Vec<String> = uncovered(&[owned], &[wanted]).iter().map(Rule::compact).collect();
            assert_eq!(got.join(";"), want);
        }
    }
}
