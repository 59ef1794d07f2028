//! StatefulSet. upstream: pkg/registry/apps/statefulset/strategy.go, pkg/apis/apps/validation
//!
//! upstream, too: Convert_v1_StatefulSetSpec_To_apps_StatefulSetSpec

use copepod_meta::{ErrorList, Value, names};

use super::{amount, at_most_100_percent, at_most_replicas, int_or_percent, not_decremented, not_negative};
use crate::cells;
use crate::check::At;
use crate::core::persistent_volume_claim as claim;
use crate::core::pod::defaults::{each, fill, fill_nil};
use crate::core::pod::options::Options;
use crate::core::pod::{annotations, template};
use crate::equality::same_as;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct StatefulSet;
/// `statefulsets/status`
pub struct StatefulSetStatus;

const SPEC: &str = "io.k8s.api.apps.v1.StatefulSetSpec";
const UPDATABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                         'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// upstream: SetDefaults_StatefulSet
fn default(object: &mut Value) {
    super::default_template(object);
    let spec = object.make(&["spec"]);
    fill(spec, "podManagementPolicy", "OrderedReady");
    let strategy = spec.make(&["updateStrategy"]);
    if strategy.str_at(&["type"]).is_empty() {
        strategy.set(&["type"], "RollingUpdate");
        fill_nil(strategy, "rollingUpdate", Value::map());
    }
    if strategy.str_at(&["type"]) == "RollingUpdate"
        && let Some(rolling) = strategy.at_mut(&["rollingUpdate"])
    {
        fill_nil(rolling, "partition", 0);
    }
    let retention = spec.make(&["persistentVolumeClaimRetentionPolicy"]);
    fill(retention, "whenDeleted", "Retain");
    fill(retention, "whenScaled", "Retain");
    fill_nil(spec, "replicas", 1);
    fill_nil(spec, "revisionHistoryLimit", 10);
    for template in each(spec, &["volumeClaimTemplates"]) {
        fill_nil(template.make(&["spec"]), "volumeMode", "Filesystem");
        fill(template.make(&["status"]), "phase", "Pending");
    }
    claim_type_meta(object);
}

/// upstream: Convert_apps_StatefulSetSpec_To_v1_StatefulSetSpec
fn claim_type_meta(object: &mut Value) {
    let Some(spec) = object.at_mut(&["spec"]) else { return };
    for template in each(spec, &["volumeClaimTemplates"]) {
        template.set(&["apiVersion"], "v1");
        template.set(&["kind"], "PersistentVolumeClaim");
    }
}

impl Strategy for StatefulSet {
    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }
    fn to_hub(&self, _version: &str, object: &mut Value) {
        super::convert_template(object);
    }
    fn restore(&self) -> Option<fn(&mut Value)> {
        Some(claim_type_meta)
    }
    fn from_hub(&self, _version: &str, object: &mut Value) {
        super::convert_template(object);
    }
    fn of_nothing(&self, object: &mut Value) {
        object.set(&["spec", "replicas"], 0);
    }
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        crate::core::pod::template::drop_disabled(object, None, &["spec", "template", "spec"]);
        clear_status(object);
        object.set(&["metadata", "generation"], 1);
        drop_disabled(object);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        crate::core::pod::template::drop_disabled(object, Some(old), &["spec", "template", "spec"]);
        keep(object, old, "status");
        if old.at(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]).is_null() {
            drop_disabled(object);
        }
        bump_generation_if_changed(object, old, SPEC);
    }
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label_prefixed(name, prefix)
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(At::root(object).get("spec"), &super::options(cx, None), Mode::Create, e);
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        let opts = super::options(cx, Some(old));
        // A stored template that is bad by today's rules is not looked at again.
        let mut stored = ErrorList::new();
        validate(At::root(old).get("spec"), &opts, Mode::Update { template: true }, &mut stored);
        validate(At::root(object).get("spec"), &opts, Mode::Update { template: stored.is_empty() }, e);
        let mut kept = object.get("spec").clone();
        for member in [
            "replicas",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "ordinals",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
        ] {
            match old.at(&["spec", member]) {
                Value::Null => {
                    kept.remove(&[member]);
                }
                value => kept.set(&[member], value.clone()),
            }
        }
        if !same_as(&kept, old.get("spec"), SPEC) {
            At::root(object).get("spec").forbidden(e, UPDATABLE);
        }
    }
    fn warnings(&self, _cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = super::warn(object, old, false);
        if object.int_at(&["spec", "revisionHistoryLimit"]) < 0 {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        out
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("apps/StatefulSet")
    }
    fn row(&self, object: &Value) -> Row {
        let (names, images) = cells::containers(object.at(&["spec", "template", "spec"]));
        let ready = format!(
            "{}/{}",
            object.int_at(&["status", "readyReplicas"]),
            object.int_at(&["spec", "replicas"])
        );
        cells::row([cells::name(object), ready.into(), cells::age(object), names, images])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&StatefulSetStatus as &dyn Strategy)
    }
}

