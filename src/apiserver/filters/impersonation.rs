//! Requests of one user in the name of another.
//!
//! A user needs one of several rights, and the first that it has counts: to do just this request as a node, a service account or
//! any other user (`impersonate-on:<mode>:<verb>` together with `impersonate:<mode>`), or the old right to be that user in
//! everything (`impersonate`). Who has none reads what the first one lacked.
//!
//! upstream: endpoints/filters/impersonation (feature ConstrainedImpersonation); its caches of verdicts are left out

use std::sync::Arc;

use copepod_meta::field::quote;
use copepod_meta::{Attributes, Authorizer, Decision, Status, User, names};
use http::HeaderMap;

use super::forbidden;

const AUTHENTICATION: &str = "authentication.k8s.io";
/// So many groups or extras are first asked for at once, as `*`.
const MANY: usize = 4;
const NODE_PREFIX: &str = "system:node:";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// How somebody else may be impersonated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The node on which the asking service account's pod runs.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Everybody else.
    UserInfo,
    /// Anybody, for all requests.
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

impl Mode {
    /// The mode's word in verbs; "" for the old right.
    fn word(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Mode::Legacy => "impersonate".into(),
            mode => format!("impersonate:{}", mode.word()),
        }
    }

    /// Whether the mode is for this user at all.
    fn applies(self, wanted: &Impersonated, asker: &User) -> bool {
        match self {
            Mode::AssociatedNode => wanted.only_name() && is_on_node(asker, &wanted.name),
            Mode::ArbitraryNode => wanted.only_name() && node_name(&wanted.name).is_some(),
            Mode::ServiceAccount => wanted.only_name() && service_account(&wanted.name).is_some(),
            Mode::UserInfo => node_name(&wanted.name).is_none() && service_account(&wanted.name).is_none(),
            Mode::Legacy => true,
        }
    }
}

/// Whom a request wants to be.
pub(super) struct Impersonated {
    pub(super) name: String,
    uid: String,
    groups: Vec<String>,
    extra: Vec<(String, Vec<String>)>,
}

