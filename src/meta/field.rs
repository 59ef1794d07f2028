//! Field paths and what can be wrong at one.
//!
//! upstream: apimachinery/pkg/util/validation/field/{path,errors}.go

use crate::Value;
use std::fmt::{self, Write as _};

/// A path into an object, `spec.containers[0].ports[key]`. Cheap to extend: a child points to its parent on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path that begins with a member name.
    pub const fn new(name: &'a str) -> Path<'a> {
        Path { parent: None, step: Step::Field(name) }
    }
    /// The path that upstream makes of no name: it stands for the whole object, and is printed as `[]`.
    /// upstream: field.NewPath("")
    pub const fn nameless() -> Path<'a> {
        Path { parent: None, step: Step::Key("") }
    }
    /// The member `name` below this. A dotted name adds several steps at once.
    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }
    /// The list item `index` below this.
    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }
    /// The map entry `key` below this, printed in brackets.
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            // An empty first name stands for "the object itself": nothing to print, no dot after it.
            Step::Field("") => Ok(()),
            Step::Field(name) => {
                let bare = self.parent.is_none_or(|p| p.is_empty());
                if !bare {
                    f.write_char('.')?;
                }
                f.write_str(name)
            }
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(k) => write!(f, "[{k}]"),
        }
    }
}

impl Path<'_> {
    fn is_empty(&self) -> bool {
        matches!(self.step, Step::Field("")) && self.parent.is_none_or(|p| p.is_empty())
    }
}

/// What is wrong; the text of [`FieldErrorKind::as_str`] is the `reason` of a `Status` cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A referenced value does not exist.
    NotFound,
    /// A value is missing.
    Required,
    /// Values that must be unique are not.
    Duplicate,
    /// Malformed, out of bounds.
    Invalid,
    /// Not one of a fixed set.
    NotSupported,
    /// Well-formed but not allowed here (now).
    Forbidden,
    /// Text too long.
    TooLong,
    /// Too many items.
    TooMany,
    /// Not the user's fault.
    Internal,
    /// Of the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The machine-readable cause type.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::Internal => "InternalError",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
    fn text(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::Internal => "Internal error",
            FieldErrorKind::TypeInvalid => "Invalid value",
        }
    }
}

/// One thing wrong at one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What kind of wrong.
    pub kind: FieldErrorKind,
    /// Where, rendered.
    pub field: String,
    /// The offending value as upstream prints it (`"x"`, `3`, `{"a":1}`), if this kind prints one.
    pub value: Option<String>,
    /// The human part.
    pub detail: String,
}

/// All that is wrong with an object.
pub type ErrorList = Vec<FieldError>;

/// How upstream's `%#v`-like rule prints a bad value: scalars as Go would, structured values as JSON.
/// upstream: field/errors.go Error.ErrorBody
pub fn print_value(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(f) => f.to_string(),
        Value::String(s) => quote(s),
        Value::Bytes(b) => quote(&String::from_utf8_lossy(b)),
        Value::Raw(b) => String::from_utf8_lossy(b).into_owned(),
        Value::List(_) | Value::Map(_) => crate::debug_json::to_string(value),
    }
}

