//! What a client may say beside the object: options of reads and writes, checked as upstream checks them.
//!
//! The HTTP edge parses query parameters and bodies into these; nothing here knows HTTP.

use copepod_meta::field::FieldErrorKind;
use copepod_meta::{ErrorList, FieldError, Path, Status, Value};

/// Longest field manager name. upstream: apimachinery/pkg/apis/meta/v1/validation FieldManagerMaxLength
pub const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// What becomes of unknown and duplicate fields in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning: the default.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// How a patch body is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml`
    Apply,
}

/// Options of create, update and patch. Texts are kept as sent so that they can be refused with upstream's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// `dryRun` values; only `All` is allowed.
    pub dry_run: Vec<String>,
    /// `fieldManager`
    pub field_manager: String,
    /// `fieldValidation`
    pub field_validation: String,
    /// `force` of an apply patch.
    pub force: Option<bool>,
}

/// `preconditions` of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object's uid must be this.
    pub uid: Option<String>,
    /// The object's resourceVersion must be this.
    pub resource_version: Option<String>,
}

/// Options of delete and deletecollection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`
    pub grace_period_seconds: Option<i64>,
    /// `preconditions`
    pub preconditions: Preconditions,
    /// `orphanDependents`, deprecated.
    pub orphan_dependents: Option<bool>,
    /// `propagationPolicy`
    pub propagation_policy: Option<String>,
    /// `dryRun` values; only `All` is allowed.
    pub dry_run: Vec<String>,
}

/// Options of get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// `resourceVersion`
    pub resource_version: String,
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `labelSelector`
    pub label_selector: String,
    /// `fieldSelector`
    pub field_selector: String,
    /// `watch`
    pub watch: bool,
    /// `allowWatchBookmarks`
    pub allow_watch_bookmarks: bool,
    /// `resourceVersion`
    pub resource_version: String,
    /// `resourceVersionMatch`
    pub resource_version_match: String,
    /// `timeoutSeconds`
    pub timeout_seconds: Option<i64>,
    /// `limit`
    pub limit: i64,
    /// `continue`
    pub continue_token: String,
    /// `sendInitialEvents`
    pub send_initial_events: Option<bool>,
}

/// Which operation's options are checked: they are named in the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// `CreateOptions`
    Create,
    /// `UpdateOptions`
    Update,
    /// `PatchOptions`
    Patch(PatchType),
}

impl WriteKind {
    fn options_kind(self) -> &'static str {
        match self {
            WriteKind::Create => "CreateOptions",
            WriteKind::Update => "UpdateOptions",
            WriteKind::Patch(_) => "PatchOptions",
        }
    }
}

impl WriteOptions {
    /// Whether nothing may be persisted.
    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// The directive for unknown fields; only meaningful after [`WriteOptions::validate`].
    pub fn directive(&self) -> FieldValidation {
        match self.field_validation.as_str() {
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            _ => FieldValidation::Warn,
        }
    }

    /// upstream: apimachinery/pkg/apis/meta/v1/validation Validate{Create,Update,Patch}Options
    pub fn validate(&self, kind: WriteKind) -> Result<(), Status> {
        let mut errors = ErrorList::new();
        if let WriteKind::Patch(patch) = kind {
            if patch == PatchType::Apply {
                if self.field_manager.is_empty() {
                    errors.push(FieldError::required(
                        &Path::new("fieldManager"),
                        "is required for apply patch",
                    ));
                }
            } else if self.force.is_some() {
                errors.push(FieldError::forbidden(
                    &Path::new("force"),
                    "may not be specified for non-apply patch",
                ));
            }
        }
        validate_field_manager(&self.field_manager, &mut errors);
        validate_dry_run(&self.dry_run, &mut errors);
        if !matches!(self.field_validation.as_str(), "" | "Ignore" | "Warn" | "Strict") {
            errors.push(FieldError::not_supported(
                &Path::new("fieldValidation"),
                &Value::string(&self.field_validation),
                &["", "Ignore", "Strict", "Warn"],
            ));
        }
        refuse(kind.options_kind(), errors)
    }

