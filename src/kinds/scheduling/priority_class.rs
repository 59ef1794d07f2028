//! PriorityClass. upstream: pkg/registry/scheduling/priorityclass/strategy.go, pkg/apis/scheduling/validation

use copepod_meta::{ErrorList, Value};

use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::fill_nil;
use crate::core::pod::spec::preemption_policy;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// upstream: scheduling.HighestUserDefinablePriority
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// The strategy.
pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, _version: &str, class: &mut Value) {
        fill_nil(class, "preemptionPolicy", "PreemptLowerPriority");
    }
    fn prepare_create(&self, _cx: &Context, class: &mut Value) {
        class.set(&["metadata", "generation"], 1);
    }
    fn validate_create(&self, _cx: &Context, class: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(class, e);
        let root = At::root(class);
        let (name, value) = (root.get("metadata.name"), root.get("value"));
        if name.str().starts_with("system-") {
            if let Some(why) = not_a_system_class(class) {
                name.forbidden(
                    e,
                    format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}"),
                );
            }
        } else if value.int() > USER_PRIORITY_MAX {
            value.forbidden(
                e,
                format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"),
            );
        }
        let policy = root.get("preemptionPolicy");
        if policy.is_set() {
            preemption_policy(policy, e);
        }
    }
    fn validate_update(&self, _cx: &Context, class: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(class, old, e);
        let root = At::root(class);
        let value = root.get("value");
        if value.int() != old.int_at(&["value"]) {
            value.forbidden(e, "may not be changed in an update.");
        }
        root.get("preemptionPolicy").immutable(e, old.get("preemptionPolicy"));
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("scheduling/PriorityClass")
    }
    fn row(&self, class: &Value) -> Row {
        cells::row([
            cells::name(class),
            class.int_at(&["value"]).into(),
            class.bool_at(&["globalDefault"]).into(),
            cells::age(class),
            class.str_at(&["preemptionPolicy"]).into(),
        ])
    }
}

/// upstream: IsKnownSystemPriorityClass
fn not_a_system_class(class: &Value) -> Option<String> {
    let name = class.str_at(&["metadata", "name"]);
    let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class.int_at(&["value"]) != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    class.bool_at(&["globalDefault"]).then(|| format!("globalDefault of {name} PriorityClass must be false"))
}