/// maxUnavailable is behind the gate MaxUnavailableStatefulSet, which is off. upstream: dropStatefulSetDisabledFields
fn drop_disabled(object: &mut Value) {
    object.remove(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]);
}

impl Strategy for StatefulSetStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        let root = At::root(object);
        let at = root.get("status");
        let of_pods = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        not_negative(at, &["replicas"], e);
        not_negative(at, &of_pods, e);
        not_negative(at, &["observedGeneration", "collisionCount"], e);
        at_most_replicas(at, &of_pods, "status.readyReplicas", e);
        metadata::validate_update_core(object, old, e);
        not_decremented(at.get("collisionCount"), old.at(&["status", "collisionCount"]), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    /// serviceName and claim templates cannot change, so they are not checked again; the template perhaps.
    Update {
        template: bool,
    },
}

/// upstream: ValidateStatefulSetSpec
fn validate(spec: At, opts: &Options, mode: Mode, e: &mut ErrorList) {
    let policy = spec.get("podManagementPolicy");
    match policy.str() {
        "" => policy.required(e, ""),
        "OrderedReady" | "Parallel" => {}
        _ => policy.invalid(e, "must be 'OrderedReady' or 'Parallel'"),
    }
    update_strategy(spec.get("updateStrategy"), e);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for member in ["whenDeleted", "whenScaled"] {
            retention.get(member).one_of(e, &["Retain", "Delete"]);
        }
    }
    if mode == Mode::Create {
        for template in spec.get("volumeClaimTemplates").items() {
            claim::validate_spec(template.get("spec"), claim::Options::default(), e);
        }
    }
    not_negative(spec, &["replicas", "minReadySeconds", "ordinals.start"], e);
    let service = spec.get("serviceName");
    if mode == Mode::Create && !service.is_empty() {
        service.dns_label(e);
    }
    let at = spec.get("selector");
    let selector = super::selector(at, "empty selector is invalid for statefulset", e);
    match selector {
        None => at.invalid_printed(e, print::json(at.value, print::LABEL_SELECTOR), ""),
        Some(selector) => {
            let adjusted = with_claims(spec.value);
            let template = spec.get("template");
            let template = template.with(&adjusted);
            super::labels_match(&selector, template, e);
            if mode != (Mode::Update { template: false }) {
                template::validate(template, opts, e);
            }
            // Upstream checks these once more, at the template itself.
            let meta = template.value.get("metadata");
            metadata::labels(template.get("labels").with(meta.get("labels")), e);
            let notes = template.get("annotations");
            metadata::annotations(notes.with(meta.get("annotations")), e);
            annotations::validate(notes.with(meta.get("annotations")), template.value.get("spec"), opts, e);
        }
    }
    super::forever(spec.get("template"), "StatefulSet", e);
}

/// The template with the volumes that the claims will be, without host names that each pod gets its own of.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.get("template").clone();
    let claims: Vec<&str> =
        spec.list_at(&["volumeClaimTemplates"]).iter().map(|c| c.str_at(&["metadata", "name"])).collect();
    for member in ["subdomain", "hostname"] {
        template.remove(&["spec", member]);
    }
    if claims.is_empty() {
        return template;
    }
    let mut volumes = Vec::new();
    for claim in &claims {
        let mut volume = Value::map();
        volume.set(&["name"], *claim);
        volume.set(&["persistentVolumeClaim", "claimName"], *claim);
        if !volumes.contains(&volume) {
            volumes.push(volume);
        }
    }
    let own = template.list_at(&["spec", "volumes"]).iter();
    volumes.extend(own.filter(|v| !claims.contains(&v.str_at(&["name"]))).cloned());
    template.set(&["spec", "volumes"], volumes);
    template
}

fn update_strategy(at: At, e: &mut ErrorList) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").str() {
        "" => at.required(e, ""),
        "OnDelete" => {
            if rolling.is_set() {
                let printed = print::internal(rolling.value, "apps/RollingUpdateStatefulSetStrategy");
                rolling.invalid_printed(e, printed, "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            rolling.get("partition").not_negative(e);
            let unavailable = rolling.get("maxUnavailable");
            if unavailable.is_set() {
                int_or_percent(unavailable, e);
                if amount(unavailable.value) == 0 {
                    unavailable.invalid(e, "cannot be 0");
                }
                at_most_100_percent(unavailable, e);
            }
        }
        _ => {
            let printed = print::internal(at.value, "apps/StatefulSetUpdateStrategy");
            at.invalid_printed(e, printed, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}
