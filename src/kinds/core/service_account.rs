//! ServiceAccount. upstream: pkg/registry/core/serviceaccount/strategy.go

use copepod_meta::{ErrorList, Value, names};

use crate::cells;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// The strategy.
pub struct ServiceAccount;

/// References to secrets keep their names only. upstream: cleanSecretReferences
fn clean(account: &mut Value) {
    for secret in account.at_mut(&["secrets"]).and_then(Value::as_list_mut).into_iter().flatten() {
        secret.make_map().retain(|member, _| member == "name");
    }
}

impl Strategy for ServiceAccount {
    fn prepare_create(&self, _cx: &Context, account: &mut Value) {
        clean(account);
    }
    fn prepare_update(&self, _cx: &Context, account: &mut Value, _old: &Value) {
        clean(account);
    }
    fn validate_create(&self, _cx: &Context, account: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(account, e);
    }
    fn validate_update(&self, _cx: &Context, account: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(account, old, e);
        metadata::validate_core(account, true, &names::dns1123_subdomain_prefixed, e);
    }
    fn warnings(&self, _cx: &Context, account: &Value, old: Option<&Value>) -> Vec<String> {
        let has = |v: &Value| v.map_at(&["metadata", "annotations"]).contains_key(ENFORCE);
        if !has(account) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/ServiceAccount")
    }
    fn row(&self, account: &Value) -> Row {
        cells::row([cells::name(account), cells::age(account)])
    }
}
