//! The type graph as server-side apply sees it: objects, lists and scalars, each granular or atomic.
//! upstream: kube-openapi/pkg/schemaconv/openapi.go, structured-merge-diff/v6 schema/elements.go,
//! typed/helpers.go

use copepod_meta::{CompactString, Value};
use copepod_schema::{ListKind, Name, Omit, Special, StructType, Type, TypeId, Universe};

use super::path::PathElement;
use crate::go_format::{go_format, go_syntax};

/// The type at a place.
#[derive(Clone, Copy)]
pub(super) enum Shape<'u> {
    /// A type of the graph; `atomic` if the field that leads here says so.
    Typed { universe: &'u Universe, ty: TypeId, atomic: bool, root: bool },
    /// Whatever the value is: objects granular, lists atomic.
    Deduced,
    /// Whatever the value is, as one.
    Atomic,
    /// A plain scalar outside the graph (type meta of a custom resource).
    Scalar,
}

/// What a value of a shape is walked as.
#[derive(Clone, Copy)]
pub(super) enum Form<'u> {
    Object { fields: Option<Fields<'u>>, element: Option<Shape<'u>>, atomic: bool },
    List { element: Shape<'u>, keys: Keys<'u> },
    Scalar(Option<&'static str>),
}

/// Declared members.
#[derive(Clone, Copy)]
pub(super) struct Fields<'u> {
    universe: &'u Universe,
    ty: &'u StructType,
    root: bool,
}

/// How list items are told apart.
#[derive(Clone, Copy)]
pub(super) enum Keys<'u> {
    /// They are not: the list is one value.
    Atomic,
    Set,
    Map(&'u [Name]),
}

impl<'u> Fields<'u> {
    /// The shape of a declared member.
    pub(super) fn find(&self, name: &str) -> Option<Shape<'u>> {
        if self.universe.is_unstructured() && (self.root || self.ty.embedded_resource) {
            match name {
                "apiVersion" | "kind" => return Some(Shape::Scalar),
                "metadata" => return object_meta(),
                _ => {}
            }
        }
        let field = self.ty.field(name)?;
        Some(Shape::Typed { universe: self.universe, ty: field.ty, atomic: field.atomic, root: false })
    }

    /// What OpenAPI gives as a member's default: the unconditional one, or zero for scalars that are always
    /// written.
    fn default_of(&self, name: &str) -> Option<Value> {
        use copepod_schema::Scalar;
        let field = self.ty.field(name)?;
        let always_written = field.omit == Omit::Never && !field.pointer && !self.universe.is_unstructured();
        match (&field.default, self.universe.get(field.ty)) {
            (Some(default), _) => Some(default.clone()),
            (None, Type::Scalar(Scalar::String)) if always_written || field.empty_default => {
                Some(Value::string(""))
            }
            (None, Type::Scalar(Scalar::Int32 | Scalar::Int64)) if always_written => Some(Value::Int(0)),
            _ => None,
        }
    }
}

fn object_meta() -> Option<Shape<'static>> {
    let universe = Universe::builtin();
    let ty = universe.by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
    Some(Shape::Typed { universe, ty, atomic: false, root: false })
}

impl<'u> Shape<'u> {
    /// The shape of a whole object.
    pub(super) fn root(universe: &'u Universe, ty: TypeId) -> Shape<'u> {
        Shape::Typed { universe, ty, atomic: false, root: true }
    }

    /// How a value of this shape is walked; shapes that take anything go by the value.
    pub(super) fn form(self, value: &Value) -> Form<'u> {
        match self {
            Shape::Typed { universe, ty, atomic, root } => typed_form(universe, ty, atomic, root, value),
            Shape::Deduced => deduced(value, false),
            Shape::Atomic => deduced(value, true),
            Shape::Scalar => Form::Scalar(Some("string")),
        }
    }

    /// Whether the form depends on the value.
    pub(super) fn is_deduced(self) -> bool {
        match self {
            Shape::Deduced | Shape::Atomic => true,
            Shape::Scalar => false,
            Shape::Typed { universe, ty, .. } => match universe.get(ty) {
                Type::Any => true,
                Type::Special(special) => special_is_deduced(*special),
                _ => false,
            },
        }
    }
}

fn special_is_deduced(special: Special) -> bool {
    !matches!(
        special,
        Special::Time | Special::MicroTime | Special::Duration | Special::Quantity | Special::IntOrString
    )
}

