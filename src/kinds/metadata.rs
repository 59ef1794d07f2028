//! ObjectMeta: validation that all kinds share, and what updates may not touch.
//!
//! The engine calls [`prepare_update`] around the strategy's own, [`validate`] before `validate_create`, and [`validate`] with
//! [`path_segment_name`] plus [`validate_update`] before `validate_update`. A strategy whose upstream repeats the update check
//! calls [`validate_update`] again: the causes of a `Status` are then repeated as upstream's are (its message is not).
//!
//! upstream: apimachinery/pkg/api/validation/objectmeta.go, apimachinery/pkg/apis/meta/v1/validation,
//! apiserver/pkg/registry/rest/{create,update}.go

use copepod_meta::{ErrorList, Value, names};

use crate::check::At;
use crate::equality::same;
use crate::print;

/// Bytes that all annotations of an object may have together. upstream: TotalAnnotationSizeLimitB
pub const ANNOTATION_BYTES_MAX: usize = 256 * 1024;
const FIELD_MANAGER_BYTES_MAX: usize = 128;
const SUBRESOURCE_BYTES_MAX: usize = 256;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a name has to be for every kind: one segment of a URL. upstream: rest/create.go validatePathSegment
pub fn path_segment_name(name: &str, _prefix: bool) -> Vec<String> {
    names::path_segment(name)
}

/// Metadata of any object, at `metadata`. upstream: ValidateObjectMetaAccessor
pub fn validate(
    object: &Value,
    namespaced: bool,
    name_rule: &dyn Fn(&str, bool) -> Vec<String>,
    e: &mut ErrorList,
) {
    let root = At::root(object);
    let meta = root.get("metadata");
    let generate = meta.get("generateName");
    if !generate.str().is_empty() {
        generate.invalid_each(e, name_rule(generate.str(), true));
    }
    let name = meta.get("name");
    if name.is_empty() {
        name.required(e, "name or generateName is required");
    } else {
        name.invalid_each(e, name_rule(name.str(), false));
    }
    let namespace = meta.get("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => namespace.required(e, ""),
        (true, false) => namespace.invalid_each(e, names::dns1123_label(namespace.str())),
        (false, false) => namespace.forbidden(e, "not allowed on this type"),
        (false, true) => {}
    }
    meta.get("generation").not_negative(e);
    labels(meta.get("labels"), e);
    annotations(meta.get("annotations"), e);
    owner_references(meta.get("ownerReferences"), e);
    finalizers(meta.get("finalizers"), e);
    managed_fields(meta.get("managedFields"), e);
}

