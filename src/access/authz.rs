//! The ordered chain of authorizers, as `--authorization-mode` names them.
//!
//! `system:masters` may do anything, before anybody else is asked. The first word that is no "no opinion" counts; when
//! nobody has an opinion the answer is no. An authorizer that fails does not stop the ones after it from allowing.
//!
//! upstream: apiserver/pkg/authorization/union/union.go

use crate::node::NodeAuthorizer;
use crate::rbac::Rbac;
use copepod_meta::{Attributes, Authorizer, BoxFuture, Decision, Lister, Map, RulesFor, Status, User, Value};
use std::sync::Arc;

/// An authorization mode that is not known.
#[derive(Debug, thiserror::Error)]
pub enum ModeError {
    /// No such mode, or one that is not supported.
    #[error("authorization-mode {0:?} is not a valid mode")]
    Unknown(String),
    /// Named twice.
    #[error("authorization-mode {0:?} is specified more than once")]
    Duplicate(String),
    /// No mode at all.
    #[error("at least one authorization-mode must be passed")]
    None,
}

/// The chain.
pub struct AuthorizerChain {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl AuthorizerChain {
    /// For modes such as `Node,RBAC`.
    pub fn from_modes(modes: &[String], lister: Arc<dyn Lister>) -> Result<AuthorizerChain, ModeError> {
        let mut authorizers: Vec<Arc<dyn Authorizer>> = Vec::new();
        for (i, mode) in modes.iter().enumerate() {
            if modes[..i].contains(mode) {
                return Err(ModeError::Duplicate(mode.clone()));
            }
            authorizers.push(match mode.as_str() {
                "Node" => Arc::new(NodeAuthorizer::new(lister.clone())),
                "RBAC" => Arc::new(Rbac::new(lister.clone())),
                "AlwaysAllow" => Arc::new(Always(true)),
                "AlwaysDeny" => Arc::new(Always(false)),
                _ => return Err(ModeError::Unknown(mode.clone())),
            });
        }
        if authorizers.is_empty() {
            return Err(ModeError::None);
        }
        Ok(AuthorizerChain { authorizers })
    }
}

impl Authorizer for AuthorizerChain {
    fn authorize<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Result<Decision, Status>> {
        Box::pin(async move {
            if attributes.user.in_group("system:masters") {
                return Ok(Decision::Allow { reason: String::new() });
            }
            let (mut reasons, mut failure) = (Vec::new(), None);
            for authorizer in &self.authorizers {
                match authorizer.authorize(attributes).await {
                    Ok(Decision::NoOpinion { reason }) if reason.is_empty() => {}
                    Ok(Decision::NoOpinion { reason }) => reasons.push(reason),
                    Ok(decided) => return Ok(decided),
                    Err(e) => {
                        tracing::warn!(error = %e, "an authorizer could not decide");
                        failure = Some(e);
                    }
                }
            }
            match failure {
                // Nobody else allowed it: that one authorizer failed must not look like a plain "no".
                Some(e) => Err(e),
                None => Ok(Decision::NoOpinion { reason: reasons.join("\n") }),
            }
        })
    }

    fn rules_for<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<RulesFor, Status>> {
        Box::pin(async move {
            let mut out = RulesFor::default();
            if user.in_group("system:masters") {
                out = everything();
            }
            let mut errors = Vec::new();
            for authorizer in &self.authorizers {
                let own = authorizer.rules_for(user, namespace).await?;
                out.resource_rules.extend(own.resource_rules);
                out.non_resource_rules.extend(own.non_resource_rules);
                out.incomplete |= own.incomplete;
                if !own.evaluation_error.is_empty() {
                    errors.push(own.evaluation_error);
                }
            }
            out.evaluation_error = errors.join(", ");
            Ok(out)
        })
    }
}

fn everything() -> RulesFor {
    let star = || Value::List(vec![Value::string("*")]);
    let rule = |keys: &[&str]| Value::Map(keys.iter().map(|k| (*k, star())).collect::<Map>());
    RulesFor {
        resource_rules: vec![rule(&["verbs", "apiGroups", "resources"])],
        non_resource_rules: vec![rule(&["verbs", "nonResourceURLs"])],
        ..RulesFor::default()
    }
}

/// `AlwaysAllow` and `AlwaysDeny`: for tests.
struct Always(bool);

impl Authorizer for Always {
    fn authorize<'a>(&'a self, _attributes: &'a Attributes) -> BoxFuture<'a, Result<Decision, Status>> {
        let decision = match self.0 {
            true => Decision::Allow { reason: String::new() },
            false => Decision::NoOpinion { reason: "Everything is forbidden.".into() },
        };
        Box::pin(async move { Ok(decision) })
    }
    fn rules_for<'a>(
        &'a self,
        _user: &'a User,
        _namespace: &'a str,
    ) -> BoxFuture<'a, Result<RulesFor, Status>> {
        let rules = if self.0 { everything() } else { RulesFor::default() };
        Box::pin(async move { Ok(rules) })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A lister over objects in memory.

    use copepod_meta::{BoxFuture, GroupResource, Listed, Lister, Map, ResourceVersion, Status, Value};
    use std::sync::Arc;

    /// Objects by resource.
    #[derive(Default)]
    pub struct Objects(Vec<(GroupResource, Listed)>);

    impl Objects {
        pub fn put(&mut self, group: &str, resource: &str, object: Value) {
            let listed =
                Listed { object: Arc::new(object), revision: ResourceVersion(self.0.len() as u64 + 1) };
            self.0.push((GroupResource::new(group, resource), listed));
        }
        fn find(&self, resource: &GroupResource, namespace: &str, name: &str) -> Vec<Listed> {
            let matching = self.0.iter().filter(|(r, l)| {
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
            self.0.iter().filter(|(r, _)| r == resource).map(|(_, l)| l.revision.0).max().unwrap_or(0)
        }
    }

    /// A tree from JSON text.
    pub fn object(json: &str) -> Value {
        from_json(&serde_json::from_str(json).expect("JSON"))
    }

    fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Int(n.as_i64().expect("an integer")),
            serde_json::Value::String(s) => Value::string(s),
            serde_json::Value::Array(items) => Value::List(items.iter().map(from_json).collect()),
            serde_json::Value::Object(members) => {
                Value::Map(members.iter().map(|(k, v)| (k.as_str(), from_json(v))).collect::<Map>())
            }
        }
    }
}