fn typed_form<'u>(universe: &'u Universe, ty: TypeId, atomic: bool, root: bool, value: &Value) -> Form<'u> {
    use copepod_schema::Scalar;
    let below = |ty| Shape::Typed { universe, ty, atomic: false, root: false };
    match universe.get(ty) {
        Type::Struct(ty) => Form::Object {
            fields: Some(Fields { universe, ty, root }),
            element: ty.preserve_unknown.then_some(Shape::Deduced),
            atomic: atomic || ty.atomic,
        },
        Type::Map(map) => {
            Form::Object { fields: None, element: Some(below(map.value)), atomic: atomic || map.atomic }
        }
        Type::List(list) => Form::List {
            element: below(list.elem),
            keys: match &list.kind {
                ListKind::Atomic => Keys::Atomic,
                ListKind::Set => Keys::Set,
                ListKind::Map { keys } => Keys::Map(keys),
            },
        },
        Type::Scalar(Scalar::Bool) => Form::Scalar(Some("boolean")),
        Type::Scalar(Scalar::String | Scalar::Bytes) => Form::Scalar(Some("string")),
        Type::Scalar(_) => Form::Scalar(Some("numeric")),
        Type::Special(Special::RawExtension) => deduced(value, true),
        Type::Special(special) if special_is_deduced(*special) => deduced(value, false),
        Type::Special(_) => Form::Scalar(None),
        Type::Any => deduced(value, atomic),
    }
}

fn deduced<'u>(value: &Value, atomic: bool) -> Form<'u> {
    match value {
        Value::Map(_) => {
            let element = if atomic { Shape::Atomic } else { Shape::Deduced };
            Form::Object { fields: None, element: Some(element), atomic }
        }
        Value::List(_) => Form::List { element: Shape::Atomic, keys: Keys::Atomic },
        _ => Form::Scalar(None),
    }
}

/// The shape of an object's member.
pub(super) fn member<'u>(
    fields: Option<Fields<'u>>,
    element: Option<Shape<'u>>,
    name: &str,
) -> Option<Shape<'u>> {
    fields.and_then(|f| f.find(name)).or(element)
}

/// How an item of a granular list is named.
/// upstream: typed/helpers.go listItemToPathElement
pub(super) fn item_element(keys: Keys, element: Shape, item: &Value) -> Result<PathElement, String> {
    match keys {
        Keys::Atomic => Err("invalid indexing of non-associative list".into()),
        Keys::Set => match item {
            Value::Map(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::List(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(PathElement::Value(scalar.clone())),
        },
        Keys::Map(keys) => keyed_element(keys, element, item),
    }
}

fn keyed_element(keys: &[Name], element: Shape, item: &Value) -> Result<PathElement, String> {
    let map = match item {
        Value::Map(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let defaults = match element.form(item) {
        Form::Object { fields, .. } => fields,
        _ => return Err("associative list may not have non-map types".into()),
    };
    let mut found: Vec<(CompactString, Value)> = Vec::with_capacity(keys.len());
    for key in keys {
        let value = map.get(key).cloned().or_else(|| defaults.and_then(|f| f.default_of(key)));
        found.extend(value.map(|value| (CompactString::new(key), value)));
    }
    if found.is_empty() {
        let names: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(PathElement::Key(found))
}

/// Whether [`item_element`] finds a name for each item of each granular list in a value.
pub(super) fn has_names(value: &Value, shape: Shape) -> bool {
    match (shape.form(value), value) {
        (Form::Object { atomic: true, .. } | Form::List { keys: Keys::Atomic, .. }, _) => true,
        (Form::Object { fields, element, .. }, Value::Map(members)) => members
            .iter()
            .all(|(name, value)| member(fields, element, name).is_some_and(|shape| has_names(value, shape))),
        (Form::List { element, keys }, Value::List(items)) => {
            items.iter().all(|item| item_element(keys, element, item).is_ok() && has_names(item, element))
        }
        _ => true,
    }
}

/// What is wrong with a scalar. upstream: typed/validate.go validateScalar
pub(super) fn check_scalar(expected: Option<&str>, value: &Value) -> Result<(), String> {
    let shown = || match value {
        Value::Map(_) | Value::List(_) => format!("&{{{}}}", go_format(value)),
        other => format!("&{{{}}}", go_format(other)),
    };
    let debug = || format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value));
    match (expected, value) {
        (_, Value::Null) => Ok(()),
        (Some("numeric"), Value::Int(_) | Value::Float(_)) => Ok(()),
        (Some("numeric"), other) => {
            Err(format!("expected numeric (int or float), got {}", crate::go_format::go_type(other)))
        }
        (Some("string"), Value::String(_) | Value::Bytes(_)) => Ok(()),
        (Some("string"), _) => Err(format!("expected string, got {}", debug())),
        (Some("boolean"), Value::Bool(_)) => Ok(()),
        (Some(_), _) => Err(format!("expected boolean, got {}", shown())),
        (None, Value::Map(_) | Value::List(_)) => Err(format!("expected any scalar, got {}", shown())),
        (None, _) => Ok(()),
    }
}