/// The rule that upstream's core validation adds to metadata: a finalizer is a well-known one or has a domain.
/// The strategies of the kinds that it is for call this first. upstream: validation.go validateKubeFinalizerName
pub fn standard_finalizers(object: &Value, e: &mut ErrorList) {
    let root = At::root(object);
    for item in root.get("metadata.finalizers").items() {
        if !item.str().contains('/') && !matches!(item.str(), "kubernetes" | ORPHAN | FOREGROUND) {
            item.invalid_str(
                e,
                item.str(),
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}

/// [`validate`] and [`standard_finalizers`]: what many kinds repeat on update.
pub fn validate_core(
    object: &Value,
    namespaced: bool,
    name_rule: &dyn Fn(&str, bool) -> Vec<String>,
    e: &mut ErrorList,
) {
    validate(object, namespaced, name_rule, e);
    standard_finalizers(object, e);
}

/// [`validate_update`] and [`standard_finalizers`]: what many kinds repeat on update.
pub fn validate_update_core(object: &Value, old: &Value, e: &mut ErrorList) {
    validate_update(object, old, e);
    standard_finalizers(object, e);
}

/// What an update may not do to metadata. upstream: ValidateObjectMetaAccessorUpdate
pub fn validate_update(object: &Value, old: &Value, e: &mut ErrorList) {
    let (root, old_root) = (At::root(object), At::root(old));
    let (meta, old_meta) = (root.get("metadata"), old_root.get("metadata"));
    if old_meta.get("deletionTimestamp").is_set() {
        no_new_finalizers(meta.get("finalizers"), old_meta.get("finalizers").value, e);
    }
    let revision = meta.get("resourceVersion");
    if revision.is_empty() {
        revision.invalid(e, "must be specified for an update");
    }
    let generation = meta.get("generation");
    if generation.int() < old_meta.get("generation").int() {
        generation.invalid_int(e, "must not be decremented");
    }
    for name in ["name", "namespace", "uid"] {
        meta.get(name).immutable(e, old_meta.get(name).value);
    }
    for name in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (new, old) = (meta.get(name), old_meta.get(name));
        if new.value != old.value {
            new.invalid_printed(e, copepod_meta::field::print_value(new.value), crate::check::IMMUTABLE);
        }
    }
    labels(meta.get("labels"), e);
    annotations(meta.get("annotations"), e);
    owner_references(meta.get("ownerReferences"), e);
    managed_fields(meta.get("managedFields"), e);
}

/// Metadata that an update keeps or takes over when the client left it out; after the strategy's own preparation.
/// (Generation is set back to the stored one before the strategy: [`reset_generation`].) upstream: BeforeUpdate
pub fn prepare_update(object: &mut Value, old: &Value) {
    let old_meta = old.get("metadata");
    let meta = object.make(&["metadata"]);
    if meta.str_at(&["uid"]).is_empty() {
        copy(meta, old_meta, "uid");
    }
    for name in ["creationTimestamp", "deletionTimestamp"] {
        if !old_meta.get(name).is_null() {
            copy(meta, old_meta, name);
        }
    }
    if meta.get("deletionGracePeriodSeconds").is_null() {
        copy(meta, old_meta, "deletionGracePeriodSeconds");
    }
}

/// Clients cannot set generation: back to the stored one, before the strategy's preparation. upstream: BeforeUpdate
pub fn reset_generation(object: &mut Value, old: &Value) {
    copy(object.make(&["metadata"]), old.get("metadata"), "generation");
}

/// Metadata that writers of status may not change. upstream: apimachinery meta/v1 ResetObjectMetaForStatus
pub fn reset_for_status(object: &mut Value, old: &Value) {
    let meta = object.make(&["metadata"]);
    for name in [
        "deletionTimestamp",
        "generation",
        "selfLink",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
    ] {
        copy(meta, old.get("metadata"), name);
    }
}

/// Makes `to`'s member what `from`'s is, absent included.
fn copy(to: &mut Value, from: &Value, name: &str) {
    match from.get(name) {
        Value::Null => {
            to.remove(&[name]);
        }
        value => to.set(&[name], value.clone()),
    }
}

/// A set of labels. upstream: ValidateLabels
pub fn labels(at: At, e: &mut ErrorList) {
    for (key, value) in at.map().iter() {
        label_name(at, key, e);
        let value = value.as_str().unwrap_or("");
        for message in names::label_value(value) {
            at.invalid_str(e, value, message);
        }
    }
}

/// A label key, reported at `at`. upstream: ValidateLabelName
pub fn label_name(at: At, key: &str, e: &mut ErrorList) {
    for message in names::qualified_name(key) {
        at.invalid_str(e, key, message);
    }
}

/// A set of annotations. upstream: ValidateAnnotations
pub fn annotations(at: At, e: &mut ErrorList) {
    let mut bytes = 0;
    for (key, value) in at.map().iter() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        for message in names::qualified_name(&key.to_lowercase()) {
            at.invalid_str(e, key, message);
        }
    }
    if bytes > ANNOTATION_BYTES_MAX {
        at.too_long(e, ANNOTATION_BYTES_MAX);
    }
}

/// upstream: ValidateOwnerReferences. All but the type's own problems are reported at the list.
pub fn owner_references(at: At, e: &mut ErrorList) {
    let mut controller: Option<String> = None;
    for item in at.items() {
        let reference = at.with(item.value);
        let api_version = reference.get("apiVersion");
        let version = api_version.str().rsplit('/').next().unwrap_or("");
        if version.is_empty() || api_version.str().matches('/').count() > 1 {
            api_version.invalid(e, "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            let member = reference.get(name);
            if member.is_empty() {
                member.invalid(e, "must not be empty");
            }
        }
        if api_version.str() == "v1" && reference.get("kind").str() == "Event" {
            let printed = print::json(item.value, print::OWNER_REFERENCE);
            reference.invalid_printed(e, printed, "/v1, Kind=Event is disallowed from being an owner");
        }
        if reference.get("controller").bool() {
            let this = format!("{}/{}", reference.get("kind").str(), reference.get("name").str());
            match &controller {
                None => controller = Some(this),
                Some(first) => at.invalid_printed(
                    e,
                    print::json_list(at.value, print::OWNER_REFERENCE),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ),
            }
        }
    }
}

/// upstream: ValidateFinalizers
pub fn finalizers(at: At, e: &mut ErrorList) {
    let (mut orphan, mut foreground) = (false, false);
    for item in at.items() {
        for message in names::qualified_name(item.str()) {
            at.invalid_str(e, item.str(), message);
        }
        orphan |= item.str() == ORPHAN;
        foreground |= item.str() == FOREGROUND;
    }
    if orphan && foreground {
        at.invalid(e, format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"));
    }
}

/// upstream: ValidateNoNewFinalizers
pub fn no_new_finalizers(at: At, old: &Value, e: &mut ErrorList) {
    let known = old.as_list().unwrap_or(&[]);
    let mut extra: Vec<&str> =
        at.value.list_at(&[]).iter().filter(|f| !known.contains(f)).filter_map(Value::as_str).collect();
    extra.sort_unstable();
    extra.dedup();
    if !extra.is_empty() {
        let list = print::go_strings(&extra);
        at.forbidden(
            e,
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {list}"
            ),
        );
    }
}

/// upstream: ValidateManagedFields
pub fn managed_fields(at: At, e: &mut ErrorList) {
    for entry in at.items() {
        let operation = entry.get("operation");
        if !matches!(operation.str(), "Apply" | "Update") {
            operation.invalid(e, "must be `Apply` or `Update`");
        }
        let fields_type = entry.get("fieldsType");
        if !fields_type.str().is_empty() && fields_type.str() != "FieldsV1" {
            fields_type.invalid(e, "must be `FieldsV1`");
        }
        field_manager(entry.get("manager"), e);
        let subresource = entry.get("subresource");
        if subresource.len() > SUBRESOURCE_BYTES_MAX {
            subresource.too_long(e, SUBRESOURCE_BYTES_MAX);
        }
    }
}

/// A field manager's name. upstream: ValidateFieldManager
pub fn field_manager(at: At, e: &mut ErrorList) {
    if at.len() > FIELD_MANAGER_BYTES_MAX {
        at.too_long(e, FIELD_MANAGER_BYTES_MAX);
    }
    for (i, c) in at.str().char_indices().filter(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' '))
    {
        // Go's %#U: the code point, then the character in quotes if it prints (it does not here).
        at.invalid(e, format!("invalid character U+{:04X} (at position {i})", c as u32));
    }
}

/// A label selector. `invalid_values`: values are not checked (an object stored with bad ones keeps them).
/// upstream: ValidateLabelSelector
pub fn label_selector(at: At, invalid_values: bool, e: &mut ErrorList) {
    labels(at.get("matchLabels"), e);
    for expression in at.get("matchExpressions").items() {
        let values = expression.get("values");
        match expression.get("operator").str() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    values.required(e, "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    values.forbidden(e, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
            }
            _ => expression.get("operator").invalid(e, "not a valid selector operator"),
        }
        let key = expression.get("key");
        label_name(key, key.str(), e);
        if !invalid_values {
            for value in values.items() {
                value.invalid_each(e, names::label_value(value.str()));
            }
        }
    }
}

