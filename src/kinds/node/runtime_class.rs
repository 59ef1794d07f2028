//! RuntimeClass. upstream: pkg/registry/node/runtimeclass/strategy.go, pkg/apis/node/validation

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use crate::cells;
use crate::check::At;
use crate::core::node_labels;
use crate::core::pod::defaults::round_up;
use crate::core::pod::options::Options;
use crate::core::pod::scheduling;
use crate::core::resources::{self, Level};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn default(&self, _version: &str, class: &mut Value) {
        round_up(class, &["overhead", "podFixed"]);
    }
    fn validate_create(&self, cx: &Context, class: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(class, e);
        validate(cx, class, e);
    }
    fn validate_update(&self, cx: &Context, class: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(class, false, &names::dns1123_subdomain_prefixed, e);
        validate(cx, class, e);
        metadata::validate_update_core(class, old, e);
        At::root(class).get("handler").immutable(e, old.get("handler"));
    }
    fn warnings(&self, _cx: &Context, class: &Value, _old: Option<&Value>) -> Vec<String> {
        let keys = class.map_at(&["scheduling", "nodeSelector"]).keys();
        let messages = keys.filter_map(|key| node_labels::deprecated(key).map(|message| (key, message)));
        messages.map(|(_, message)| format!("scheduling.nodeSelector: {message}")).collect()
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("node/RuntimeClass")
    }
    fn row(&self, class: &Value) -> Row {
        cells::row([cells::name(class), class.str_at(&["handler"]).into(), cells::age(class)])
    }
}

/// upstream: ValidateRuntimeClass
fn validate(cx: &Context, class: &Value, e: &mut ErrorList) {
    let root = At::root(class);
    let handler = root.get("handler");
    if handler.need(e) {
        handler.dns_label(e);
    }
    let overhead = root.get("overhead");
    if overhead.is_set() {
        // Looked at as the limits of a container.
        let mut as_limits = Value::map();
        if let Some(fixed) = overhead.value.as_map().and_then(|m| m.get("podFixed")) {
            as_limits.set(&["limits"], fixed.clone());
        }
        // Upstream lets nothing pass that gates or stored templates let pass.
        let options = Options::new(cx, None);
        resources::requirements(overhead.with(&as_limits), Level::Container, &BTreeSet::new(), &options, e);
    }
    let scheduling = root.get("scheduling");
    metadata::labels(scheduling.get("nodeSelector"), e);
    let tolerations = scheduling.get("tolerations");
    scheduling::tolerations(tolerations, false, e);
    let key = |t: &Value| ["key", "operator", "value", "effect"].map(|m| t.str_at(&[m]).to_string());
    let mut seen = Vec::new();
    for toleration in tolerations.items() {
        let key = key(toleration.value);
        if seen.contains(&key) {
            toleration.duplicate_printed(e, print::internal(toleration.value, "core/Toleration"), "");
        } else {
            seen.push(key);
        }
    }
}
