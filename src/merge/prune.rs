//! Fields that a custom resource's schema does not have.
//! upstream: apiextensions-apiserver/pkg/apiserver/schema/pruning/algorithm.go PruneWithOptions

use copepod_meta::Value;
use copepod_meta::field::quote;
use copepod_schema::{StructType, Type, TypeId, Universe};

/// Removes them; what strict field validation says of each.
///
/// The root's `metadata` is a built-in type's and stays as it is, as does that of embedded objects.
pub fn prune(value: &mut Value, universe: &Universe, ty: TypeId) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(value, universe, ty, true, "", &mut unknown);
    unknown
}

fn walk(
    value: &mut Value,
    universe: &Universe,
    ty: TypeId,
    root: bool,
    path: &str,
    unknown: &mut Vec<String>,
) {
    match (universe.get(ty), value) {
        (Type::Struct(ty), Value::Map(map)) => {
            map.retain(|name, item| {
                if implied(ty, name, root) {
                    return true;
                }
                let path = join(path, name);
                match ty.field(name) {
                    Some(field) => walk(item, universe, field.ty, false, &path, unknown),
                    None if ty.preserve_unknown => {}
                    None => {
                        unknown.push(format!("unknown field {}", quote(&path)));
                        return false;
                    }
                }
                true
            });
        }
        (Type::List(list), Value::List(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, universe, list.elem, false, &format!("{path}[{index}]"), unknown);
            }
        }
        (Type::Map(map), Value::Map(entries)) => {
            for (name, item) in entries.iter_mut() {
                walk(item, universe, map.value, false, &join(path, name), unknown);
            }
        }
        _ => {}
    }
}

/// Members that every object has, whatever its schema says.
fn implied(ty: &StructType, name: &str, root: bool) -> bool {
    (root || ty.embedded_resource) && matches!(name, "apiVersion" | "kind" | "metadata")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}
