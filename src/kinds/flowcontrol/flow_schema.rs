//! FlowSchema. upstream: pkg/registry/flowcontrol/flowschema/strategy.go, pkg/apis/flowcontrol/validation

use copepod_meta::{ErrorList, FieldError, Value, names};

use super::{conditions, keep_metadata, texts};
use crate::cells::{self, NONE};
use crate::check::At;
use crate::core::pod::defaults::fill;
use crate::equality::same_as;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct FlowSchema;
/// `flowschemas/status`
pub struct FlowSchemaStatus;

const SPEC: &str = "io.k8s.api.flowcontrol.v1.FlowSchemaSpec";

fn default(schema: &mut Value) {
    fill(schema.make(&["spec"]), "matchingPrecedence", 1000);
}

impl Strategy for FlowSchema {
    fn default(&self, _version: &str, schema: &mut Value) {
        default(schema);
    }
    fn prepare_create(&self, _cx: &Context, schema: &mut Value) {
        clear_status(schema);
        schema.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, schema: &mut Value, old: &Value) {
        bump_generation_if_changed(schema, old, SPEC);
        keep(schema, old, "status");
    }
    fn validate_create(&self, _cx: &Context, schema: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(schema, e);
        validate(schema, e);
    }
    fn validate_update(&self, _cx: &Context, schema: &Value, _old: &Value, e: &mut ErrorList) {
        metadata::validate_core(schema, false, &names::dns1123_subdomain_prefixed, e);
        validate(schema, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("flowcontrol/FlowSchema")
    }
    fn row(&self, schema: &Value) -> Row {
        let spec = schema.get("spec");
        let method = spec.get("distinguisherMethod");
        let conditions = schema.list_at(&["status", "conditions"]).iter();
        let dangling =
            conditions.filter(|c| c.str_at(&["type"]) == "Dangling").map(|c| c.str_at(&["status"])).next();
        cells::row([
            cells::name(schema),
            spec.str_at(&["priorityLevelConfiguration", "name"]).into(),
            spec.int_at(&["matchingPrecedence"]).into(),
            (if method.is_null() { NONE } else { method.str_at(&["type"]) }).into(),
            cells::age(schema),
            dangling.unwrap_or("?").into(),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&FlowSchemaStatus as &dyn Strategy)
    }
}

impl Strategy for FlowSchemaStatus {
    fn prepare_update(&self, _cx: &Context, schema: &mut Value, old: &Value) {
        keep_metadata(schema, old);
        keep(schema, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, schema: &Value, _old: &Value, e: &mut ErrorList) {
        conditions(At::root(schema).get("status.conditions"), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"], &["spec"]]
    }
}

/// The spec that a schema of this name must have. upstream: bootstrap.MandatoryFlowSchemas
fn mandatory(name: &str) -> Option<Value> {
    let (precedence, groups) = match name {
        "exempt" => (1, &["system:masters"][..]),
        "catch-all" => (10_000, &["system:unauthenticated", "system:authenticated"][..]),
        _ => return None,
    };
    let mut spec = Value::map();
    spec.set(&["priorityLevelConfiguration", "name"], name);
    spec.set(&["matchingPrecedence"], precedence);
    if name == "catch-all" {
        spec.set(&["distinguisherMethod", "type"], "ByUser");
    }
    let group = |name: &&str| {
        let mut subject = Value::map();
        subject.set(&["kind"], "Group");
        subject.set(&["group", "name"], *name);
        subject
    };
    let all = || texts(&["*"]);
    let (mut resources, mut urls, mut rule) = (Value::map(), Value::map(), Value::map());
    for member in ["verbs", "apiGroups", "resources", "namespaces"] {
        resources.set(&[member], all());
    }
    resources.set(&["clusterScope"], true);
    urls.set(&["verbs"], all());
    urls.set(&["nonResourceURLs"], all());
    rule.set(&["subjects"], groups.iter().map(group).collect::<Vec<_>>());
    rule.set(&["resourceRules"], vec![resources]);
    rule.set(&["nonResourceRules"], vec![urls]);
    spec.set(&["rules"], vec![rule]);
    Some(spec)
}

/// upstream: ValidateFlowSchema
fn validate(schema: &Value, e: &mut ErrorList) {
    let root = At::root(schema);
    let spec = root.get("spec");
    let name = schema.str_at(&["metadata", "name"]);
    validate_spec(spec, name, e);
    if mandatory(name).is_some_and(|wanted| !same_as(spec.value, &wanted, SPEC)) {
        let empty = Value::map();
        let value = if spec.is_set() { spec.value } else { &empty };
        let printed = print::internal(value, "flowcontrol/FlowSchemaSpec");
        spec.invalid_printed(e, printed, format!("spec of '{name}' must equal the fixed value"));
    }
    conditions(root.get("status.conditions"), e);
}

fn validate_spec(spec: At, name: &str, e: &mut ErrorList) {
    const PRECEDENCE_MAX: i64 = 10_000;
    let precedence = spec.get("matchingPrecedence");
    match precedence.int() {
        ..=0 => precedence.invalid_int(e, "must be a positive value"),
        1 if name != "exempt" => {
            precedence.invalid(e, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        n if n > PRECEDENCE_MAX => {
            precedence.invalid(e, format!("must not be greater than {PRECEDENCE_MAX}"));
        }
        _ => {}
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() && !matches!(method.get("type").str(), "ByNamespace" | "ByUser") {
        let ty = method.get("type");
        let mut error = FieldError::not_supported(&ty.path, ty.value, &["ByNamespace", "ByUser"]);
        error.value = Some(print::internal(method.value, "flowcontrol/FlowDistinguisherMethod"));
        e.push(error);
    }
    let level = spec.get("priorityLevelConfiguration.name");
    match level.is_empty() {
        true => level.required(e, "must reference a priority level"),
        false => level.dns_subdomain(e),
    }
    for rule in spec.get("rules").items() {
        let subjects = rule.get("subjects");
        if subjects.is_empty() {
            subjects.required(e, "subjects must contain at least one value");
        }
        for item in subjects.items() {
            subject(item, e);
        }
        let (resources, urls) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
        if resources.is_empty() && urls.is_empty() {
            rule.required(e, "at least one of resourceRules and nonResourceRules has to be non-empty");
        }
        for item in resources.items() {
            resource_rule(item, e);
        }
        for item in urls.items() {
            url_rule(item, e);
        }
    }
}

/// upstream: ValidateFlowSchemaSubject
fn subject(at: At, e: &mut ErrorList) {
    // Member, kind; in the order in which misplaced ones are reported.
    const KINDS: [(&str, &str); 3] =
        [("serviceAccount", "ServiceAccount"), ("user", "User"), ("group", "Group")];
    let kind = at.get("kind");
    let Some((own, _)) = KINDS.iter().find(|(_, k)| *k == kind.str()) else {
        return kind.not_supported(e, &["Group", "ServiceAccount", "User"]);
    };
    let subject = at.get(own);
    if !subject.is_set() {
        subject.required(e, &format!("{own} is required when subject kind is '{}'", kind.str()));
    } else {
        let (name, namespace) = (subject.get("name"), subject.get("namespace"));
        let named = name.need(e);
        if *own == "serviceAccount" {
            if named && name.str() != "*" {
                name.dns_subdomain(e);
            }
            match namespace.is_empty() {
                true => namespace.required(e, "must specify namespace for service account"),
                false => namespace.dns_label(e),
            }
        }
    }
    for (member, kind) in KINDS.iter().filter(|(member, _)| member != own) {
        let other = at.get(member);
        if other.is_set() {
            other.forbidden(e, format!("{member} is forbidden when subject kind is not '{kind}'"));
        }
    }
}

fn has_wildcard(list: At) -> bool {
    list.items().any(|item| item.str() == "*")
}

/// A list that has something, and `*` only alone.
fn wildcard_alone(list: At, empty: &str, what: &str, e: &mut ErrorList) {
    if list.is_empty() {
        list.required(e, empty);
    } else if list.len() > 1 && has_wildcard(list) {
        list.invalid(e, format!("if '*' is present, must not specify other {what}"));
    }
}

fn verbs(list: At, e: &mut ErrorList) {
    const VERBS: [&str; 9] =
        ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    wildcard_alone(list, "verbs must contain at least one value", "verbs", e);
    if !has_wildcard(list) && list.items().any(|verb| !VERBS.contains(&verb.str())) {
        list.not_supported(e, &VERBS);
    }
}

/// upstream: ValidateFlowSchemaNonResourcePolicyRule
fn url_rule(rule: At, e: &mut ErrorList) {
    verbs(rule.get("verbs"), e);
    let urls = rule.get("nonResourceURLs");
    wildcard_alone(urls, "nonResourceURLs must contain at least one value", "non-resource URLs", e);
    if has_wildcard(urls) {
        return;
    }
    for url in urls.items() {
        if let Some(message) = bad_path(url.str()) {
            url.invalid(e, message);
        }
    }
}

/// upstream: ValidateNonResourceURLPath
fn bad_path(path: &str) -> Option<&'static str> {
    match path {
        "" => return Some("must not be empty"),
        "/" => return None,
        _ => {}
    }
    let wildcards = path.matches('*').count();
    match () {
        () if !path.starts_with('/') => Some("must start with slash"),
        () if path.contains(' ') => Some("must not contain white-space"),
        () if path.contains("//") => Some("must not contain double slash"),
        () if wildcards > 1 || (wildcards == 1 && !path.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        () => None,
    }
}

/// upstream: ValidateFlowSchemaResourcePolicyRule
fn resource_rule(rule: At, e: &mut ErrorList) {
    verbs(rule.get("verbs"), e);
    let supply = |what: &str| format!("resource rules must supply at least one {what}");
    wildcard_alone(rule.get("apiGroups"), &supply("api group"), "api groups", e);
    wildcard_alone(rule.get("resources"), &supply("resource"), "resources", e);
    let namespaces = rule.get("namespaces");
    if namespaces.is_empty() && !rule.get("clusterScope").bool() {
        let message = "resource rules that are not cluster scoped must supply at least one namespace";
        return namespaces.required(e, message);
    }
    if has_wildcard(namespaces) {
        return wildcard_alone(namespaces, "", "namespaces", e);
    }
    for namespace in namespaces.items() {
        for message in names::dns1123_label(namespace.str()) {
            let message = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
            namespace.invalid(e, message);
        }
    }
}
