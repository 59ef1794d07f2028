//! What a kind may say beyond its facts. One implementation a kind (`<group>/<kind>.rs`), found through [`crate::kind`].
//!
//! Everything here is pure: no clock but the one in [`Context`], no reads, no I/O. Hooks that need I/O (IP allocation,
//! binding, eviction, tokens) are the registry's `special/` modules.
//!
//! Trees are in the kind's hub version ([`crate::Kind::hub`]), which stands for upstream's internal type, unless a method
//! names a version.

use copepod_meta::time::{self, Timestamp};
use copepod_meta::{ErrorList, GroupResource, Status, User, Value};

/// What a strategy may know of the request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Who asks.
    pub user: &'a User,
    /// Namespace of the request, "" for cluster scope.
    pub namespace: &'a str,
    /// The collection, for messages.
    pub resource: &'a GroupResource,
    /// Now, RFC 3339 with seconds: what goes into creationTimestamp.
    pub now: &'a str,
    /// Whether a feature gate is on.
    pub feature: fn(&str) -> bool,
}

/// How a graceful deletion is to go. upstream: apiserver/pkg/registry/rest/delete.go
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graceful {
    /// The kind knows no grace: deleted at once (finalizers aside).
    Immediate,
    /// Marked with deletionTimestamp and this many seconds; someone else finishes it.
    After(i64),
}

/// The propagation a kind defaults to when the client names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultPropagation {
    /// Background: dependents are collected later (upstream's `Unsupported`/`GarbageCollectDependents`).
    Background,
    /// Orphan (upstream: `OrphanDependents`, old versions only).
    Orphan,
}

/// A column of a Table. upstream: meta/v1 TableColumnDefinition
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Head.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, ...
    pub ty: &'static str,
    /// OpenAPI format: `name`, ...
    pub format: &'static str,
    /// Tool tip.
    pub description: &'static str,
    /// 0 always shown, 1 with `-o wide`.
    pub priority: i64,
}

/// A row of a Table: a cell for each column, and the conditions that mark the row (`Completed`).
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Cells in column order.
    pub cells: Vec<Cell>,
    /// Row conditions as trees.
    pub conditions: Vec<Value>,
}

/// A cell. It is true of an object at one revision for ever, so that it can be kept: ages are kept as the times from which
/// they are reckoned.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// What is shown.
    Fixed(Value),
    /// How long ago a time was, between two texts: `4 (2m ago)`.
    Age {
        /// What stands before.
        before: String,
        /// The time.
        since: Timestamp,
        /// What stands behind.
        after: &'static str,
    },
}

impl Cell {
    /// What is shown at a moment.
    pub fn at(&self, now: Timestamp) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Age { before, since, after } => format!("{before}{}{after}", age(*since, now)).into(),
        }
    }

    /// The same time between texts; a cell that is no age stays as it is.
    #[must_use]
    pub fn between(self, before: String, after: &'static str) -> Self {
        match self {
            Self::Age { since, .. } => Self::Age { before, since, after },
            Self::Fixed(value) => {
                Self::Fixed(format!("{before}{}{after}", value.as_str().unwrap_or_default()).into())
            }
        }
    }
}

/// How long ago a time was, `5m`. upstream: pkg/printers/internalversion/printers.go translateTimestampSince
pub fn age(since: Timestamp, now: Timestamp) -> String {
    time::human_duration(time::seconds_between(since, now))
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self::Fixed(value)
    }
}
impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Fixed(text.into())
    }
}
impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Fixed(text.into())
    }
}
impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Self::Fixed(flag.into())
    }
}
impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Fixed(number.into())
    }
}

/// The behaviour of one kind, or of one of its subresources that writes the same object (`status`, `resize`, ...).
///
/// The defaults are those of a kind about which only facts are known: metadata, schema checks, spec/status split and
/// generation are then done by the engine from `api/`.
#[allow(unused_variables, reason = "the defaults ignore their arguments")]
pub trait Strategy: Sync + Send {
    /// Conditional defaults of one served version, after the unconditional ones of `api/`.
    /// upstream: pkg/apis/<group>/<version>/defaults.go SetDefaults_*
    fn default(&self, version: &str, object: &mut Value) {}

    /// Versioned to hub, including the same-version fix-ups of upstream's hand-written conversions.
    fn to_hub(&self, version: &str, object: &mut Value) {}

