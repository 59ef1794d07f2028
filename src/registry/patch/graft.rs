//! What a merge patch or a strategic merge patch changes of an object of a built-in type, so that the rest need not become plain
//! JSON and come back: most patches are of a status or of labels, most of an object is its spec.
//!
//! A member of a struct that the document does not name stays as it is. So the document is followed down through structs that
//! the object has; where anything else stands (a list, a map, a value, a struct that is new, a directive of a strategic patch)
//! the member is taken whole.
//!
//! upstream: apimachinery/pkg/util/strategicpatch/patch.go mergeMap, for what is left alone

use copepod_meta::{Map, Value};
use copepod_schema::{StructType, TypeId, Universe};

/// Paths of members, and what becomes of them.
pub(super) struct Members<'p> {
    paths: Vec<Vec<&'p str>>,
    values: Vec<Option<Value>>,
}

/// The members that a document names, and the part of the object that they are. `None`: all of it.
pub(super) fn members<'p>(
    types: &Universe,
    ty: TypeId,
    document: &'p Value,
    current: &Value,
    strategic: bool,
) -> Option<(Members<'p>, Value)> {
    let (document, members) = (document.as_map()?, current.as_map()?);
    let ty = types.get_struct(ty).filter(|_| !types.is_unstructured())?;
    let mut walk = Walk { types, strategic, path: Vec::new(), found: Vec::new() };
    if !walk.down(ty, document, members) {
        return None;
    }
    let mut part = Value::map();
    for path in &walk.found {
        let value = current.at(path);
        if !value.is_null() {
            part.set(path, value.clone());
        }
    }
    Some((Members { paths: walk.found, values: Vec::new() }, part))
}

struct Walk<'u, 'p> {
    types: &'u Universe,
    strategic: bool,
    path: Vec<&'p str>,
    found: Vec<Vec<&'p str>>,
}

impl<'p> Walk<'_, 'p> {
    /// Finds the members of a struct that a document names; false (and none found) if it must be taken whole.
    fn down(&mut self, ty: &StructType, document: &'p Map, current: &Map) -> bool {
        if document.is_empty() || (self.strategic && document.keys().any(|name| name.starts_with('$'))) {
            return false;
        }
        for (name, value) in document.iter() {
            self.path.push(name);
            if !self.member(ty, name, value, current) {
                self.found.push(self.path.clone());
            }
            self.path.pop();
        }
        true
    }

    fn member(&mut self, ty: &StructType, name: &str, value: &'p Value, current: &Map) -> bool {
        let (Some(field), Some(document), Some(Value::Map(current))) =
            (ty.field(name), value.as_map(), current.get(name))
        else {
            return false;
        };
        let how = &field.patch_strategy;
        if self.strategic && (how.replace || how.retain_keys) {
            return false;
        }
        let ty = self.types.get_struct(field.ty);
        ty.is_some_and(|ty| self.down(ty, document, current))
    }
}

impl Members<'_> {
    /// The members as they are in a patched part of an object. `None`: a struct would be left with nothing in it, of which
    /// only all of the object tells whether it stays.
    pub(super) fn changed(mut self, mut part: Value, current: &Value) -> Option<Self> {
        for path in &self.paths {
            let value = part.at_mut(path).map(std::mem::take).filter(|value| !value.is_null());
            let holder = &path[..path.len() - 1];
            let goes = value.is_none() && !current.at(path).is_null();
            if goes && current.map_at(holder).len() <= self.paths.len() {
                return None;
            }
            self.values.push(value);
        }
        Some(self)
    }

    /// The object with these members.
    pub(super) fn put_into(self, mut object: Value) -> Value {
        for (path, value) in self.paths.iter().zip(self.values) {
            match value {
                Some(value) => object.set(path, value),
                None => {
                    object.remove(path);
                }
            }
        }
        object
    }
}
