//! CustomResourceDefinition. upstream: apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go,
//! pkg/apis/apiextensions/{v1,validation}
//!
//! Of schemas only this is checked: that they are there and that types are given where a structural schema needs them.
//!
//! upstream, too: Convert_apiextensions_CustomResourceConversion_To_v1_CustomResourceConversion,
//! Convert_apiextensions_CustomResourceDefinitionSpec_To_v1_CustomResourceDefinitionSpec,
//! Convert_v1_CustomResourceConversion_To_apiextensions_CustomResourceConversion,
//! Convert_v1_CustomResourceDefinitionSpec_To_apiextensions_CustomResourceDefinitionSpec: they move what all versions have
//! in common to the spec; here only the paths in messages know of it.

use copepod_meta::{ErrorList, Path, Value, names};
use std::collections::BTreeSet;

use crate::admissionregistration::webhook_client as client;
use crate::check::{At, IMMUTABLE};
use crate::core::pod::defaults::{fill, fill_nil};
use crate::equality::same;
use crate::generic::{bump_generation_if_spec_changed, clear_status, keep};
use crate::metadata;
use crate::strategy::{Context, Strategy};

/// The strategy.
pub struct CustomResourceDefinition;
/// `customresourcedefinitions/status`
pub struct CustomResourceDefinitionStatus;

const STORED: [&str; 2] = ["status", "storedVersions"];
const APPROVED: &str = "api-approved.kubernetes.io";

fn storage_version(crd: &Value) -> Option<&str> {
    let versions = crd.list_at(&["spec", "versions"]).iter();
    versions.filter(|v| v.bool_at(&["storage"])).map(|v| v.str_at(&["name"])).next()
}

/// The version that objects are stored in from now on is one they may be stored in.
fn add_stored_version(crd: &mut Value) {
    let Some(version) = storage_version(crd).map(Value::from) else { return };
    let mut stored = crd.list_at(&STORED).to_vec();
    if !stored.contains(&version) {
        stored.push(version);
        crd.set(&STORED, stored);
    }
}

/// upstream: SetDefaults_CustomResourceDefinition, SetDefaults_CustomResourceDefinitionSpec
fn default(crd: &mut Value) {
    let kind = crd.str_at(&["spec", "names", "kind"]).to_string();
    let spec = crd.make(&["spec"]);
    if !kind.is_empty() {
        let names = spec.make(&["names"]);
        fill(names, "singular", kind.to_lowercase());
        fill(names, "listKind", format!("{kind}List"));
    }
    let mut none = Value::map();
    none.set(&["strategy"], "None");
    fill_nil(spec, "conversion", none);
    let service = ["conversion", "webhook", "clientConfig", "service"];
    if let Some(service) = spec.at_mut(&service).filter(|s| !s.is_null()) {
        fill_nil(service, "port", 443);
    }
    if crd.list_at(&STORED).is_empty() {
        add_stored_version(crd);
    }
}

impl Strategy for CustomResourceDefinition {
    fn default(&self, _version: &str, crd: &mut Value) {
        default(crd);
    }
    fn prepare_create(&self, _cx: &Context, crd: &mut Value) {
        clear_status(crd);
        crd.set(&["metadata", "generation"], 1);
        add_stored_version(crd);
    }
    fn prepare_update(&self, _cx: &Context, crd: &mut Value, old: &Value) {
        keep(crd, old, "status");
        bump_generation_if_spec_changed(crd, old);
        add_stored_version(crd);
    }
    fn validate_create(&self, _cx: &Context, crd: &Value, e: &mut ErrorList) {
        let root = At::root(crd);
        let name = root.get("metadata.name");
        let wanted =
            format!("{}.{}", crd.str_at(&["spec", "names", "plural"]), crd.str_at(&["spec", "group"]));
        if name.str() != wanted {
            name.invalid(e, "must be spec.names.plural+\".\"+spec.group");
        }
        validate(crd, None, e);
    }
    fn validate_update(&self, _cx: &Context, crd: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update(crd, old, e);
        validate(crd, Some(old), e);
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&CustomResourceDefinitionStatus as &dyn Strategy)
    }
}

