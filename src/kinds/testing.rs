//! What the tests of this crate share.

use copepod_meta::{GroupResource, Map, User, Value};
use std::sync::LazyLock;

use crate::strategy::Context;

/// A tree from JSON text; nulls are left out, as typed decoders do.
pub fn json(text: &str) -> Value {
    tree(&serde_json::from_str(text).unwrap_or_else(|e| panic!("bad JSON in a test: {e}\n{text}")))
}

/// A tree from JSON.
pub fn tree(v: &serde_json::Value) -> Value {
    match v {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().expect("a JSON number is an i64 or an f64")),
        },
        serde_json::Value::String(s) => Value::string(s),
        serde_json::Value::Array(a) => Value::List(a.iter().map(tree).collect()),
        serde_json::Value::Object(o) => {
            let members = o.iter().filter(|(_, v)| !v.is_null());
            Value::Map(members.map(|(k, v)| (k.as_str(), tree(v))).collect::<Map>())
        }
    }
}

/// A request by nobody in particular, in namespace `default`, with the default feature gates.
pub fn context() -> Context<'static> {
    static USER: LazyLock<User> = LazyLock::new(|| User {
        name: "admin".into(),
        groups: vec!["system:masters".into()],
        ..User::default()
    });
    static RESOURCE: LazyLock<GroupResource> = LazyLock::new(GroupResource::default);
    Context {
        user: &USER,
        namespace: "default",
        resource: &RESOURCE,
        now: "2026-01-02T03:04:05Z",
        feature: |name| {
            let gate = copepod_schema::feature_gates().iter().find(|g| g.name == name);
            gate.is_some_and(|g| g.default)
        },
    }
}

/// Standard base64, as `[]byte` fields have it in JSON.
pub fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|c| ALPHABET.iter().position(|a| *a == c)).map(|d| d as u32);
    let (mut out, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for digit in digits {
        bits = bits << 6 | digit;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    out
}

#[test]
fn what_lacks_validation_is_told() {
    let lacking = crate::lacking_full_validation();
    println!("{} lack full validation: {}", lacking.len(), lacking.join(", "));
    assert!(!lacking.contains(&"pods".to_string()));
}
