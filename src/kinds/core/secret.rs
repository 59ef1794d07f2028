//! Secret. upstream: pkg/registry/core/secret/strategy.go, validation.go ValidateSecret
//!
//! upstream, too: AddFieldLabelConversionsForSecret

use copepod_meta::{ErrorList, Value, names};

use super::config_map::{DATA_BYTES_MAX, IMMUTABLE_SET};
use crate::cells;
use crate::check::At;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

const REDACTED: &str = "<secret contents redacted>";

/// The strategy.
pub struct Secret;

impl Strategy for Secret {
    fn default(&self, _version: &str, secret: &mut Value) {
        if secret.str_at(&["type"]).is_empty() {
            secret.set(&["type"], "Opaque");
        }
    }
    /// stringData is written to only; it overwrites data. upstream: Convert_v1_Secret_To_core_Secret
    fn to_hub(&self, _version: &str, secret: &mut Value) {
        let Some(Value::Map(texts)) = secret.remove(&["stringData"]) else { return };
        for (key, text) in texts {
            let bytes = text.as_str().unwrap_or("").as_bytes().to_vec();
            *secret.make(&["data", &key]) = Value::Bytes(bytes.into());
        }
    }
    fn prepare_update(&self, _cx: &Context, secret: &mut Value, old: &Value) {
        if secret.str_at(&["type"]).is_empty() {
            secret.set(&["type"], old.str_at(&["type"]));
        }
    }
    fn validate_create(&self, _cx: &Context, secret: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(secret, e);
        validate(secret, e);
    }
    fn validate_update(&self, _cx: &Context, secret: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(secret, old, e);
        let root = At::root(secret);
        root.get("type").immutable(e, old.get("type"));
        if old.bool_at(&["immutable"]) {
            if !secret.bool_at(&["immutable"]) {
                root.get("immutable").forbidden(e, IMMUTABLE_SET);
            }
            if secret.get("data") != old.get("data") {
                root.get("data").forbidden(e, IMMUTABLE_SET);
            }
        }
        metadata::validate_core(secret, true, &names::dns1123_subdomain_prefixed, e);
        validate(secret, e);
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Secret")
    }
    fn row(&self, secret: &Value) -> Row {
        let keys = secret.map_at(&["data"]).len() as i64;
        cells::row([cells::name(secret), secret.str_at(&["type"]).into(), keys.into(), cells::age(secret)])
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }
    fn field(&self, secret: &Value, name: &str) -> String {
        if name == "type" { secret.str_at(&["type"]).into() } else { String::new() }
    }
}

/// upstream: ValidateSecret, less metadata
fn validate(secret: &Value, e: &mut ErrorList) {
    let root = At::root(secret);
    let data = root.get("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        for message in names::config_map_key(key) {
            value.invalid_str(e, key, message);
        }
        bytes += value.len();
    }
    if bytes > DATA_BYTES_MAX {
        data.too_long(e, DATA_BYTES_MAX);
    }
    let missing = |key: &str, e: &mut ErrorList| {
        if !data.map().contains_key(key) {
            data.key(key).required(e, "");
        }
    };
    match secret.str_at(&["type"]) {
        "kubernetes.io/service-account-token" => {
            let annotations = root.get("metadata.annotations");
            annotations.key("kubernetes.io/service-account.name").need(e);
        }
        "kubernetes.io/dockercfg" => json_object(data, ".dockercfg", e),
        "kubernetes.io/dockerconfigjson" => json_object(data, ".dockerconfigjson", e),
        "kubernetes.io/basic-auth"
            if !data.map().contains_key("username") && !data.map().contains_key("password") =>
        {
            missing("username", e);
            missing("password", e);
        }
        "kubernetes.io/ssh-auth" => {
            data.key("ssh-privatekey").need(e);
        }
        "kubernetes.io/tls" => {
            missing("tls.crt", e);
            missing("tls.key", e);
        }
        _ => {}
    }
}

fn json_object(data: At, key: &str, e: &mut ErrorList) {
    let at = data.key(key);
    let text = match at.value {
        Value::Null => return at.required(e, ""),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_str().unwrap_or("").to_string(),
    };
    if let Some(why) = crate::go_json::object_error(&text) {
        at.invalid_str(e, REDACTED, why);
    }
}
