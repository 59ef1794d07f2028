//! Strategic merge patch: objects merge member by member, lists by the merge key or as sets where the type
//! says so, and directives in the patch (`$patch`, `$retainKeys`, `$setElementOrder/...`,
//! `$deleteFromPrimitiveList/...`) say what merging cannot.
//!
//! Works on plain JSON trees; the type graph gives strategy and merge key of each list. Order of the result:
//! items of the patch in the order that the patch asks for, interleaved with the server's own in theirs.
//!
//! upstream: apimachinery/pkg/util/strategicpatch/{patch,meta}.go

mod lists;

use copepod_meta::{CompactString, Map, Value};
use copepod_schema::{Field, Special, Type, TypeId, Universe};

use crate::go_format::{go_format, go_type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";

/// Why a patch could not be merged; texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategicPatchError {
    /// Ends as 400.
    #[error("invalid JSON document")]
    BadDocument,
    /// Ends as 400.
    #[error("invalid patch format of primitive list")]
    BadPrimitiveList,
    /// Ends as 400.
    #[error("invalid patch format of retainKeys")]
    BadRetainKeys,
    /// Ends as 400.
    #[error("invalid patch format of setElementOrder list")]
    BadElementOrder,
    /// A custom resource has no strategies. Ends as 415: the media type is not offered for it.
    #[error("strategic merge patch format is not supported")]
    Unsupported,
    /// Ends as 422.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Upstream answers 500 with this text.
    #[error("{0}")]
    Other(String),
}

type Result<T> = std::result::Result<T, StrategicPatchError>;

fn other<T>(message: String) -> Result<T> {
    Err(StrategicPatchError::Other(message))
}

fn bad_argument<T>(expected: &str, actual: &Value) -> Result<T> {
    other(format!("expected a {expected}, but received a {}", go_type(actual)))
}

fn no_merge_key(item: &Map, key: &str) -> StrategicPatchError {
    let shown = go_format(&Value::Map(item.clone()));
    StrategicPatchError::Other(format!("map: {shown} does not contain declared merge key: {key}"))
}

fn bad_patch_type(directive: &Value, map: Map) -> StrategicPatchError {
    StrategicPatchError::Other(format!(
        "unknown patch type: {} in map: {}",
        go_format(directive),
        go_format(&Value::Map(map))
    ))
}

/// The document with the patch merged in. Both are plain JSON trees; `ty` is the document's type.
pub fn strategic_merge_patch(
    document: Value,
    patch: Value,
    universe: &Universe,
    ty: TypeId,
) -> Result<Value> {
    if universe.is_unstructured() {
        return Err(StrategicPatchError::Unsupported);
    }
    let (Value::Map(document), Value::Map(patch)) = (document, patch) else {
        return Err(StrategicPatchError::BadDocument);
    };
    merge_map(document, patch, Schema { universe, ty }).map(Value::Map)
}

/// The type at a place of the document.
#[derive(Clone, Copy)]
struct Schema<'u> {
    universe: &'u Universe,
    ty: TypeId,
}

/// How a list or object is to be merged.
#[derive(Clone, Copy)]
struct Strategy<'u> {
    merge: bool,
    replace: bool,
    key: &'u str,
}

impl<'u> Schema<'u> {
    /// Go's kind of the type, for messages.
    fn kind(self) -> &'static str {
        use copepod_schema::Scalar;
        match self.universe.get(self.ty) {
            Type::Struct(_) | Type::Special(_) => "struct",
            Type::Map(_) => "map",
            Type::List(_) | Type::Scalar(Scalar::Bytes) => "slice",
            Type::Any => "interface",
            Type::Scalar(Scalar::Bool) => "bool",
            Type::Scalar(Scalar::Int32) => "int32",
            Type::Scalar(Scalar::Int64) => "int64",
            Type::Scalar(Scalar::Uint32) => "uint32",
            Type::Scalar(Scalar::Uint64) => "uint64",
            Type::Scalar(Scalar::Float64 | Scalar::Number) => "float64",
            Type::Scalar(Scalar::String) => "string",
        }
    }

    fn lookup(self, name: &str) -> Result<&'u Field> {
        let unknown = |owner: &str| {
            other(format!("unable to find api field in struct {owner} for the json field {name:?}"))
        };
        match self.universe.get(self.ty) {
            Type::Struct(ty) => {
                let folded = || ty.fields.iter().find(|f| f.json.eq_ignore_ascii_case(name));
                let simple = ty.name.rsplit('.').next().unwrap_or_default();
                ty.field(name).or_else(folded).map_or_else(|| unknown(simple), Ok)
            }
            Type::Special(special) => match special {
                Special::JsonSchemaPropsOrBool(ty)
                | Special::JsonSchemaPropsOrArray(ty)
                | Special::JsonSchemaPropsOrStringArray(ty) => Schema { ty: *ty, ..self }.lookup(name),
                Special::RawExtension => unknown("RawExtension"),
                Special::FieldsV1 => unknown("FieldsV1"),
                Special::Json => unknown("JSON"),
                special => unknown(&format!("{special:?}")),
            },
            _ => other(format!(
                "merging an object in json but data type is not struct, instead is: {}",
                self.kind()
            )),
        }
    }

    /// The type and strategy of an object member.
    fn object(self, name: &str) -> Result<(Schema<'u>, Strategy<'u>)> {
        let field = self.lookup(name)?;
        Ok((Schema { ty: field.ty, ..self }, strategy(field)))
    }

    /// The element type and strategy of a list member.
    fn list(self, name: &str) -> Result<(Schema<'u>, Strategy<'u>)> {
        let field = self.lookup(name)?;
        let elem = match self.universe.get(field.ty) {
            Type::List(list) => list.elem,
            _ => return other(format!("expected slice or array type, but got: {}", self.kind())),
        };
        if matches!(self.universe.get(elem), Type::List(_)) {
            return other("unexpected slice of slice".into());
        }
        Ok((Schema { ty: elem, ..self }, strategy(field)))
    }
}

