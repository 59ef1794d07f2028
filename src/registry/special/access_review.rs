//! The `*AccessReview` family: may somebody do something; and `SelfSubjectRulesReview`: what may I do.
//!
//! upstream: pkg/registry/authorization, pkg/apis/authorization/validation

use std::sync::Arc;

use copepod_meta::{Attributes, Decision, ErrorList, FieldError, Map, Path, Status, User, Value};

use super::{Answered, Ask, Special};
use crate::api::{Answer, Body, WriteOptions};
use crate::metadata::ensure_namespace;

pub(super) struct SubjectAccessReview;
pub(super) struct LocalSubjectAccessReview;
pub(super) struct SelfSubjectAccessReview;
pub(super) struct SelfSubjectRulesReview;

/// What the three access reviews differ in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Anybody's rights.
    Subject,
    /// Anybody's, in the namespace of the request.
    LocalSubject,
    /// The caller's own.
    Own,
}

impl Special for SubjectAccessReview {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(review(ask, body, options, Whose::Subject))
    }
}

impl Special for LocalSubjectAccessReview {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(review(ask, body, options, Whose::LocalSubject))
    }
}

impl Special for SelfSubjectAccessReview {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(review(ask, body, options, Whose::Own))
    }
}

impl Special for SelfSubjectRulesReview {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(rules(ask, body, options))
    }
}

async fn review(ask: Ask<'_>, body: Body, options: &WriteOptions, whose: Whose) -> Result<Answer, Status> {
    let mut review = ask.decode_owned(&body, options)?;
    let namespace = ask.target.namespace.as_str();
    if whose == Whose::LocalSubject {
        ensure_namespace(&mut review, namespace)?;
    }
    let errors = validate(&review, whose);
    if !errors.is_empty() {
        // upstream reads the kind off an object that has none.
        return Err(Status::invalid(super::AUTHORIZATION, "", "", &errors));
    }
    let user = match whose {
        Whose::Own => ask.caller.user.clone(),
        _ => Arc::new(subject(review.get("spec"))),
    };
    let attributes = attributes(user, review.get("spec"));
    let decision = ask.registry.deciders().authorizer.authorize(&attributes).await;
    let mut status = Map::default();
    let (allowed, denied, reason, error) = match decision {
        Ok(Decision::Allow { reason }) => (true, false, reason, String::new()),
        Ok(Decision::Deny { reason }) => (false, true, reason, String::new()),
        Ok(Decision::NoOpinion { reason }) => (false, false, reason, String::new()),
        Err(status) => (false, false, String::new(), status.message),
    };
    // `allowed` is written whether true or not.
    status.insert("allowed", allowed);
    if denied {
        status.insert("denied", true);
    }
    for (member, text) in [("reason", reason), ("evaluationError", error)] {
        if !text.is_empty() {
            status.insert(member, text);
        }
    }
    review.set(&["status"], status);
    ask.answer(201, review)
}

/// upstream: AuthorizationAttributesFrom
fn subject(spec: &Value) -> User {
    let texts = |value: &Value| -> Vec<String> {
        value.list_at(&[]).iter().filter_map(|v| v.as_str().map(str::to_string)).collect()
    };
    User {
        name: spec.str_at(&["user"]).into(),
        uid: spec.str_at(&["uid"]).into(),
        groups: texts(spec.get("groups")),
        extra: spec.map_at(&["extra"]).iter().map(|(k, v)| (k.to_string(), texts(v))).collect(),
    }
}

fn attributes(user: Arc<User>, spec: &Value) -> Attributes {
    let resource = spec.get("resourceAttributes");
    if resource.is_null() {
        let path = spec.get("nonResourceAttributes");
        return Attributes {
            user,
            path: path.str_at(&["path"]).into(),
            verb: path.str_at(&["verb"]).into(),
            ..Attributes::default()
        };
    }
    let text = |member: &str| resource.str_at(&[member]).to_string();
    let version = Some(text("version")).filter(|v| !v.is_empty()).unwrap_or_else(|| "*".into());
    Attributes {
        user,
        verb: text("verb"),
        namespace: text("namespace"),
        group: text("group"),
        version,
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        is_resource: true,
        field_selector: resource.str_at(&["fieldSelector", "rawSelector"]).into(),
        label_selector: resource.str_at(&["labelSelector", "rawSelector"]).into(),
        ..Attributes::default()
    }
}

/// upstream: ValidateSubjectAccessReview, ValidateLocalSubjectAccessReview, ValidateSelfSubjectAccessReview
fn validate(review: &Value, whose: Whose) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec_path = Path::new("spec");
    let spec = review.get("spec");
    let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    if !resource.is_null() && !path.is_null() {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid(&spec_path.child("nonResourceAttributes"), path, why));
    }
    if resource.is_null() && path.is_null() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid(&spec_path.child("resourceAttributes"), path, why));
    }
    if whose != Whose::Own && spec.str_at(&["user"]).is_empty() && spec.list_at(&["groups"]).is_empty() {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid_str(&spec_path.child("user"), "", why));
    }
    for selector in ["fieldSelector", "labelSelector"] {
        validate_selector(resource.get(selector), selector, &mut errors);
    }
    let mut meta = review.get("metadata").clone();
    meta.remove(&["managedFields"]);
    if whose == Whose::LocalSubject {
        let namespace = meta.remove(&["namespace"]).unwrap_or_default();
        validate_local(spec, namespace.as_str().unwrap_or(""), &mut errors);
    }
    if !meta.is_empty() {
        let only = if whose == Whose::LocalSubject { " except for namespace" } else { "" };
        let why = format!("must be empty{only}");
        errors.push(FieldError::invalid(&Path::new("metadata"), review.get("metadata"), why));
    }
    errors
}

fn validate_local(spec: &Value, namespace: &str, errors: &mut ErrorList) {
    let resource = spec.get("resourceAttributes");
    let own = resource.str_at(&["namespace"]);
    if !resource.is_null() && own != namespace {
        let path = Path::new("spec.resourceAttributes.namespace");
        errors.push(FieldError::invalid_str(&path, own, "must match metadata.namespace"));
    }
    let path = spec.get("nonResourceAttributes");
    if !path.is_null() {
        let at = Path::new("spec.nonResourceAttributes");
        errors.push(FieldError::invalid(&at, path, "disallowed on this kind of request"));
    }
}

fn validate_selector(selector: &Value, name: &str, errors: &mut ErrorList) {
    if selector.is_null() {
        return;
    }
    let attributes = Path::new("spec.resourceAttributes");
    let path = attributes.child(name);
    let raw = selector.str_at(&["rawSelector"]);
    let requirements = selector.list_at(&["requirements"]);
    if !raw.is_empty() && !requirements.is_empty() {
        let why = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid_str(&path.child("rawSelector"), raw, why));
    }
    if raw.is_empty() && requirements.is_empty() {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(&path.child("requirements"), why));
    }
}

async fn rules(ask: Ask<'_>, body: Body, options: &WriteOptions) -> Result<Answer, Status> {
    let review = ask.decode(&body, options)?;
    let namespace = review.str_at(&["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let found = ask.registry.deciders().authorizer.rules_for(&ask.caller.user, namespace).await?;
    let mut status = Map::default();
    status.insert("resourceRules", found.resource_rules);
    status.insert("nonResourceRules", found.non_resource_rules);
    status.insert("incomplete", found.incomplete);
    if !found.evaluation_error.is_empty() {
        status.insert("evaluationError", found.evaluation_error);
    }
    let mut answer = Value::map();
    answer.set(&["status"], status);
    ask.answer(201, answer)
}