/// Whether a stored selector has values that are no label values. upstream: LabelSelectorHasInvalidLabelValue
pub fn selector_has_invalid_value(selector: &Value) -> bool {
    let mut expressions = selector.list_at(&["matchExpressions"]).iter();
    expressions.any(|x| {
        x.list_at(&["values"]).iter().any(|v| !names::label_value(v.as_str().unwrap_or("")).is_empty())
    })
}

/// `metav1.Condition` lists. upstream: ValidateConditions
pub fn conditions(at: At, e: &mut ErrorList) {
    let mut seen: Vec<&str> = Vec::new();
    for condition in at.items() {
        let ty = condition.get("type");
        if seen.contains(&ty.str()) {
            ty.duplicate(e);
        } else {
            seen.push(ty.str());
        }
        validate_condition(condition, e);
    }
}

fn validate_condition(at: At, e: &mut ErrorList) {
    const REASON_MAX: usize = 1024;
    const MESSAGE_MAX: usize = 32 * 1024;
    let ty = at.get("type");
    label_name(ty, ty.str(), e);
    at.get("status").one_of(e, &["False", "True", "Unknown"]);
    let observed = at.get("observedGeneration");
    if observed.int() < 0 {
        observed.invalid_int(e, "must be greater than or equal to zero");
    }
    let transition = at.get("lastTransitionTime");
    if transition.is_empty() {
        transition.required(e, "");
    }
    let reason = at.get("reason");
    if reason.is_empty() {
        reason.required(e, "");
    } else {
        if !is_condition_reason(reason.str()) {
            reason.invalid(e, CONDITION_REASON);
        }
        if reason.len() > REASON_MAX {
            reason.too_long(e, REASON_MAX);
        }
    }
    let message = at.get("message");
    if message.len() > MESSAGE_MAX {
        message.too_long(e, MESSAGE_MAX);
    }
}

const CONDITION_REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
     alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
     'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

fn is_condition_reason(s: &str) -> bool {
    let b = s.as_bytes();
    let last_ok = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    b.first().is_some_and(u8::is_ascii_alphabetic)
        && b.iter().all(|c| last_ok(*c) || matches!(c, b',' | b':'))
        && b.last().is_some_and(|c| last_ok(*c))
}

/// Whether metadata of two objects differs in a member. For strategies that allow some changes only.
pub fn differs(a: &Value, b: &Value, member: &str) -> bool {
    !same(a.at(&["metadata", member]), b.at(&["metadata", member]))
}
