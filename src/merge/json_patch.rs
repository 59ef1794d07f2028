//! JSON patch, RFC 6902, with the leniencies of upstream's library: negative indices, `replace` of a member
//! that is not there, a missing `value` meaning null, null equal to "not there" in `test`.
//!
//! A missing operand reads as [`Value::Null`]: the library tells the two apart nowhere that shows.
//!
//! upstream: gopkg.in/evanphx/json-patch.v4 patch.go, apiserver/pkg/endpoints/handlers/patch.go applyJSPatch

use copepod_meta::field::quote;
use copepod_meta::{Value, debug_json};

/// Operations in one patch. upstream: handlers/patch.go maxJSONPatchOperations
pub const OPERATIONS_MAX: usize = 10_000;

/// Bytes that `copy` operations may add to a document. upstream: server/config.go JSONPatchMaxCopyBytes
pub const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How deep a document may become. Operations can nest what is nested already, and everything that walks a tree recurses;
/// the decoder's own limit is the same (`copepod_codec::TREE_DEPTH_MAX`).
pub const DEPTH_MAX: usize = 256;

/// Why a patch could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// It is no patch. Ends as 400.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// Too many operations. Ends as 413.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    /// It does not apply to this document. Ends as 422.
    #[error("{0}")]
    DoesNotApply(String),
}

/// A patch.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPatch {
    operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq)]
struct Operation {
    kind: String,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

const MISSING: &str = "missing value";
const INVALID_INDEX: &str = "invalid index referenced";

impl JsonPatch {
    /// Reads a patch document; also what strict field validation complains about in it.
    pub fn parse(patch: Value) -> Result<(JsonPatch, Vec<String>), JsonPatchError> {
        let malformed = |value: &Value, what: &str| {
            let kind = json_kind(value);
            JsonPatchError::Malformed(format!("json: cannot unmarshal {kind} into Go {what}"))
        };
        let items = match patch {
            Value::List(items) => items,
            Value::Null => Vec::new(),
            other => return Err(malformed(&other, "value of type []handlers.jsonPatchOp")),
        };
        if items.len() > OPERATIONS_MAX {
            return Err(JsonPatchError::TooManyOperations(items.len()));
        }
        let mut operations = Vec::with_capacity(items.len());
        let mut unknown = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let mut members = match item {
                Value::Map(members) => members,
                Value::Null => Default::default(),
                other => return Err(malformed(&other, "value of type handlers.jsonPatchOp")),
            };
            let mut text = |name: &str| match members.remove(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.to_string())),
                Some(other) => {
                    Err(malformed(&other, &format!("struct field jsonPatchOp.{name} of type string")))
                }
            };
            let (kind, path, from) = (text("op")?, text("path")?, text("from")?);
            let value = members.remove("value").unwrap_or_default();
            unknown.extend(
                members
                    .keys()
                    .map(|name| format!("json patch unknown field {}", quote(&format!("[{index}].{name}")))),
            );
            operations.push(Operation { kind: kind.unwrap_or_else(|| "unknown".into()), path, from, value });
        }
        Ok((JsonPatch { operations }, unknown))
    }

    /// The places that its operations name, each with the value that is put there (null: none).
    pub fn places(&self) -> impl Iterator<Item = (&str, &Value)> {
        const NOTHING: &Value = &Value::Null;
        self.operations.iter().flat_map(|operation| {
            let path = operation.path.as_deref().map(|path| (path, &operation.value));
            path.into_iter().chain(operation.from.as_deref().map(|from| (from, NOTHING)))
        })
    }

    /// The document after all operations.
    pub fn apply(&self, mut document: Value) -> Result<Value, JsonPatchError> {
        let mut copied = 0;
        for operation in &self.operations {
            operation.apply(&mut document, &mut copied).map_err(JsonPatchError::DoesNotApply)?;
        }
        Ok(document)
    }
}

fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Int(_) | Value::Float(_) => "number",
        Value::String(_) | Value::Bytes(_) | Value::Raw(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) => "object",
    }
}

impl Operation {
    fn apply(&self, document: &mut Value, copied: &mut usize) -> Result<(), String> {
        match self.kind.as_str() {
            "add" => self.add(document),
            "remove" => self.remove(document),
            "replace" => self.replace(document),
            "move" => self.relocate(document),
            "test" => self.test(document),
            "copy" => self.copy(document, copied),
            kind => Err(format!("Unexpected kind: {kind}")),
        }
    }

    fn path(&self) -> Result<&str, String> {
        self.path.as_deref().ok_or_else(|| format!("operation missing path field: {MISSING}"))
    }

    fn from(&self) -> Result<&str, String> {
        self.from.as_deref().ok_or_else(|| format!("operation, missing from field: {MISSING}"))
    }

    fn add(&self, document: &mut Value) -> Result<(), String> {
        let path = self.path().map_err(|_| format!("add operation failed to decode path: {MISSING}"))?;
        let (container, key) = container(document, path).ok_or_else(|| {
            format!("add operation does not apply: doc is missing path: \"{path}\": {MISSING}")
        })?;
        check_depth(path, &self.value)?;
        add(container, &key, self.value.clone()).map_err(|e| format!("error in add for path: '{path}': {e}"))
    }

    fn remove(&self, document: &mut Value) -> Result<(), String> {
        let path = self.path().map_err(|_| format!("remove operation failed to decode path: {MISSING}"))?;
        let (container, key) = container(document, path).ok_or_else(|| {
            format!("remove operation does not apply: doc is missing path: \"{path}\": {MISSING}")
        })?;
        remove(container, &key).map_err(|e| format!("error in remove for path: '{path}': {e}"))?;
        Ok(())
    }

    fn replace(&self, document: &mut Value) -> Result<(), String> {
        let path = self.path().map_err(|e| format!("replace operation failed to decode path: {e}"))?;
        if path.is_empty() {
            if !matches!(self.value, Value::Map(_) | Value::List(_)) {
                return Err("replace operation value must be object or array: %!w(<nil>)".into());
            }
            *document = self.value.clone();
            return Ok(());
        }
        check_depth(path, &self.value)?;
        let (container, key) = container(document, path).ok_or_else(|| {
            format!("replace operation does not apply: doc is missing path: {path}: {MISSING}")
        })?;
        match container {
            Value::List(items) => {
                let index = index(&key, items.len()).map_err(|_| {
                    format!("replace operation does not apply: doc is missing key: {path}: {MISSING}")
                })?;
                items[index] = self.value.clone();
            }
            other => *other.make_map().entry(&key) = self.value.clone(),
        }
        Ok(())
    }

    fn relocate(&self, document: &mut Value) -> Result<(), String> {
        let from = self.from().map_err(|e| format!("move operation failed to decode from: {e}"))?;
        let (source, key) = container(document, from).ok_or_else(|| {
            format!("move operation does not apply: doc is missing from path: {from}: {MISSING}")
        })?;
        let value = remove(source, &key).map_err(|e| format!("error in move for path: '{key}': {e}"))?;
        let path = self.path().map_err(|e| format!("move operation failed to decode path: {e}"))?;
        let (target, key) = container(document, path).ok_or_else(|| {
            format!("move operation does not apply: doc is missing destination path: {path}: {MISSING}")
        })?;
        check_depth(path, &value)?;
        add(target, &key, value).map_err(|e| format!("error in move for path: '{path}': {e}"))
    }

    fn test(&self, document: &mut Value) -> Result<(), String> {
        let path = self.path().map_err(|e| format!("test operation failed to decode path: {e}"))?;
        let failed = || Err(format!("testing value {path} failed: test failed"));
        if path.is_empty() {
            return if *document == self.value { Ok(()) } else { failed() };
        }
        let (container, key) = container(document, path)
            .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: {MISSING}"))?;
        let value = get(container, &key).map_err(|e| format!("error in test for path: '{path}': {e}"))?;
        if *value == self.value { Ok(()) } else { failed() }
    }

