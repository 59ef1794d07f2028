//! LimitRange. upstream: pkg/registry/core/limitrange/strategy.go, validation.go ValidateLimitRange

use copepod_meta::quantity::Format;
use copepod_meta::{ErrorList, Quantity, Value, names};
use std::collections::BTreeSet;

use super::pod::defaults::{each, fill_nil, round_up};
use super::resources::{self, quantity};
use crate::check::At;
use crate::metadata;
use crate::strategy::{Context, Strategy};

/// The strategy.
pub struct LimitRange;

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// upstream: SetDefaults_LimitRangeItem
fn default(range: &mut Value) {
    for item in each(range, &["spec", "limits"]) {
        for list in LISTS {
            round_up(item, &[list]);
        }
        if item.str_at(&["type"]) != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let source = item.get(from).clone();
            for (name, amount) in source.map_at(&[]).iter() {
                fill_nil(item.make(&[to]), name, amount.clone());
            }
        }
    }
}

/// A name for a range that came without one: upstream gives it a UUID.
fn random_name() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random() & !0xf000 | 0x4000, random() & !(0b11 << 62) | 0b10 << 62);
    let mut text = format!("{high:016x}{low:016x}");
    for dash in [20, 16, 12, 8] {
        text.insert(dash, '-');
    }
    text
}

impl Strategy for LimitRange {
    fn prepare_create(&self, _cx: &Context, range: &mut Value) {
        if range.str_at(&["metadata", "name"]).is_empty() {
            range.set(&["metadata", "name"], random_name());
        }
    }
    fn default(&self, _version: &str, range: &mut Value) {
        default(range);
    }
    fn validate_create(&self, _cx: &Context, range: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(range, e);
        validate(range, e);
    }
    fn validate_update(&self, _cx: &Context, range: &Value, _old: &Value, e: &mut ErrorList) {
        metadata::validate_core(range, true, &names::dns1123_subdomain_prefixed, e);
        validate(range, e);
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// upstream: ValidateLimitRange, less metadata
fn validate(range: &Value, e: &mut ErrorList) {
    let root = At::root(range);
    let mut seen = BTreeSet::new();
    for item in root.get("spec.limits").items() {
        let ty = item.get("type");
        type_name(ty, e);
        if !seen.insert(ty.str()) {
            ty.duplicate(e);
        }
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for list in ["max", "min"] {
            names.extend(resource_names(item.get(list), ty.str(), e));
        }
        for list in ["default", "defaultRequest"] {
            let at = item.get(list);
            if ty.str() != "Pod" {
                names.extend(resource_names(at, ty.str(), e));
            } else if !at.is_empty() {
                at.forbidden(e, "may not be specified when `type` is 'Pod'");
            }
        }
        let storage = ["min", "max"].iter().any(|l| item.value.map_at(&[l]).contains_key("storage"));
        if ty.str() == "PersistentVolumeClaim" && !storage {
            let message = "either minimum or maximum storage value is required, but neither was provided";
            item.get("limits").required(e, message);
        }
        names.extend(resource_names(item.get("maxLimitRequestRatio"), ty.str(), e));
        for name in names {
            one_resource(item, name, ty.str() == "Pod", e);
        }
    }
}

fn type_name(ty: At, e: &mut ErrorList) {
    let wrong = names::qualified_name(ty.str());
    let standard = matches!(ty.str(), "Pod" | "Container" | "PersistentVolumeClaim");
    if wrong.is_empty() && !ty.str().contains('/') && !standard {
        ty.invalid(e, "must be a standard limit type or fully qualified");
    }
    ty.invalid_each(e, wrong);
}

fn resource_names<'v>(list: At<'v, '_>, ty: &str, e: &mut ErrorList) -> Vec<&'v str> {
    let mut out = Vec::new();
    for (name, amount) in list.entries() {
        if matches!(ty, "Pod" | "Container") {
            resources::validate_container_name(amount, name, e);
        } else {
            resources::validate_name(amount, name, e);
        }
        out.push(name);
    }
    out
}

/// How the five amounts of one resource must be to each other.
fn one_resource(item: At, name: &str, pod: bool, e: &mut ErrorList) {
    let lists = LISTS.map(|list| item.get(list));
    let [max_at, min_at, default_at, request_at, ratio_at] = &lists;
    let amount = |at: &At| at.map().get(name).map(quantity);
    let (max, min, ratio) = (amount(max_at), amount(min_at), amount(ratio_at));
    let (default, request) = if pod { (None, None) } else { (amount(default_at), amount(request_at)) };
    let mut above =
        |a: &Option<Quantity>, b: &Option<Quantity>, at: &At, shown: &Option<Quantity>, what: [&str; 2]| {
            if let (Some(a), Some(b), Some(shown)) = (a, b, shown)
                && a > b
            {
                let message = format!("{} {a} is greater than {} {b}", what[0], what[1]);
                at.key(name).invalid_str(e, &shown.to_string(), message);
            }
        };
    above(&min, &max, min_at, &min, ["min value", "max value"]);
    above(&min, &request, request_at, &request, ["min value", "default request value"]);
    above(&request, &max, request_at, &request, ["default request value", "max value"]);
    above(&request, &default, request_at, &request, ["default request value", "default limit value"]);
    above(&min, &default, default_at, &min, ["min value", "default value"]);
    above(&default, &max, default_at, &max, ["default value", "max value"]);
    if let Some(ratio) = &ratio {
        let at = ratio_at.key(name);
        if *ratio < Quantity::from_int(1, Format::DecimalSi) {
            at.invalid_str(e, &ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            ratio_limit(at, ratio, min, max, e);
        }
    }
    if let (Some(default), Some(request)) = (&default, &request)
        && !resources::is_overcommit_allowed(name)
        && default != request
    {
        let message =
            format!("default value {default} must equal to defaultRequest value {request} in {name}");
        request_at.key(name).invalid_str(e, &request.to_string(), message);
    }
}

fn ratio_limit(at: At, ratio: &Quantity, min: &Quantity, max: &Quantity, e: &mut ErrorList) {
    // Thousandths where they fit, as upstream computes it.
    const MILLI_MAX: i64 = i64::MAX / 1000;
    let small = [ratio, min, max].iter().all(|q| q.value() < MILLI_MAX);
    let (ratio_value, min, max) = match small {
        true => (ratio.milli_value() as f64 / 1000.0, min.milli_value(), max.milli_value()),
        false => (ratio.value() as f64, min.value(), max.value()),
    };
    let limit = max as f64 / min as f64;
    if ratio_value > limit {
        at.invalid_str(e, &ratio.to_string(), format!("ratio {ratio} is greater than max/min = {limit:.6}"));
    }
}