    /// The options as admission sees them.
    pub fn to_value(&self, kind: WriteKind) -> Value {
        let mut out = Value::map();
        out.set(&["kind"], kind.options_kind());
        out.set(&["apiVersion"], "meta.k8s.io/v1");
        if self.is_dry_run() {
            out.set(&["dryRun"], self.dry_run.iter().map(Value::string).collect::<Vec<_>>());
        }
        if !self.field_manager.is_empty() {
            out.set(&["fieldManager"], self.field_manager.as_str());
        }
        if !self.field_validation.is_empty() {
            out.set(&["fieldValidation"], self.field_validation.as_str());
        }
        if let Some(force) = self.force {
            out.set(&["force"], force);
        }
        out
    }
}

impl DeleteOptions {
    /// Whether nothing may be persisted.
    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// upstream: apimachinery/pkg/apis/meta/v1/validation ValidateDeleteOptions
    pub fn validate(&self) -> Result<(), Status> {
        let mut errors = ErrorList::new();
        let path = Path::new("propagationPolicy");
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                errors.push(FieldError::invalid_str(
                    &path,
                    policy,
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                errors.push(FieldError::not_supported(
                    &path,
                    &Value::string(policy),
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
            }
        }
        validate_dry_run(&self.dry_run, &mut errors);
        refuse("DeleteOptions", errors)
    }

    /// From a decoded `DeleteOptions`.
    pub fn from_value(value: &Value) -> DeleteOptions {
        let text = |path: &[&str]| value.at(path).as_str().map(str::to_string);
        DeleteOptions {
            grace_period_seconds: value.get("gracePeriodSeconds").as_int(),
            preconditions: Preconditions {
                uid: text(&["preconditions", "uid"]),
                resource_version: text(&["preconditions", "resourceVersion"]),
            },
            orphan_dependents: value.get("orphanDependents").as_bool(),
            propagation_policy: text(&["propagationPolicy"]),
            dry_run: value
                .list_at(&["dryRun"])
                .iter()
                .filter_map(|v| v.as_str().map(str::to_string))
                .collect(),
        }
    }

    /// The options as admission sees them.
    pub fn to_value(&self) -> Value {
        let mut out = Value::map();
        out.set(&["kind"], "DeleteOptions");
        out.set(&["apiVersion"], "meta.k8s.io/v1");
        if let Some(seconds) = self.grace_period_seconds {
            out.set(&["gracePeriodSeconds"], seconds);
        }
        if let Some(uid) = &self.preconditions.uid {
            out.set(&["preconditions", "uid"], uid.as_str());
        }
        if let Some(version) = &self.preconditions.resource_version {
            out.set(&["preconditions", "resourceVersion"], version.as_str());
        }
        if let Some(orphan) = self.orphan_dependents {
            out.set(&["orphanDependents"], orphan);
        }
        if let Some(policy) = &self.propagation_policy {
            out.set(&["propagationPolicy"], policy.as_str());
        }
        if self.is_dry_run() {
            out.set(&["dryRun"], self.dry_run.iter().map(Value::string).collect::<Vec<_>>());
        }
        out
    }
}

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

impl ListOptions {
    /// Watches that begin "anywhere" stream the state first.
    /// upstream: apimachinery/pkg/apis/meta/internalversion/defaults.go SetListOptionsDefaults
    pub fn set_defaults(&mut self) {
        if self.send_initial_events.is_some() || !self.resource_version_match.is_empty() {
            return;
        }
        if self.watch && matches!(self.resource_version.as_str(), "" | "0") {
            self.send_initial_events = Some(true);
            self.resource_version_match = NOT_OLDER_THAN.into();
        }
    }

    /// upstream: apimachinery/pkg/apis/meta/internalversion/validation ValidateListOptions
    pub fn validate(&self) -> Result<(), Status> {
        let errors = if self.watch { self.watch_errors() } else { self.list_errors() };
        refuse("ListOptions", errors)
    }

    fn list_errors(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("resourceVersionMatch");
        let matching = self.resource_version_match.as_str();
        if !matching.is_empty() {
            if self.resource_version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(FieldError::forbidden(&path, why));
            }
            if !self.continue_token.is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(&path, why));
            }
            if matching != EXACT && matching != NOT_OLDER_THAN {
                let value = Value::string(matching);
                errors.push(FieldError::not_supported(&path, &value, &[EXACT, NOT_OLDER_THAN, ""]));
            }
            if matching == EXACT && self.resource_version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(&path, why));
            }
        }
        if self.send_initial_events.is_some() {
            let path = Path::new("sendInitialEvents");
            errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
        }
        errors
    }

    fn watch_errors(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("resourceVersionMatch");
        let matching = self.resource_version_match.as_str();
        if self.send_initial_events.is_some() && matching != NOT_OLDER_THAN {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(&path, why));
        }
        if !matching.is_empty() {
            if self.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(&path, why));
            }
            if matching != NOT_OLDER_THAN {
                errors.push(FieldError::not_supported(&path, &Value::string(matching), &[NOT_OLDER_THAN]));
            }
            if !self.continue_token.is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(&path, why));
            }
        }
        errors
    }

    /// Whether the list is wanted at exactly the revision named.
    pub(crate) fn is_exact(&self) -> bool {
        self.resource_version_match == EXACT
    }
}