    fn copy(&self, document: &mut Value, copied: &mut usize) -> Result<(), String> {
        let from = self.from().map_err(|e| format!("copy operation failed to decode from: {e}"))?;
        let (source, key) = container(document, from).ok_or_else(|| {
            format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}")
        })?;
        let value = get(source, &key).map_err(|e| format!("error in copy for from: '{from}': {e}"))?.clone();
        let path = self.path().map_err(|_| format!("copy operation failed to decode path: {MISSING}"))?;
        let (target, key) = container(document, path).ok_or_else(|| {
            format!("copy operation does not apply: doc is missing destination path: {path}: {MISSING}")
        })?;
        *copied += debug_json::to_string(&value).len();
        if *copied > COPIED_BYTES_MAX {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the \
                 limit {COPIED_BYTES_MAX}"
            ));
        }
        check_depth(path, &value)?;
        add(target, &key, value).map_err(|e| format!("error while adding value during copy: {e}"))
    }
}

/// The object or list that holds the path's last step, and that step.
fn container<'v>(document: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    // Whatever stands before the first slash is not looked at.
    let mut steps = path.split('/').skip(1).map(decode_step).peekable();
    let mut at = document;
    loop {
        let step = steps.next()?;
        if !matches!(at, Value::Map(_) | Value::List(_)) {
            return None;
        }
        if steps.peek().is_none() {
            return Some((at, step));
        }
        at = match at {
            Value::List(items) => {
                let index = index(&step, items.len()).ok()?;
                &mut items[index]
            }
            other => other.as_map_mut()?.get_mut(&step)?,
        };
    }
}

/// Refuses to put a value where it would make the document too deep. The value itself is not: it was decoded, or stands in
/// the document.
fn check_depth(path: &str, value: &Value) -> Result<(), String> {
    let steps = path.matches('/').count();
    if steps + depth(value) > DEPTH_MAX {
        return Err(format!("exceeded max depth at path: '{path}'"));
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(map) => 1 + map.iter().map(|(_, item)| depth(item)).max().unwrap_or(0),
        _ => 0,
    }
}

fn decode_step(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

static NULL: Value = Value::Null;

fn get<'v>(container: &'v Value, key: &str) -> Result<&'v Value, String> {
    match container {
        Value::List(items) => Ok(&items[index(key, items.len())?]),
        other => Ok(other.as_map().and_then(|m| m.get(key)).unwrap_or(&NULL)),
    }
}

fn add(container: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match container {
        Value::List(items) if key == "-" => items.push(value),
        Value::List(items) => {
            let index = index(key, items.len() + 1).map_err(|e| {
                if e.starts_with("strconv.") {
                    format!("value was not a proper array index: '{key}': {e}")
                } else {
                    e
                }
            })?;
            items.insert(index, value);
        }
        other => {
            other.make_map().insert(key, value);
        }
    }
    Ok(())
}

fn remove(container: &mut Value, key: &str) -> Result<Value, String> {
    match container {
        Value::List(items) => {
            let index = index(key, items.len())?;
            Ok(items.remove(index))
        }
        other => other
            .as_map_mut()
            .and_then(|m| m.remove(key))
            .ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}")),
    }
}

/// A step as an index below `len`; negative ones count from there.
fn index(key: &str, len: usize) -> Result<usize, String> {
    let asked: i64 = key.parse().map_err(|e: std::num::ParseIntError| {
        let why = match e.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {why}", quote(key))
    })?;
    let index = if asked < 0 { asked.saturating_add(len as i64) } else { asked };
    usize::try_from(index)
        .ok()
        .filter(|index| *index < len)
        .ok_or_else(|| format!("Unable to access invalid index: {asked}: {INVALID_INDEX}"))
}
