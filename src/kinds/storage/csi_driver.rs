//! CSIDriver. upstream: pkg/registry/storage/csidriver/strategy.go, pkg/apis/storage/validation

use copepod_meta::{ErrorList, Value};
use std::collections::BTreeSet;

use crate::cells::{self, NONE, UNSET};
use crate::check::At;
use crate::core::pod::defaults::fill_nil;
use crate::generic::bump_generation_if_changed;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct CsiDriver;

/// Members of the spec behind a gate.
const GATED: [(&str, &str); 4] = [
    ("SELinuxMountReadWriteOncePod", "seLinuxMount"),
    ("MutableCSINodeAllocatableCount", "nodeAllocatableUpdatePeriodSeconds"),
    ("CSIServiceAccountTokenSecrets", "serviceAccountTokenInSecrets"),
    ("VolumeLimitScaling", "preventPodSchedulingIfMissing"),
];

fn drop_gated(cx: &Context, driver: &mut Value, old: &Value) {
    for (gate, member) in GATED {
        if !(cx.feature)(gate) && old.at(&["spec", member]).is_null() {
            driver.remove(&["spec", member]);
        }
    }
}

impl Strategy for CsiDriver {
    fn default(&self, _version: &str, driver: &mut Value) {
        let spec = driver.make(&["spec"]);
        fill_nil(spec, "attachRequired", true);
        for member in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill_nil(spec, member, false);
        }
        fill_nil(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.list_at(&["volumeLifecycleModes"]).is_empty() {
            spec.set(&["volumeLifecycleModes"], vec![Value::from("Persistent")]);
        }
    }
    fn prepare_create(&self, cx: &Context, driver: &mut Value) {
        drop_gated(cx, driver, &Value::Null);
    }
    fn prepare_update(&self, cx: &Context, driver: &mut Value, old: &Value) {
        drop_gated(cx, driver, old);
        bump_generation_if_changed(driver, old, "io.k8s.api.storage.v1.CSIDriverSpec");
    }
    fn validate_create(&self, cx: &Context, driver: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(driver, e);
        validate(cx, driver, e);
    }
    fn validate_update(&self, cx: &Context, driver: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(driver, old, e);
        validate(cx, driver, e);
        let root = At::root(driver);
        let spec = root.get("spec");
        let attach = spec.value.get("attachRequired");
        spec.get("attachedRequired").with(attach).immutable_pointer(e, old.at(&["spec", "attachRequired"]));
        spec.get("volumeLifecycleModes").immutable_map(e, old.at(&["spec", "volumeLifecycleModes"]));
    }
    fn warnings(&self, cx: &Context, driver: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = driver.get("spec");
        let asks = !spec.list_at(&["tokenRequests"]).is_empty();
        if (cx.feature)("CSIServiceAccountTokenSecrets")
            && asks
            && spec.get("serviceAccountTokenInSecrets").is_null()
        {
            return vec![
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                 possible logging of tokens in volume attributes"
                    .into(),
            ];
        }
        Vec::new()
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("storage/CSIDriver")
    }
    fn row(&self, driver: &Value) -> Row {
        let spec = driver.get("spec");
        let flag = |member: &str, default: bool| spec.get(member).as_bool().unwrap_or(default).into();
        let join = |list: &Value, of: fn(&Value) -> &str| {
            list.list_at(&[]).iter().map(of).collect::<Vec<_>>().join(",")
        };
        let tokens = spec.get("tokenRequests");
        let audiences =
            if tokens.is_null() { UNSET.into() } else { join(tokens, |t| t.str_at(&["audience"])) };
        let modes = join(spec.get("volumeLifecycleModes"), |m| m.as_str().unwrap_or(""));
        cells::row([
            cells::name(driver),
            flag("attachRequired", true),
            flag("podInfoOnMount", false),
            flag("storageCapacity", false),
            audiences.into(),
            flag("requiresRepublish", false),
            if modes.is_empty() { NONE.into() } else { modes.into() },
            cells::age(driver),
        ])
    }
}

/// upstream: validateCSIDriverSpec
fn validate(cx: &Context, driver: &Value, e: &mut ErrorList) {
    const PERIOD_MIN: i64 = 10;
    let root = At::root(driver);
    let spec = root.get("spec");
    let needed = [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ];
    for (member, shown) in needed {
        if spec.value.get(member).is_null() {
            spec.get(shown).required(e, "");
        }
    }
    let policy = spec.get("fsGroupPolicy");
    if policy.is_set() {
        policy.one_of(e, &["File", "None", "ReadWriteOnceWithFSType"]);
    }
    tokens(spec.get("tokenRequests"), e);
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.value.list_at(&[]) {
        modes.with(mode).one_of(e, &["Persistent", "Ephemeral"]);
    }
    if !spec.get("seLinuxMount").is_set() && (cx.feature)(GATED[0].0) {
        spec.get("seLinuxMount").required(e, "");
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.opt_int().is_some_and(|n| n < PERIOD_MIN) {
        period.invalid(e, "must be greater than or equal to 10 seconds");
    }
    let in_secrets = spec.get("serviceAccountTokenInSecrets");
    if in_secrets.is_set() && spec.get("tokenRequests").is_empty() {
        in_secrets.invalid(e, "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
    let prevent = spec.get("preventPodSchedulingIfMissing");
    if !prevent.is_set() && (cx.feature)(GATED[3].0) {
        prevent.required(e, "");
    }
}

/// upstream: validateTokenRequests
fn tokens(list: At, e: &mut ErrorList) {
    const SECONDS_MIN: i64 = 600;
    const SECONDS_MAX: i64 = 1 << 32;
    let mut audiences = BTreeSet::new();
    for request in list.items() {
        let audience = request.get("audience");
        if !audiences.insert(audience.str()) {
            audience.duplicate(e);
            continue;
        }
        let seconds = request.get("expirationSeconds");
        match seconds.opt_int() {
            Some(n) if n < SECONDS_MIN => {
                seconds.invalid(e, "may not specify a duration less than 10 minutes");
            }
            Some(n) if n > SECONDS_MAX => {
                seconds.invalid(e, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}
