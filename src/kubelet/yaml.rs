//! YAML files: as JSON first, and by that road into a type.
//!
//! So upstream reads them (sigs.k8s.io/yaml): `0644` is octal, a number is no text. It also spares a second set of
//! decoders for each of the API's types, beside those for JSON: for pods alone they were close to half of this crate's
//! code.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads a document.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_slice(&to_json(text)?).map_err(|error| error.to_string())
}

fn to_json(text: &str) -> Result<Vec<u8>, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let tree: Value =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    serde_json::to_vec(&tree).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_are_upstreams() {
        for (text, want) in [
            ("a: 0644", json!({"a": 420})),
            ("a: 420", json!({"a": 420})),
            ("a: '0644'", json!({"a": "0644"})),
            ("a: yes", json!({"a": true})),
            ("a: ~", json!({"a": null})),
            ("1: x", json!({"1": "x"})),
            ("a: &x {b: 1}\nc: *x", json!({"a": {"b": 1}, "c": {"b": 1}})),
        ] {
            assert_eq!(read::<Value>(text).expect(text), want, "{text}");
        }
        assert!(read::<Value>("a: [1").is_err());
        assert!(read::<std::collections::BTreeMap<String, String>>("a: 1").is_err(), "a number is no text");
    }
}