/// upstream: ValidateFieldManager
fn validate_field_manager(manager: &str, errors: &mut ErrorList) {
    let path = Path::new("fieldManager");
    if manager.len() > FIELD_MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long(&path, FIELD_MANAGER_BYTES_MAX));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_print(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", c as u32);
        errors.push(FieldError::invalid_str(&path, manager, why));
    }
}

/// Near enough to Go's `unicode.IsPrint`: no controls, and of the spaces only the ASCII one.
pub(crate) fn is_print(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// upstream: ValidateDryRun
fn validate_dry_run(values: &[String], errors: &mut ErrorList) {
    if values.iter().all(|v| v == "All") {
        return;
    }
    let listed = Value::List(values.iter().map(Value::string).collect());
    let mut error = FieldError::not_supported(&Path::new("dryRun"), &listed, &["All"]);
    debug_assert_eq!(error.kind, FieldErrorKind::NotSupported);
    error.value = Some(copepod_meta::debug_json::to_string(&listed));
    errors.push(error);
}

fn refuse(kind: &str, errors: ErrorList) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", &errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(f: impl FnOnce(&mut ListOptions)) -> String {
        let mut options = ListOptions::default();
        f(&mut options);
        options.set_defaults();
        options.validate().map_or_else(|s| s.message, |()| String::new())
    }

    #[test]
    fn list_options_are_refused_as_upstream_does() {
        let head = "ListOptions.meta.k8s.io \"\" is invalid: ";
        for (name, got, want) in [
            ("plain", list(|_| ()), ""),
            (
                "match without version",
                list(|o| o.resource_version_match = "Exact".into()),
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "exact zero",
                list(|o| {
                    o.resource_version_match = "Exact".into();
                    o.resource_version = "0".into();
                }),
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "unknown match",
                list(|o| {
                    o.resource_version_match = "Foo".into();
                    o.resource_version = "1".into();
                }),
                "resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "initial events of a list",
                list(|o| o.send_initial_events = Some(true)),
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                "initial events without match",
                list(|o| {
                    o.watch = true;
                    o.send_initial_events = Some(true);
                }),
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            ("a plain watch begins with the state", list(|o| o.watch = true), ""),
        ] {
            let want = if want.is_empty() { String::new() } else { format!("{head}{want}") };
            assert_eq!(got, want, "{name}");
        }
    }
}
