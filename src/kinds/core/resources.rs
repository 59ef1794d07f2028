//! Names and amounts of compute resources.
//!
//! upstream: pkg/apis/core/helper/helpers.go, validation.go validateResourceRequirements, component-helpers/resource

use copepod_meta::quantity::Format;
use copepod_meta::{ErrorList, FieldError, Map, Quantity, Value, names};
use std::collections::{BTreeMap, BTreeSet};

use super::pod::options::Options;
use crate::check::{At, NEGATIVE};

const HUGE_PAGES: &str = "hugepages-";
const NATIVE: &str = "kubernetes.io/";

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

const INTEGER: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// The amount in a tree; zero when absent or unreadable (the decoder refused what is unreadable).
pub fn quantity(value: &Value) -> Quantity {
    match value {
        Value::Int(i) => Quantity::from_int(*i, Format::DecimalSi),
        other => other
            .as_str()
            .and_then(|s| Quantity::parse(s).ok())
            .unwrap_or_else(|| Quantity::from_int(0, Format::DecimalSi)),
    }
}

/// `hugepages-2Mi`
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Unprefixed, or in the kubernetes.io namespace.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains(NATIVE)
}

/// Requests may be lower than limits.
pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// `example.com/device`
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Counted in whole numbers.
pub fn is_integer(name: &str) -> bool {
    INTEGER.contains(&name) || is_extended(name)
}

/// What quota may limit.
pub fn is_standard_quota(name: &str) -> bool {
    (STANDARD.contains(&name) && name != "storage") || is_quota_huge_page(name)
}

/// Known to the system.
pub fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_quota_huge_page(name)
}

/// What pod-level resources may name.
pub fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || is_huge_page(name)
}

/// Whether the name is one at all. upstream: validateResourceName
pub fn validate_name(at: At, name: &str, e: &mut ErrorList) -> bool {
    let before = e.len();
    for message in names::qualified_name(name) {
        at.invalid_str(e, name, message);
    }
    if e.len() == before && !name.contains('/') && !is_standard(name) {
        at.invalid_str(e, name, "must be a standard resource type or fully qualified");
    }
    e.len() == before
}

/// upstream: validateContainerResourceName
pub fn validate_container_name(at: At, name: &str, e: &mut ErrorList) {
    validate_name(at, name, e);
    // As upstream's split at slashes: exactly one part.
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            at.invalid_str(e, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        at.invalid_str(e, name, "doesn't follow extended resource name standard");
    }
}

/// upstream: validatePodResourceName
fn validate_pod_name(at: At, name: &str, e: &mut ErrorList) {
    if validate_name(at, name, e) && !is_pod_level(name) {
        at.with(&Value::string(name)).not_supported(e, &["cpu", HUGE_PAGES, "memory"]);
    }
}

/// upstream: ValidateResourceQuantityValue
pub fn validate_amount(at: At, name: &str, e: &mut ErrorList) {
    let amount = quantity(at.value);
    if amount.sign() < 0 {
        at.invalid_str(e, &amount.to_string(), NEGATIVE);
    }
    if is_integer(name) && !amount.is_integer() {
        at.invalid_str(e, &amount.to_string(), "must be an integer");
    }
}

/// Requests, limits and claims of a container, of a pod, or an overhead.
#[derive(Clone, Copy)]
pub enum Level {
    /// Of a container.
    Container,
    /// Of the whole pod.
    Pod,
}