impl Strategy for CustomResourceDefinitionStatus {
    fn prepare_update(&self, _cx: &Context, crd: &mut Value, old: &Value) {
        keep(crd, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, crd: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update(crd, old, e);
        all_names(At::root(crd).get("status.acceptedNames"), e);
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

fn label(at: At, prefix: &str, e: &mut ErrorList) {
    let wrong = names::dns1035_label(&at.str().to_lowercase());
    let cased = !prefix.is_empty() || at.str() == at.str().to_lowercase();
    let wrong = if cased { wrong } else { names::dns1035_label(at.str()) };
    if !at.is_empty() && !wrong.is_empty() {
        at.invalid(e, format!("{prefix}{}", wrong.join(",")));
    }
}

/// upstream: ValidateCustomResourceDefinitionNames
fn all_names(at: At, e: &mut ErrorList) {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    label(at.get("plural"), "", e);
    label(at.get("singular"), "", e);
    label(at.get("kind"), MIXED, e);
    label(at.get("listKind"), MIXED, e);
    for list in ["shortNames", "categories"] {
        if list == "categories"
            && !at.get("kind").is_empty()
            && at.get("kind").str() == at.get("listKind").str()
        {
            at.get("listKind").invalid(e, "kind and listKind may not be the same");
        }
        for item in at.get(list).items() {
            let wrong = names::dns1035_label(item.str());
            if !wrong.is_empty() {
                item.invalid(e, wrong.join(","));
            }
        }
    }
}

/// upstream: validateCustomResourceDefinitionSpec and what surrounds it
fn validate(crd: &Value, old: Option<&Value>, e: &mut ErrorList) {
    let root = At::root(crd);
    let spec = root.get("spec");
    let group = spec.get("group");
    if group.need(e) {
        let wrong = names::dns1123_subdomain(group.str());
        if !wrong.is_empty() {
            group.invalid(e, wrong.join(","));
        } else if !group.str().contains('.') {
            group.invalid(e, "should be a domain with at least one dot");
        }
    }
    let scope = spec.get("scope");
    if scope.need(e) {
        scope.one_of(e, &["Cluster", "Namespaced"]);
    }
    versions(spec, e);
    let spec_names = spec.get("names");
    for member in ["plural", "singular", "kind", "listKind"] {
        spec_names.get(member).need(e);
    }
    all_names(spec_names, e);
    conversion(spec.get("conversion"), e);
    if let Some(old) = old {
        immutable(spec, old, e);
    }
    all_names(root.get("status.acceptedNames"), e);
    stored_versions(crd, e);
    approval(crd, old, e);
    let preserve = spec.get("preserveUnknownFields");
    let preserved = old.is_some_and(|o| o.bool_at(&["spec", "preserveUnknownFields"]));
    if preserve.bool() && !preserved {
        let message = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                       spec.versions[*].schema instead";
        preserve.invalid(e, message);
    }
}

fn versions(spec: At, e: &mut ErrorList) {
    let list = spec.get("versions");
    let items = list.value.list_at(&[]);
    // What all versions have in common is reported at the spec.
    let common = |member: &str| items.iter().all(|v| same(v.get(member), items[0].get(member)));
    for version in list.items() {
        if version.value.at(&["schema", "openAPIV3Schema"]).is_null() {
            version.get("schema.openAPIV3Schema").required(e, "");
        }
    }
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for version in list.items() {
        let name = version.get("name");
        unique &= seen.insert(name.str());
        let wrong = names::dns1035_label(name.str());
        if !wrong.is_empty() {
            name.invalid(e, wrong.join(","));
        }
        deprecation(version, e);
        if !common("schema") {
            structural(version.get("schema.openAPIV3Schema"), Level::Root, e);
        }
        if !common("additionalPrinterColumns") {
            columns(version.get("additionalPrinterColumns"), e);
        }
    }
    if !unique {
        list.invalid_pointer(e, "must contain unique version names");
    }
    if items.iter().filter(|v| v.bool_at(&["storage"])).count() != 1 {
        list.invalid_pointer(e, "must have exactly one version marked as storage version");
    }
    if items.is_empty() {
        return;
    }
    if common("schema") {
        let schema = items[0].at(&["schema", "openAPIV3Schema"]);
        structural(spec.get("validation.openAPIV3Schema").with(schema), Level::Root, e);
    }
    if common("additionalPrinterColumns") {
        columns(spec.get("additionalPrinterColumns").with(items[0].get("additionalPrinterColumns")), e);
    }
}

/// upstream: validateDeprecationWarning
fn deprecation(version: At, e: &mut ErrorList) {
    const MAX: usize = 256;
    let warning = version.get("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    if !version.get("deprecated").bool() {
        return warning.invalid(e, "can only be set for deprecated versions");
    }
    if warning.len() > MAX {
        warning.invalid(e, "must be <= 256 characters long");
    }
    if warning.str().is_empty() {
        warning.invalid(e, "must not be an empty string");
    }
    if let Some((i, _)) = warning.str().char_indices().find(|(_, c)| c.is_control()) {
        let message = "must only contain printable UTF-8 characters; non-printable character found at index";
        warning.invalid(e, format!("{message} {i}"));
    }
}

/// upstream: ValidateCustomResourceColumnDefinition, less the syntax of JSON paths
fn columns(list: At, e: &mut ErrorList) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
    for column in list.items() {
        column.get("name").need(e);
        let (ty, format) = (column.get("type"), column.get("format"));
        if ty.is_empty() {
            ty.required(e, &one_of(&TYPES));
        } else if !TYPES.contains(&ty.str()) {
            ty.invalid(e, one_of(&TYPES));
        }
        if !format.is_empty() && !FORMATS.contains(&format.str()) {
            format.invalid(e, one_of(&FORMATS));
        }
        if column.value.str_at(&["jsonPath"]).is_empty() {
            column.get("JSONPath").required(e, "");
        }
    }
}

/// Where a schema is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Types must be given. upstream: apiextensions-apiserver/pkg/apiserver/schema/validation.go
fn structural(schema: At, level: Level, e: &mut ErrorList) {
    if !schema.is_set() {
        return;
    }
    structural_inside(schema.value, schema.path, level, e);
}

fn structural_inside(value: &Value, path: Path<'_>, level: Level, e: &mut ErrorList) {
    let schema = At::new(value, path);
    let items = schema.get("items");
    if items.is_set() && items.value.as_map().is_some() {
        structural_inside(items.value, items.path, Level::Item, e);
    }
    let properties = schema.get("properties");
    for (_, property) in properties.entries() {
        structural_inside(property.value, property.path, Level::Field, e);
    }
    let additional = schema.get("additionalProperties");
    if additional.value.as_map().is_some() {
        structural_inside(additional.value, additional.path, Level::Field, e);
    }
    let ty = schema.get("type");
    let flag = |name: &str| value.bool_at(&[name]);
    if ty.is_empty() && !flag("x-kubernetes-int-or-string") && !flag("x-kubernetes-preserve-unknown-fields") {
        let message = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        ty.required(e, message);
    } else if level == Level::Root && !ty.is_empty() && ty.str() != "object" {
        ty.invalid(e, "must be object at the root");
    }
}

/// upstream: validateCustomResourceConversion
fn conversion(at: At, e: &mut ErrorList) {
    if !at.is_set() {
        return;
    }
    let strategy = at.get("strategy");
    if strategy.need(e) {
        strategy.one_of(e, &["None", "Webhook"]);
    }
    let webhook = at.value.get("webhook");
    // The paths are those of upstream's internal type.
    let config = at.get("webhookClientConfig").with(webhook.get("clientConfig"));
    let versions = at.get("conversionReviewVersions").with(webhook.get("conversionReviewVersions"));
    if strategy.str() != "Webhook" {
        for member in [config, versions] {
            if !member.is_empty() {
                member.forbidden(e, "should not be set when strategy is not set to Webhook");
            }
        }
        return;
    }
    if !config.is_set() {
        config.required(e, "required when strategy is set to Webhook");
    } else {
        let (url, service) = (config.get("url"), config.get("service"));
        match (url.is_set(), service.is_set()) {
            (true, false) => client::url(url, e),
            (false, true) => client::service(service, e),
            _ => config.required(e, "exactly one of url or service is required"),
        }
    }
    if versions.is_empty() {
        versions.required(e, "must specify one of v1, v1beta1");
    } else if !versions.items().any(|v| matches!(v.str(), "v1" | "v1beta1")) {
        versions.invalid(e, "must include at least one of v1, v1beta1");
    }
}

/// upstream: validateCustomResourceDefinitionSpecUpdate
fn immutable(spec: At, old: &Value, e: &mut ErrorList) {
    let conditions = old.list_at(&["status", "conditions"]);
    let established =
        conditions.iter().any(|c| c.str_at(&["type"]) == "Established" && c.str_at(&["status"]) == "True");
    let members: [(&str, &[&str], bool); 4] = [
        ("scope", &["scope"], established),
        ("names.kind", &["names", "kind"], established),
        ("group", &["group"], true),
        ("names.plural", &["names", "plural"], true),
    ];
    for (shown, path, checked) in members {
        if checked && !same(spec.value.at(path), old.get("spec").at(path)) {
            spec.get(shown).invalid(e, IMMUTABLE);
        }
    }
}

/// upstream: ValidateCustomResourceDefinitionStoredVersions
fn stored_versions(crd: &Value, e: &mut ErrorList) {
    let root = At::root(crd);
    let list = root.get("status.storedVersions");
    if list.is_empty() {
        return list.invalid_pointer(e, "must have at least one stored version");
    }
    let has = |name: &str| list.items().any(|v| v.str() == name);
    let versions = crd.list_at(&["spec", "versions"]);
    for version in versions.iter().filter(|v| v.bool_at(&["storage"])) {
        let name = version.str_at(&["name"]);
        if !has(name) {
            list.invalid(e, format!("must have the storage version {name}"));
        }
    }
    for stored in list.items() {
        let name = stored.str();
        if !versions.iter().any(|v| v.str_at(&["name"]) == name) {
            stored.invalid(
                e,
                format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                     until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                     status.storedVersions"
                ),
            );
        }
    }
}

/// Groups of the project need its approval. upstream: validateAPIApproval
fn approval(crd: &Value, old: Option<&Value>, e: &mut ErrorList) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = crd.str_at(&["spec", "group"]);
    let ours = ["k8s.io", "kubernetes.io"];
    if !ours.iter().any(|g| group == *g || group.ends_with(&format!(".{g}"))) {
        return;
    }
    let state = |crd: &Value| {
        let text = crd.str_at(&["metadata", "annotations", APPROVED]).to_string();
        match text.as_str() {
            "" => 0,
            t if t.starts_with("unapproved") => 1,
            t if t.split_once("://").is_some_and(|(s, rest)| !s.is_empty() && !rest.is_empty()) => 2,
            _ => 3,
        }
    };
    let now = state(crd);
    if old.is_some_and(|old| state(old) == now) {
        return;
    }
    let root = At::root(crd);
    let annotations = root.get("metadata.annotations");
    let at = annotations.key(APPROVED);
    match now {
        0 => at.required(e, &format!("protected groups must have approval annotation \"{APPROVED}\", {SEE}")),
        3 => at.invalid(
            e,
            format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \
                 \"unapproved\", {SEE}"
            ),
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, tree};