/// Go's `%q` for text: double quotes, backslash escapes, non-printables as `\u....`.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _infallible = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl FieldError {
    /// "Not found": the value refers to nothing.
    pub fn not_found(path: &Path, value: &Value) -> FieldError {
        FieldError::with_value(FieldErrorKind::NotFound, path, print_value(value), "")
    }
    /// "Required value".
    pub fn required(path: &Path, detail: impl Into<String>) -> FieldError {
        FieldError {
            kind: FieldErrorKind::Required,
            field: path.to_string(),
            value: None,
            detail: detail.into(),
        }
    }
    /// "Duplicate value".
    pub fn duplicate(path: &Path, value: &Value) -> FieldError {
        FieldError::with_value(FieldErrorKind::Duplicate, path, print_value(value), "")
    }
    /// "Invalid value".
    pub fn invalid(path: &Path, value: &Value, detail: impl Into<String>) -> FieldError {
        FieldError::with_value(FieldErrorKind::Invalid, path, print_value(value), detail)
    }
    /// "Invalid value" of text.
    pub fn invalid_str(path: &Path, value: &str, detail: impl Into<String>) -> FieldError {
        FieldError::with_value(FieldErrorKind::Invalid, path, quote(value), detail)
    }
    /// "Invalid value" of a number.
    pub fn invalid_int(path: &Path, value: i64, detail: impl Into<String>) -> FieldError {
        FieldError::with_value(FieldErrorKind::Invalid, path, value.to_string(), detail)
    }
    /// "Unsupported value", with the values that are supported, sorted as upstream lists them.
    pub fn not_supported(path: &Path, value: &Value, supported: &[&str]) -> FieldError {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        FieldError::with_value(FieldErrorKind::NotSupported, path, print_value(value), detail)
    }
    /// "Forbidden".
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> FieldError {
        FieldError {
            kind: FieldErrorKind::Forbidden,
            field: path.to_string(),
            value: None,
            detail: detail.into(),
        }
    }
    /// "Too long: may not be more than N bytes"; the value itself is not printed.
    pub fn too_long(path: &Path, max: usize) -> FieldError {
        let detail = format!("may not be more than {max} bytes");
        FieldError { kind: FieldErrorKind::TooLong, field: path.to_string(), value: None, detail }
    }
    /// "Too many".
    pub fn too_many(path: &Path, actual: usize, max: usize) -> FieldError {
        let detail = format!("must have at most {max} item{}", if max == 1 { "" } else { "s" });
        FieldError::with_value(FieldErrorKind::TooMany, path, actual.to_string(), detail)
    }
    /// "Internal error".
    pub fn internal(path: &Path, detail: impl Into<String>) -> FieldError {
        FieldError {
            kind: FieldErrorKind::Internal,
            field: path.to_string(),
            value: None,
            detail: detail.into(),
        }
    }
    /// "Invalid value" for a value of the wrong type.
    pub fn type_invalid(path: &Path, value: &Value, detail: impl Into<String>) -> FieldError {
        FieldError::with_value(FieldErrorKind::TypeInvalid, path, print_value(value), detail)
    }
    fn with_value(kind: FieldErrorKind, path: &Path, value: String, detail: impl Into<String>) -> FieldError {
        FieldError { kind, field: path.to_string(), value: Some(value), detail: detail.into() }
    }
    /// The message without the field.
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_string();
        if let Some(value) = &self.value {
            out.push_str(": ");
            out.push_str(value);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_upstreams() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let resources = first.child("resources");
        let limits = resources.child("limits");
        assert_eq!(limits.key("cpu").to_string(), "spec.containers[0].resources.limits[cpu]");
        assert_eq!(Path::new("").child("spec").to_string(), "spec");
    }

    #[test]
    fn errors_print_as_upstreams() {
        let name = Path::new("metadata").child("name").to_string();
        assert_eq!(name, "metadata.name");
        let meta = Path::new("metadata");
        let path = meta.child("name");
        for (error, want) in [
            (
                FieldError::required(&path, "name or generateName is required"),
                "metadata.name: Required value: name or generateName is required",
            ),
            (FieldError::invalid_str(&path, "A\"", "bad"), r#"metadata.name: Invalid value: "A\"": bad"#),
            (
                FieldError::not_supported(&path, &Value::string("x"), &["a", "b"]),
                r#"metadata.name: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (FieldError::too_long(&path, 63), "metadata.name: Too long: may not be more than 63 bytes"),
            (FieldError::duplicate(&path, &Value::Int(3)), "metadata.name: Duplicate value: 3"),
        ] {
            assert_eq!(error.to_string(), want);
        }
    }
}
