//! The cursor of validation: a place in a tree together with its path, and the errors that can be said of it.
//!
//! A validator is a function `fn validate_x(at: At, e: &mut ErrorList)`. It walks with [`At::get`], [`At::items`],
//! [`At::entries`] and complains with [`At::required`], [`At::invalid`], ... Reads give Go's zero value where the tree has
//! nothing, as upstream's structs do. Paths are rendered only when something is wrong: a walk costs no allocation.
//!
//! `get` takes a dotted name for several steps at once (no field of the API has a dot in its name; map keys do, so they
//! go through [`At::key`]).

use copepod_meta::{ErrorList, FieldError, Map, Path, Value, names};

/// A value and where it is.
#[derive(Clone, Copy, Debug)]
pub struct At<'v, 'p> {
    /// What is there; null when nothing is. Lives as long as the object, so that texts may be kept in sets.
    pub value: &'v Value,
    /// Where. Lives as long as the cursor it was reached from.
    pub path: Path<'p>,
}

/// upstream: apimachinery/pkg/api/validation FieldImmutableErrorMsg
pub const IMMUTABLE: &str = "field is immutable";
/// upstream: apimachinery/pkg/api/validation IsNegativeErrorMsg
pub const NEGATIVE: &str = "must be greater than or equal to 0";

