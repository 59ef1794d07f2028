//! What the engine itself does to metadata: system fields, generated names, namespaces, owner references, finalizers.
//!
//! upstream: apiserver/pkg/registry/rest/{meta,create}.go, apiserver/pkg/endpoints/handlers/rest.go

use copepod_meta::{CompactString, Status, Value};
use rand::RngExt as _;

use crate::api::Warnings;

/// Characters of generated names: no vowels, no look-alikes. upstream: apimachinery/pkg/util/rand alphanums
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// upstream: apiserver/pkg/storage/names/generate.go
const SUFFIX_LEN: usize = 5;
const PREFIX_LEN_MAX: usize = 63 - SUFFIX_LEN;

/// Finalizer of orphaning deletion.
pub(crate) const ORPHAN: &str = "orphan";
/// Finalizer of foreground deletion.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// A random suffix as upstream's names have.
pub(crate) fn random_suffix(len: usize) -> String {
    let mut rng = rand::rng();
    (0..len).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// A name for a generateName. upstream: SimpleNameGenerator
pub(crate) fn generate_name(prefix: &str) -> String {
    let mut end = prefix.len().min(PREFIX_LEN_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], random_suffix(SUFFIX_LEN))
}

/// Whether the server has to find a name.
pub(crate) fn needs_name(object: &Value) -> bool {
    object.str_at(&["metadata", "name"]).is_empty()
        && !object.str_at(&["metadata", "generateName"]).is_empty()
}

/// Takes away what only the server sets. upstream: WipeObjectMetaSystemFields
pub(crate) fn wipe_system_fields(object: &mut Value) {
    let meta = object.make(&["metadata"]).make_map();
    for name in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        meta.remove(name);
    }
}

/// upstream: FillObjectMetaSystemFields
pub(crate) fn fill_system_fields(object: &mut Value, now: &CompactString) {
    let meta = object.make(&["metadata"]).make_map();
    meta.insert("creationTimestamp", now.clone());
    meta.insert("uid", uuid::Uuid::new_v4().to_string());
}

/// The object is in the namespace of the request, or is put there. upstream: EnsureObjectNamespaceMatchesRequestNamespace
pub(crate) fn ensure_namespace(object: &mut Value, expected: &str) -> Result<(), Status> {
    let own = object.str_at(&["metadata", "namespace"]);
    if own == expected {
        return Ok(());
    }
    if !own.is_empty() && !expected.is_empty() {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    if expected.is_empty() {
        object.remove(&["metadata", "namespace"]);
    } else {
        object.set(&["metadata", "namespace"], expected);
    }
    Ok(())
}

/// The object is the one of the URL. upstream: checkName
pub(crate) fn check_name(object: &Value, name: &str) -> Result<(), Status> {
    let own = object.str_at(&["metadata", "name"]);
    if own.is_empty() {
        let why =
            format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
        return Err(Status::bad_request(why));
    }
    if own != name {
        let why = format!("the name of the object ({own}) does not match the name on the URL ({name})");
        return Err(Status::bad_request(why));
    }
    Ok(())
}

/// Takes out owner references that stand twice, with a warning. upstream: dedupOwnerReferencesAndAddWarning
pub(crate) fn dedup_owners(object: &mut Value, warnings: &Warnings, after_admission: bool) {
    let Some(references) = object.at_mut(&["metadata", "ownerReferences"]).and_then(Value::as_list_mut)
    else {
        return;
    };
    let mut kept: Vec<Value> = Vec::with_capacity(references.len());
    let mut twice: Vec<String> = Vec::new();
    for reference in std::mem::take(references) {
        if kept.contains(&reference) {
            twice.push(reference.str_at(&["uid"]).to_string());
        } else {
            kept.push(reference);
        }
    }
    *references = kept;
    if !twice.is_empty() {
        let when = if after_admission { " after mutating admission happens" } else { "" };
        warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object.list_at(&["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
}

/// Sets the finalizers of an object.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if finalizers.is_empty() {
        object.remove(&["metadata", "finalizers"]);
    } else {
        let list: Vec<Value> = finalizers.iter().map(Value::string).collect();
        object.set(&["metadata", "finalizers"], list);
    }
}

/// Whether deletion of the object was asked for.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !object.at(&["metadata", "deletionTimestamp"]).is_null()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        for (prefix, head) in [("web-", "web-"), (&"a".repeat(80) as &str, &"a".repeat(58) as &str)] {
            let name = generate_name(prefix);
            assert!(name.starts_with(head) && name.len() == head.len() + 5, "{name}");
            assert!(name[head.len()..].bytes().all(|b| ALPHABET.contains(&b)), "{name}");
        }
    }

    #[test]
    fn namespaces_are_filled_in_or_refused() {
        for (own, expected, want) in
            [("", "a", Ok("a")), ("a", "a", Ok("a")), ("a", "", Ok("")), ("b", "a", Err(()))]
        {
            let mut object = Value::map();
            object.set(&["metadata", "namespace"], own);
            let got = ensure_namespace(&mut object, expected);
            assert_eq!(
                got.map(|()| object.str_at(&["metadata", "namespace"])).map_err(|_| ()),
                want,
                "{own} in {expected}"
            );
        }
    }
}