impl Impersonated {
    /// From the headers; `None`: nobody else.
    pub(super) fn of(headers: &HeaderMap) -> Option<Impersonated> {
        if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return None;
        }
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_string();
        let all =
            |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_string);
        let mut extra: Vec<(String, Vec<String>)> = Vec::new();
        for (name, value) in headers {
            let (Some(key), Ok(value)) = (name.as_str().strip_prefix("impersonate-extra-"), value.to_str())
            else {
                continue;
            };
            let key = copepod_meta::url::unescape_path_or_keep(key).into_owned();
            match extra.iter_mut().find(|(k, _)| *k == key) {
                Some((_, values)) => values.push(value.into()),
                None => extra.push((key, vec![value.into()])),
            }
        }
        extra.sort();
        let asked = Impersonated {
            name: text("impersonate-user"),
            uid: text("impersonate-uid"),
            groups: all("impersonate-group").collect(),
            extra,
        };
        let empty = asked.name.is_empty()
            && asked.uid.is_empty()
            && asked.groups.is_empty()
            && asked.extra.is_empty();
        (!empty).then_some(asked)
    }

    fn only_name(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }

    /// Whether the asker may do its request as this user; whom it is then.
    pub(super) async fn allowed(
        &self,
        authorizer: &dyn Authorizer,
        request: &Attributes,
    ) -> Result<User, Status> {
        let mut first = None;
        for mode in MODES.into_iter().filter(|mode| mode.applies(self, &request.user)) {
            match self.allowed_by(mode, authorizer, request).await {
                Ok(()) => return Ok(self.user(mode)),
                Err(refusal) => first = first.or(Some(refusal)),
            }
        }
        // The old right applies to everybody, so there is a refusal.
        Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }

    async fn allowed_by(
        &self,
        mode: Mode,
        authorizer: &dyn Authorizer,
        request: &Attributes,
    ) -> Result<(), Status> {
        let mut asker = Arc::clone(&request.user);
        if mode == Mode::AssociatedNode {
            // The verdict is the same for all nodes that the account runs on: the node's name is none of the authorizer's business.
            let mut keys: Vec<String> = asker.extra.iter().map(|(key, _)| key.clone()).collect();
            keys.sort();
            Arc::make_mut(&mut asker).extra =
                vec![("authentication.kubernetes.io/associated-node-keys".into(), keys)];
        }
        if mode != Mode::Legacy {
            let on = Attributes {
                user: Arc::clone(&asker),
                verb: format!("impersonate-on:{}:{}", mode.word(), request.verb),
                ..request.clone()
            };
            check(authorizer, &on).await?;
        }
        let asking = Asking { authorizer, asker, mode };
        self.name_allowed(&asking).await?;
        if !self.uid.is_empty() {
            check(authorizer, &asking.about(AUTHENTICATION, "uids", "", &self.uid)).await?;
        }
        self.groups_allowed(&asking).await?;
        self.extra_allowed(&asking).await
    }

    async fn name_allowed(&self, asking: &Asking<'_>) -> Result<(), Status> {
        let group = asking.group();
        let mut about = asking.about(group, "users", "", &self.name);
        if asking.mode != Mode::Legacy
            && let Some(node) = node_name(&self.name)
        {
            about.resource = "nodes".into();
            about.name = if asking.mode == Mode::AssociatedNode { "*".into() } else { node.into() };
        }
        if let Some((namespace, name)) = service_account(&self.name) {
            about.resource = "serviceaccounts".into();
            (about.namespace, about.name) = (namespace.into(), name.into());
        }
        check(asking.authorizer, &about).await
    }

    async fn groups_allowed(&self, asking: &Asking<'_>) -> Result<(), Status> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let about = |name: &str| asking.about(asking.group(), "groups", "", name);
        if asking.mode != Mode::Legacy {
            if self.groups.iter().any(String::is_empty) {
                return Err(forbidden(&about(""), "impersonating the empty string group is not allowed"));
            }
            if self.groups.iter().any(|g| g == "system:masters") {
                let why = "impersonating the system:masters group is not allowed";
                return Err(forbidden(&about("system:masters"), why));
            }
            if self.groups.len() >= MANY && check(asking.authorizer, &about("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in &self.groups {
            check(asking.authorizer, &about(group)).await?;
        }
        Ok(())
    }

    async fn extra_allowed(&self, asking: &Asking<'_>) -> Result<(), Status> {
        if self.extra.is_empty() {
            return Ok(());
        }
        let about = |key: &str, value: &str| asking.about(AUTHENTICATION, "userextras", key, value);
        if asking.mode != Mode::Legacy {
            if let Some(why) = self.bad_extra() {
                return Err(forbidden(&about("", ""), &why));
            }
            let values: usize = self.extra.iter().map(|(_, values)| values.len()).sum();
            if values >= MANY && check(asking.authorizer, &about("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in &self.extra {
            for value in values {
                check(asking.authorizer, &about(key, value)).await?;
            }
        }
        Ok(())
    }

    /// upstream: validateExtra; header names are lower case already
    fn bad_extra(&self) -> Option<String> {
        for (key, values) in &self.extra {
            if key.is_empty() {
                return Some("impersonating the empty string key in extra is not allowed".into());
            }
            let is_path = key.split_once('/').is_some_and(|(domain, path)| {
                !path.is_empty() && names::dns1123_subdomain(domain).is_empty()
            });
            if !is_path {
                let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                let key = quote(key);
                return Some(format!(
                    "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key}: {why}"
                ));
            }
            if values.iter().any(String::is_empty) {
                return Some("impersonating the empty string value in extra is not allowed".into());
            }
        }
        None
    }

    /// As Go prints the user that the headers describe.
    pub(super) fn print(&self) -> String {
        let quoted = |list: &[String]| list.iter().map(|g| quote(g)).collect::<Vec<_>>().join(", ");
        let groups = match self.groups.as_slice() {
            [] => "[]string(nil)".to_string(),
            groups => format!("[]string{{{}}}", quoted(groups)),
        };
        let extra = match self.extra.as_slice() {
            [] => "map[string][]string(nil)".to_string(),
            extra => {
                let pairs: Vec<String> =
                    extra.iter().map(|(k, v)| format!("{}:[]string{{{}}}", quote(k), quoted(v))).collect();
                format!("map[string][]string{{{}}}", pairs.join(", "))
            }
        };
        let uid = quote(&self.uid);
        format!("&user.DefaultInfo{{Name:\"\", UID:{uid}, Groups:{groups}, Extra:{extra}}}")
    }

    fn user(&self, mode: Mode) -> User {
        let mut groups = self.groups.clone();
        if let Some((namespace, _)) = service_account(&self.name)
            && groups.is_empty()
        {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        if matches!(mode, Mode::AssociatedNode | Mode::ArbitraryNode) {
            groups = vec!["system:nodes".into()];
        }
        let special =
            if self.name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
        let has_one = |g: &String| g == "system:authenticated" || g == "system:unauthenticated";
        if !groups.iter().any(has_one) {
            groups.push(special.into());
        }
        User { name: self.name.clone(), uid: self.uid.clone(), groups, extra: self.extra.clone() }
    }
}

/// Who asks whom in which mode.
struct Asking<'a> {
    authorizer: &'a dyn Authorizer,
    asker: Arc<User>,
    mode: Mode,
}

impl Asking<'_> {
    /// The API group of users and groups.
    fn group(&self) -> &'static str {
        if self.mode == Mode::Legacy { "" } else { AUTHENTICATION }
    }

    fn about(&self, group: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
        Attributes {
            user: Arc::clone(&self.asker),
            verb: self.mode.verb(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        }
    }
}

/// upstream: checkAuthorization
async fn check(authorizer: &dyn Authorizer, attributes: &Attributes) -> Result<(), Status> {
    match authorizer.authorize(attributes).await {
        Ok(Decision::Allow { .. }) => Ok(()),
        Ok(Decision::Deny { reason } | Decision::NoOpinion { reason }) => Err(forbidden(attributes, &reason)),
        Err(error) if error.code == 403 => Err(error),
        Err(error) => Err(forbidden(attributes, &error.message)),
    }
}

fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| names::dns1123_subdomain(name).is_empty())
}

