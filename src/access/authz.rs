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