/// upstream: validateResourceRequirements
pub fn requirements(at: At, level: Level, claims: &BTreeSet<&str>, opts: &Options, e: &mut ErrorList) {
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    let (mut compute, mut huge) = (false, false);
    for (name, limit) in limits.entries() {
        one_requirement(limit, name, level, opts, e);
        huge |= is_huge_page(name);
        compute |= matches!(name, "cpu" | "memory");
    }
    for (name, request) in requests.entries() {
        // Upstream checks the page size after comparing with the limit; the parts are in that order here too.
        name_of(level)(request, name, e);
        validate_amount(request, name, e);
        let amount = quantity(request.value);
        match limits.map().get(name).map(quantity) {
            Some(limit) if amount != limit && !is_overcommit_allowed(name) => {
                requests.invalid_str(
                    e,
                    &amount.to_string(),
                    format!("must be equal to {name} limit of {limit}"),
                );
            }
            Some(limit) if amount > limit => requests.invalid_str(
                e,
                &amount.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            ),
            None if !is_overcommit_allowed(name) => {
                limits.required(e, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        huge_page_amount(request, name, opts, e);
        huge |= is_huge_page(name);
        compute |= matches!(name, "cpu" | "memory");
    }
    if huge && !compute {
        at.forbidden(e, "HugePages require cpu or memory");
    }
    claim_names(at.get("claims"), claims, e);
}

fn name_of(level: Level) -> fn(At, &str, &mut ErrorList) {
    match level {
        Level::Container => validate_container_name,
        Level::Pod => validate_pod_name,
    }
}

fn one_requirement(at: At, name: &str, level: Level, opts: &Options, e: &mut ErrorList) {
    name_of(level)(at, name, e);
    validate_amount(at, name, e);
    huge_page_amount(at, name, opts, e);
}

/// upstream: validateResourceQuantityHugePageValue
fn huge_page_amount(at: At, name: &str, opts: &Options, e: &mut ErrorList) {
    if !is_huge_page(name) || opts.indivisible_huge_pages || is_divisible(name, at.value) {
        return;
    }
    let amount = quantity(at.value).to_string();
    at.invalid_str(e, &amount, format!("{amount} is not positive integer multiple of {name}"));
}

/// Whether the amount is a multiple of the page size. upstream: IsHugePageResourceValueDivisible
pub fn is_divisible(name: &str, amount: &Value) -> bool {
    let Ok(page) = Quantity::parse(name.strip_prefix(HUGE_PAGES).unwrap_or("")) else { return false };
    page.sign() > 0 && page.is_integer() && quantity(amount).value() % page.value() == 0
}

/// upstream: validateResourceClaimNames
fn claim_names(at: At, pod_claims: &BTreeSet<&str>, e: &mut ErrorList) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for claim in at.items() {
        let name = claim.get("name").str();
        if name.is_empty() {
            claim.required(e, "");
            continue;
        }
        if seen.contains(name) {
            claim.duplicate_str(e, name);
        } else {
            let request = claim.get("request");
            let mut key = name.to_string();
            if !request.is_empty() {
                request.dns_label(e);
                key = format!("{name}/{}", request.str());
            }
            if seen.contains(&key) {
                claim.duplicate_str(e, &key);
            } else if request.is_empty() {
                let prefix = format!("{name}/");
                for _overlap in seen.iter().filter(|k| k.starts_with(&prefix)) {
                    claim.duplicate_str(e, name);
                }
            }
            seen.insert(key);
        }
        if !pod_claims.contains(name) {
            let mut error = FieldError::not_found(&claim.path, &Value::string(name));
            error.detail = "must be one of the names in pod.spec.resourceClaims".into();
            if pod_claims.is_empty() {
                error.detail.push_str(" which is empty");
            } else {
                let all: Vec<&str> = pod_claims.iter().copied().collect();
                error.detail.push_str(&format!(": {}", all.join(", ")));
            }
            e.push(error);
        }
    }
}

/// Amounts by name.
pub type Amounts = BTreeMap<String, Quantity>;

fn add(into: &mut Amounts, list: &Map) {
    for (name, amount) in list.iter() {
        let amount = quantity(amount);
        let sum = match into.get(name) {
            Some(have) => have.add(&amount),
            None => amount,
        };
        into.insert(name.into(), sum);
    }
}

fn raise(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if into.get(name).is_none_or(|have| amount > have) {
            into.insert(name.clone(), amount.clone());
        }
    }
}

/// What all containers of a pod need together: the sum of containers and sidecars, or the largest init container with
/// the sidecars started before it. upstream: component-helpers/resource AggregateContainerRequests, AggregateContainerLimits
pub fn aggregate(spec: &Value, member: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in spec.list_at(&["containers"]) {
        add(&mut total, container.map_at(&["resources", member]));
    }
    let (mut sidecars, mut largest) = (Amounts::new(), Amounts::new());
    for container in spec.list_at(&["initContainers"]) {
        let list = container.map_at(&["resources", member]);
        let mut at_that_time = sidecars.clone();
        add(&mut at_that_time, list);
        if container.str_at(&["restartPolicy"]) == "Always" {
            add(&mut total, list);
            add(&mut sidecars, list);
            at_that_time = sidecars.clone();
        }
        raise(&mut largest, &at_that_time);
    }
    raise(&mut total, &largest);
    total
}
