//! YAML as `sigs.k8s.io/yaml` sees it: a way to write JSON. In: YAML 1.1's words (`yes`, `on`, `010`),
//! aliases, merge keys. Out: go-yaml v2's layout, so that answers look as upstream's.
//!
//! | module | what |
//! |---|---|
//! | `input` | events -> plain tree |
//! | `scalar` | what a plain scalar means |
//! | `output` | plain tree -> text |

mod input;
mod output;
mod scalar;

use crate::error::DecodeError;

/// The first document as JSON, and the keys that occur twice as a strict error.
/// upstream: sigs.k8s.io/yaml YAMLToJSON, YAMLToJSONStrict
pub fn yaml_to_json(text: &[u8]) -> Result<(Vec<u8>, Option<String>), DecodeError> {
    let text = std::str::from_utf8(text)
        .map_err(|_| DecodeError::Yaml("yaml: invalid leading UTF-8 octet".into()))?;
    let document = input::read(text).map_err(DecodeError::Yaml)?;
    Ok((crate::encode_untyped(&document.value), document.duplicates))
}

/// JSON of our own making as YAML, with a final line break.
/// upstream: sigs.k8s.io/yaml JSONToYAML
pub fn json_to_yaml(json: &[u8]) -> Vec<u8> {
    // Our encoders' text; verbatim JSON that is deeper than a tree may be is shown as JSON, which YAML is
    // too.
    match crate::json::decode_any(json) {
        Ok((value, _)) => output::write(&value).into_bytes(),
        Err(_) => json.to_vec(),
    }
}