fn strategy(field: &Field) -> Strategy<'_> {
    Strategy {
        merge: field.patch_strategy.merge,
        replace: field.patch_strategy.replace,
        key: field.patch_merge_key.as_deref().unwrap_or_default(),
    }
}

/// upstream: patch.go mergeMap
fn merge_map(mut original: Map, mut patch: Map, schema: Schema) -> Result<Map> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            // The members of the patch as they are.
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::default()),
            _ => {
                patch.insert(DIRECTIVE, directive.clone());
                Err(bad_patch_type(&directive, patch))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    lists::order_elements(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        merge_member(&mut original, key, value, schema)?;
    }
    Ok(original)
}

fn merge_member(original: &mut Map, key: CompactString, patch: Value, schema: Schema) -> Result<()> {
    let deletes = key.starts_with(DELETE_FROM_PRIMITIVE_LIST);
    let key = if deletes {
        let name = directive_target(&key, DELETE_FROM_PRIMITIVE_LIST);
        CompactString::new(name.ok_or(StrategicPatchError::BadPrimitiveList)?)
    } else {
        key
    };
    if patch.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let same_type = original.get(&key).map(|value| go_type(value) == go_type(&patch));
    if same_type != Some(true) {
        if !deletes {
            take_over(original, key, patch);
        }
        return Ok(());
    }
    let place = original.entry(&key);
    match (std::mem::take(place), patch) {
        (Value::Map(current), Value::Map(patch)) => {
            let (schema, strategy) = schema.object(&key)?;
            let merged = if strategy.replace { patch } else { merge_map(current, patch, schema)? };
            *place = Value::Map(merged);
        }
        (Value::List(current), Value::List(patch)) => {
            let (schema, strategy) = schema.list(&key)?;
            *place = Value::List(lists::merge_list(current, patch, schema, strategy, deletes)?);
        }
        (_, patch) => *place = patch,
    }
    Ok(())
}

/// A member that is not there yet, or was of another type.
fn take_over(original: &mut Map, key: CompactString, mut patch: Value) {
    discard_nulls(&mut patch);
    match without_directives(patch) {
        Some(value) => {
            original.insert(key, value);
        }
        None => {
            original.remove(&key);
        }
    }
}

/// The `a` of `$setElementOrder/a`.
fn directive_target<'k>(key: &'k str, prefix: &str) -> Option<&'k str> {
    key.strip_prefix(prefix)?.strip_prefix('/')
}

/// upstream: patch.go applyRetainKeysDirective
fn retain_keys(original: &mut Map, patch: &mut Map) -> Result<()> {
    let Some(keep) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::List(keep) = keep else { return Err(StrategicPatchError::BadRetainKeys) };
    let keep: std::collections::HashSet<&str> = keep.iter().filter_map(Value::as_str).collect();
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
        if !value.is_null() && !directive && !keep.contains(key) {
            return Err(StrategicPatchError::BadRetainKeys);
        }
    }
    original.retain(|key, _| keep.contains(key));
    Ok(())
}

/// upstream: patch.go discardNullValuesFromPatch
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Map(map) => map.retain(|_, item| {
            discard_nulls(item);
            !item.is_null()
        }),
        Value::List(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// A patch's value as a value: objects with a directive vanish.
/// upstream: patch.go removeDirectives
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Map(map) if map.contains_key(DIRECTIVE) => None,
        Value::Map(map) => {
            let kept = map.into_iter().filter_map(|(key, item)| Some((key, without_directives(item)?)));
            Some(Value::Map(Map::from_entries(kept.collect())))
        }
        Value::List(items) => Some(Value::List(items.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}