/// upstream: authentication/serviceaccount SplitUsername
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let good = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    good.then_some((namespace, name))
}

/// Whether the asker is a service account whose pod runs on the node of this name.
fn is_on_node(asker: &User, node_user: &str) -> bool {
    let on = |(key, values): &(String, Vec<String>)| {
        key == NODE_NAME && matches!(values.as_slice(), [node] if Some(node.as_str()) == node_name(node_user))
    };
    service_account(&asker.name).is_some() && asker.extra.iter().any(on)
}

#[cfg(test)]
mod tests {
    use super::*;
    use copepod_meta::{BoxFuture, RulesFor};
    use std::sync::Mutex;

    /// Allows `verb resource name` lines, and remembers what was asked.
    struct Rights(&'static [&'static str], Mutex<Vec<String>>);

    impl Authorizer for Rights {
        fn authorize<'a>(&'a self, a: &'a Attributes) -> BoxFuture<'a, Result<Decision, Status>> {
            let asked = format!("{} {} {}", a.verb, a.resource, a.name);
            let decision = match self.0.contains(&asked.as_str()) {
                true => Decision::Allow { reason: String::new() },
                false => Decision::NoOpinion { reason: String::new() },
            };
            self.1.lock().expect("not poisoned").push(asked);
            Box::pin(std::future::ready(Ok(decision)))
        }
        fn rules_for<'a>(&'a self, _: &'a User, _: &'a str) -> BoxFuture<'a, Result<RulesFor, Status>> {
            Box::pin(std::future::ready(Ok(RulesFor::default())))
        }
    }

    fn wanted(name: &str, groups: &[&str]) -> Impersonated {
        let groups = groups.iter().map(|g| (*g).to_string()).collect();
        Impersonated { name: name.into(), uid: String::new(), groups, extra: Vec::new() }
    }

    /// Rights, whom somebody wants to be, and what comes of it. upstream: constrained_impersonation_test.go
    #[tokio::test]
    async fn one_right_of_several_is_needed() {
        let node = "system:node:n";
        for (rights, name, groups, want) in [
            (&["impersonate users bob"][..], "bob", &[][..], "bob system:authenticated"),
            (
                &["impersonate-on:user-info:list pods ", "impersonate:user-info users bob"],
                "bob",
                &[],
                "bob system:authenticated",
            ),
            (&["impersonate:user-info users bob"], "bob", &[], "impersonate-on:user-info:list pods"),
            (&["impersonate-on:user-info:list pods "], "bob", &[], "impersonate:user-info users"),
            (
                &["impersonate-on:arbitrary-node:list pods ", "impersonate:arbitrary-node nodes n"],
                node,
                &[],
                "system:node:n system:nodes,system:authenticated",
            ),
            (
                &["impersonate-on:associated-node:list pods ", "impersonate:associated-node nodes *"],
                node,
                &[],
                "system:node:n system:nodes,system:authenticated",
            ),
            (
                &["impersonate-on:serviceaccount:list pods ", "impersonate:serviceaccount serviceaccounts a"],
                "system:serviceaccount:x:a",
                &[],
                "system:serviceaccount:x:a system:serviceaccounts,system:serviceaccounts:x,system:authenticated",
            ),
            (
                &["impersonate-on:user-info:list pods ", "impersonate:user-info users bob"],
                "bob",
                &["system:masters"],
                "impersonate:user-info groups",
            ),
            (&["impersonate users bob", "impersonate groups g"], "bob", &["g"], "bob g,system:authenticated"),
        ] {
            let authorizer = Rights(rights, Mutex::default());
            let asker = User {
                name: "system:serviceaccount:kube-system:agent".into(),
                extra: vec![(NODE_NAME.into(), vec!["n".into()])],
                ..User::default()
            };
            let request = Attributes {
                user: Arc::new(asker),
                verb: "list".into(),
                resource: "pods".into(),
                is_resource: true,
                ..Attributes::default()
            };
            let got = match wanted(name, groups).allowed(&authorizer, &request).await {
                Ok(user) => format!("{} {}", user.name, user.groups.join(",")),
                Err(status) => {
                    let words: Vec<&str> = status.message.split_whitespace().collect();
                    let cannot = words.iter().position(|w| *w == "cannot").expect("a refusal");
                    format!("{} {}", words[cannot + 1], words[cannot + 3].trim_matches('"'))
                }
            };
            assert_eq!(got, want, "{rights:?} {name}");
        }
    }
}