    fn crd(spec: &str) -> Value {
        let text = format!(
            r#"{{"metadata":{{"name":"as.example.com"}},"spec":{{"group":"example.com","scope":"Namespaced",
               "names":{{"plural":"as","kind":"A"}},{spec}}}}}"#
        );
        tree(&serde_json::from_str(&text).expect("a test's JSON"))
    }

    fn errors(spec: &str) -> Vec<String> {
        let mut crd = crd(spec);
        let strategy = CustomResourceDefinition;
        strategy.default("v1", &mut crd);
        strategy.prepare_create(&context(), &mut crd);
        let mut e = ErrorList::new();
        strategy.validate_create(&context(), &crd, &mut e);
        e.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_filled_in_and_the_storage_version_is_noted() {
        let spec = r#""versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":
                      {"type":"object","properties":{"spec":{"type":"object"}}}}}]"#;
        assert_eq!(errors(spec), Vec::<String>::new());
        let mut object = crd(spec);
        default(&mut object);
        assert_eq!(object.str_at(&["spec", "names", "singular"]), "a");
        assert_eq!(object.str_at(&["spec", "names", "listKind"]), "AList");
        assert_eq!(object.str_at(&["spec", "conversion", "strategy"]), "None");
        assert_eq!(object.list_at(&STORED), [Value::from("v1")]);
    }

    #[test]
    fn a_schema_must_be_there_and_give_types() {
        let spec = r#""versions":[{"name":"v1","served":true,"storage":true}]"#;
        assert_eq!(errors(spec), ["spec.versions[0].schema.openAPIV3Schema: Required value"]);
        let spec = r#""versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":
                      {"type":"object","properties":{"spec":{"x-kubernetes-int-or-string":false}}}}}]"#;
        let message = "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for \
                       specified object fields";
        assert_eq!(errors(spec), [message]);
    }
}