impl<'v, 'p> At<'v, 'p> {
    /// The object itself.
    pub fn root(value: &'v Value) -> At<'v, 'p> {
        At { value, path: Path::new("") }
    }
    /// A value somewhere.
    pub fn new(value: &'v Value, path: Path<'p>) -> At<'v, 'p> {
        At { value, path }
    }
    /// The member `name`; dots step further.
    pub fn get<'s>(&'s self, name: &'s str) -> At<'v, 's> {
        let value = match name.contains('.') {
            false => self.value.get(name),
            true => name.split('.').fold(self.value, |v, step| v.get(step)),
        };
        At { value, path: self.path.child(name) }
    }
    /// The entry `key` of a string map, printed in brackets.
    pub fn key<'s>(&'s self, key: &'s str) -> At<'v, 's> {
        At { value: self.value.get(key), path: self.path.key(key) }
    }
    /// The item `index` of a list.
    pub fn index<'s>(&'s self, index: usize) -> At<'v, 's> {
        static NULL: Value = Value::Null;
        At { value: self.value.list_at(&[]).get(index).unwrap_or(&NULL), path: self.path.index(index) }
    }
    /// Another value at the same place (what a message should print, or a derived value).
    pub fn with<'w>(self, value: &'w Value) -> At<'w, 'p> {
        At { value, path: self.path }
    }
    /// The items of a list.
    pub fn items<'s>(&'s self) -> impl Iterator<Item = At<'v, 's>> {
        let items = self.value.as_list().unwrap_or(&[]);
        items.iter().enumerate().map(|(i, value)| At { value, path: self.path.index(i) })
    }
    /// The entries of a string map, in key order.
    pub fn entries<'s>(&'s self) -> impl Iterator<Item = (&'v str, At<'v, 's>)>
    where
        'v: 's,
    {
        self.map().iter().map(|(key, value)| (key, At { value, path: self.path.key(key) }))
    }
    /// The members of a map, none when absent.
    pub fn map(&self) -> &'v Map {
        self.value.map_at(&[])
    }
    /// The text, "" when absent.
    pub fn str(&self) -> &'v str {
        self.value.as_str().unwrap_or("")
    }
    /// The number, 0 when absent.
    pub fn int(&self) -> i64 {
        self.value.as_int().unwrap_or(0)
    }
    /// The number, if there is one.
    pub fn opt_int(&self) -> Option<i64> {
        self.value.as_int()
    }
    /// The boolean, false when absent.
    pub fn bool(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }
    /// Number of items or members, bytes of a text.
    pub fn len(&self) -> usize {
        match self.value {
            Value::List(l) => l.len(),
            Value::Map(m) => m.len(),
            Value::String(s) => s.len(),
            Value::Bytes(b) | Value::Raw(b) => b.len(),
            _ => 0,
        }
    }
    /// Whether something is there: a Go pointer that is not nil.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }
    /// Whether there is nothing but a zero value.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// "Required value".
    pub fn required(&self, e: &mut ErrorList, detail: &str) {
        e.push(FieldError::required(&self.path, detail));
    }
    /// "Forbidden".
    pub fn forbidden(&self, e: &mut ErrorList, detail: impl Into<String>) {
        e.push(FieldError::forbidden(&self.path, detail));
    }
    /// "Invalid value" of what is here; absent prints as `""`.
    pub fn invalid(&self, e: &mut ErrorList, detail: impl Into<String>) {
        match self.value {
            Value::Null => self.invalid_str(e, "", detail),
            value => e.push(FieldError::invalid(&self.path, value, detail)),
        }
    }
    /// "Invalid value" of a number that may be absent (0).
    pub fn invalid_int(&self, e: &mut ErrorList, detail: impl Into<String>) {
        e.push(FieldError::invalid_int(&self.path, self.int(), detail));
    }
    /// "Invalid value" of some text, at this place.
    pub fn invalid_str(&self, e: &mut ErrorList, value: &str, detail: impl Into<String>) {
        e.push(FieldError::invalid_str(&self.path, value, detail));
    }
    /// "Invalid value" printing a value that was rendered already.
    pub fn invalid_printed(&self, e: &mut ErrorList, printed: String, detail: impl Into<String>) {
        let mut error = FieldError::invalid_str(&self.path, "", detail);
        error.value = Some(printed);
        e.push(error);
    }
    /// "Invalid value" of what a Go pointer (or slice) shows: `null` when absent.
    pub fn invalid_pointer(&self, e: &mut ErrorList, detail: impl Into<String>) {
        match self.value {
            Value::Null => self.invalid_printed(e, "null".into(), detail),
            _ => self.invalid(e, detail),
        }
    }
    /// "Invalid value" that shows no value. upstream: field.OmitValueType
    pub fn invalid_omitted(&self, e: &mut ErrorList, detail: impl Into<String>) {
        let mut error = FieldError::invalid_str(&self.path, "", detail);
        error.value = None;
        e.push(error);
    }
    /// One "Invalid value" a message.
    pub fn invalid_each<M: Into<String>>(&self, e: &mut ErrorList, messages: impl IntoIterator<Item = M>) {
        for message in messages {
            self.invalid(e, message);
        }
    }
    /// "Unsupported value"; absent prints as `""`.
    pub fn not_supported(&self, e: &mut ErrorList, supported: &[&str]) {
        let empty = Value::string("");
        let value = if self.value.is_null() { &empty } else { self.value };
        e.push(FieldError::not_supported(&self.path, value, supported));
    }
    /// "Duplicate value" of what is here.
    pub fn duplicate(&self, e: &mut ErrorList) {
        let empty = Value::string("");
        let value = if self.value.is_null() { &empty } else { self.value };
        e.push(FieldError::duplicate(&self.path, value));
    }
    /// "Duplicate value" of some text.
    pub fn duplicate_str(&self, e: &mut ErrorList, value: &str) {
        e.push(FieldError::duplicate(&self.path, &Value::string(value)));
    }
    /// "Duplicate value" of a value that was rendered already.
    pub fn duplicate_printed(&self, e: &mut ErrorList, printed: String, detail: &str) {
        let mut error = FieldError::duplicate(&self.path, &Value::Null);
        error.value = Some(printed);
        error.detail = detail.into();
        e.push(error);
    }
    /// "Not found" of what is here.
    pub fn not_found(&self, e: &mut ErrorList) {
        let empty = Value::string("");
        let value = if self.value.is_null() { &empty } else { self.value };
        e.push(FieldError::not_found(&self.path, value));
    }
    /// "Too long", in bytes.
    pub fn too_long(&self, e: &mut ErrorList, max: usize) {
        e.push(FieldError::too_long(&self.path, max));
    }
    /// "Too many".
    pub fn too_many(&self, e: &mut ErrorList, actual: usize, max: usize) {
        e.push(FieldError::too_many(&self.path, actual, max));
    }

    /// Complains if nothing is there; whether something is.
    pub fn need(&self, e: &mut ErrorList) -> bool {
        if self.is_empty() {
            self.required(e, "");
        }
        !self.is_empty()
    }
    /// Must be a DNS-1123 label.
    pub fn dns_label(&self, e: &mut ErrorList) {
        self.invalid_each(e, names::dns1123_label(self.str()));
    }
    /// Must be a DNS-1123 subdomain.
    pub fn dns_subdomain(&self, e: &mut ErrorList) {
        self.invalid_each(e, names::dns1123_subdomain(self.str()));
    }
    /// Must be a qualified name (label key).
    pub fn qualified_name(&self, e: &mut ErrorList) {
        self.invalid_each(e, names::qualified_name(self.str()));
    }
    /// Must be a port number.
    pub fn port(&self, e: &mut ErrorList) {
        for message in names::port_number(self.int()) {
            self.invalid_int(e, message);
        }
    }
    /// Must be within bounds.
    pub fn in_range(&self, e: &mut ErrorList, low: i64, high: i64) {
        if !(low..=high).contains(&self.int()) {
            self.invalid_int(e, names::range_error(low, high));
        }
    }
    /// Must be a user or group id, if set. upstream: IsValidUserID, IsValidGroupID
    pub fn id(&self, e: &mut ErrorList) {
        if self.is_set() {
            self.in_range(e, 0, i64::from(i32::MAX));
        }
    }
    /// Must not be below 0. upstream: ValidateNonnegativeField
    pub fn not_negative(&self, e: &mut ErrorList) {
        if self.int() < 0 {
            self.invalid_int(e, NEGATIVE);
        }
    }
    /// Must be one of `allowed`; empty counts as a value like any other.
    pub fn one_of(&self, e: &mut ErrorList, allowed: &[&str]) {
        if !allowed.contains(&self.str()) {
            self.not_supported(e, allowed);
        }
    }
    /// Must equal `old`; a Go pointer.
    pub fn immutable_pointer(&self, e: &mut ErrorList, old: &Value) {
        if !crate::equality::same(self.value, old) || self.value.is_null() != old.is_null() {
            self.invalid_pointer(e, IMMUTABLE);
        }
    }
    /// Must equal `old`; a Go map, in which nil and empty differ in print only.
    pub fn immutable_map(&self, e: &mut ErrorList, old: &Value) {
        if !crate::equality::same(self.value, old) {
            self.invalid_pointer(e, IMMUTABLE);
        }
    }
    /// Must equal `old`; printed as upstream's internal type.
    pub fn immutable_internal(&self, e: &mut ErrorList, old: &Value, wire: &str, internal: &str) {
        if !crate::equality::same_as(self.value, old, wire) {
            let printed = match self.value {
                Value::Null => "null".into(),
                value => crate::print::internal(value, internal),
            };
            self.invalid_printed(e, printed, IMMUTABLE);
        }
    }
    /// Must be a domain and a path, `acme.io/foo`. upstream: IsDomainPrefixedPath
    pub fn domain_prefixed_path(&self, e: &mut ErrorList) {
        if self.str().is_empty() {
            return self.required(e, "");
        }
        let (host, path) = match self.str().split_once('/') {
            Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
            _ => return self.invalid(e, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        };
        for message in names::dns1123_subdomain(host) {
            self.invalid_str(e, host, message);
        }
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c);
        if !path.bytes().all(allowed) {
            let regex = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
            self.invalid_str(e, path, regex);
        }
    }
    /// Must equal `old`. upstream: apimachinery/pkg/api/validation ValidateImmutableField
    pub fn immutable(&self, e: &mut ErrorList, old: &Value) {
        if !crate::equality::same(self.value, old) {
            self.invalid(e, IMMUTABLE);
        }
    }
}
