//! CSIStorageCapacity. upstream: pkg/registry/storage/csistoragecapacity/strategy.go, pkg/apis/storage/validation

use copepod_meta::{ErrorList, Value, names};

use crate::cells::{self, UNSET};
use crate::check::{At, IMMUTABLE, NEGATIVE};
use crate::core::node_labels;
use crate::core::resources::quantity;
use crate::equality::same_as;
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate_create(&self, _cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(object, false, e);
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        let old_root = At::root(old);
        let mut wrong = ErrorList::new();
        metadata::label_selector(old_root.get("nodeTopology"), false, &mut wrong);
        metadata::validate_core(object, true, &names::dns1123_subdomain_prefixed, e);
        validate(object, !wrong.is_empty(), e);
        metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        let topology = root.get("nodeTopology");
        if !same_as(topology.value, old.get("nodeTopology"), print::LABEL_SELECTOR) {
            let printed = match topology.value {
                Value::Null => "null".into(),
                value => print::json(value, print::LABEL_SELECTOR),
            };
            topology.invalid_printed(e, printed, IMMUTABLE);
        }
        root.get("storageClassName").immutable(e, old.get("storageClassName"));
    }
    fn warnings(&self, _cx: &Context, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = At::root(object);
        let topology = root.get("nodeTopology");
        node_labels::term_warnings(topology, false, &mut out);
        for label in topology.value.map_at(&["matchLabels"]).keys() {
            if let Some(message) = node_labels::deprecated(label) {
                out.push(format!("nodeTopology.matchLabels.{label}: {message}"));
            }
        }
        out
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("storage/CSIStorageCapacity")
    }
    fn row(&self, object: &Value) -> Row {
        let capacity = match object.get("capacity") {
            Value::Null => UNSET.into(),
            amount => quantity(amount).to_string(),
        };
        let class = object.str_at(&["storageClassName"]);
        cells::row([cells::name(object), class.into(), capacity.into()])
    }
}

/// upstream: ValidateCSIStorageCapacity
fn validate(object: &Value, invalid_values: bool, e: &mut ErrorList) {
    let root = At::root(object);
    metadata::label_selector(root.get("nodeTopology"), invalid_values, e);
    root.get("storageClassName").dns_subdomain(e);
    let capacity = root.get("capacity");
    let amount = quantity(capacity.value);
    if capacity.is_set() && amount.sign() < 0 {
        capacity.invalid_str(e, &amount.to_string(), NEGATIVE);
    }
}