    /// What puts back what the stored encoding cannot hold (protobuf has no type meta); most kinds lose nothing.
    fn restore(&self) -> Option<fn(&mut Value)> {
        None
    }

    /// What takes out of the metadata what only conversion to a version puts there: PartialObjectMetadata shows the hub's.
    fn hub_metadata(&self) -> Option<fn(&mut Value)> {
        None
    }

    /// What conversion to a version makes of the empty hub object that bookmarks are.
    fn of_nothing(&self, object: &mut Value) {}

    /// Hub to versioned.
    #[allow(clippy::wrong_self_convention, reason = "the counterpart of to_hub")]
    fn from_hub(&self, version: &str, object: &mut Value) {}

    /// Before validation of a create: clear what clients may not set (status), set generation.
    fn prepare_create(&self, cx: &Context, object: &mut Value) {}

    /// Before validation of an update: keep what clients may not change, bump generation.
    fn prepare_update(&self, cx: &Context, object: &mut Value, old: &Value) {}

    /// Whether upstream's validation of a create begins with metadata. Where it does not, only the check common to all
    /// kinds looks at metadata, after the rest was found right.
    fn metadata_first(&self) -> bool {
        true
    }

    /// Validates a new object. Metadata was validated by the engine.
    fn validate_create(&self, cx: &Context, object: &Value, errors: &mut ErrorList) {}

    /// Validates an update. Metadata was validated by the engine.
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, errors: &mut ErrorList) {}

    /// Warnings about an object that was accepted.
    fn warnings(&self, cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Normalises an object after validation. upstream: Canonicalize
    fn canonicalize(&self, object: &mut Value) {}

    /// Checks a name; the texts of all that is wrong. `prefix`: the name is a generateName prefix.
    /// upstream: ValidateXxxName. The default is a DNS-1123 subdomain.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        copepod_meta::names::dns1123_subdomain_prefixed(name, prefix)
    }

    /// Whether PUT to an absent name creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether PUT without resourceVersion is taken.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// How deletion goes: `asked` is gracePeriodSeconds of the client, if it gave one.
    fn graceful_delete(&self, object: &Value, asked: Option<i64>) -> Graceful {
        Graceful::Immediate
    }

    /// What deletion does with dependents by default.
    fn default_propagation(&self) -> DefaultPropagation {
        DefaultPropagation::Background
    }

    /// Field paths that this strategy resets, so that the writer does not come to own them (managedFields).
    /// upstream: GetResetFields. Per served version the same paths.
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    /// Refuses an export to storage, e.g. an object that must not be deleted. upstream: BeforeDelete-like checks
    fn check_delete(&self, cx: &Context, object: &Value) -> Result<(), Status> {
        Ok(())
    }

    /// Table columns; empty means the default Name and Age.
    fn columns(&self) -> &'static [Column] {
        &[]
    }

    /// Whether answers of a subresource can be had as a Table ("" is the resource itself).
    /// upstream: the storages that implement rest.TableConvertor
    fn shows_table(&self, subresource: &str) -> bool {
        matches!(subresource, "" | "status" | "scale")
    }

    /// The row of an object; made once per revision. upstream: pkg/printers/internalversion/printers.go
    fn row(&self, object: &Value) -> Row {
        Row::default()
    }

    /// Names of the field selectors beyond metadata.name and metadata.namespace.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// What a client is told that selects by another field; each kind's conversion of labels has words of its own.
    fn unknown_field(&self, name: &str) -> String {
        format!("field label not supported: {name}")
    }

    /// What the hub's kind calls a selectable field of this one; objects are indexed by the hub's names.
    /// upstream: runtime.Scheme ConvertFieldLabel
    fn hub_field(&self, name: &str) -> String {
        name.into()
    }

    /// The value of a selectable field, "" when absent.
    fn field(&self, object: &Value, name: &str) -> String {
        String::new()
    }

    /// The stored paths that [`Strategy::to_hub`] and [`Strategy::field`] need for the selectable fields, so that the watch
    /// cache need not decode the rest of an object at each change; `None`: all of it.
    fn field_paths(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// The selectable field that the watch cache keeps an index on (`spec.nodeName`), if any.
    fn indexed_field(&self) -> Option<&'static str> {
        None
    }

    /// The strategy of a subresource that writes the same object; `None`: the engine's generic one (`status` keeps all but
    /// status) or a `special/` module.
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        None
    }
}
