//! Which slices a service needs, with as few changes to those that are there as possible. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_client::object::{MetaExt, controller_reference};
use serde_json::{Map, Value, json};

use super::MANAGER;
use super::topology::{self, Allocated, Outcomes, Ratios, Slot, Slots};
use crate::common::slices::{Action, MANAGED_BY, SERVICE_NAME};
use crate::common::triggers::LAST_CHANGE;
use crate::common::{pods, services};
use crate::kinds::{EndpointSlice, Pod, Service};

/// Zone of a node.
type ZoneOf<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a plan depends on beside the service and what is behind it.
pub(super) struct World<'a> {
    /// Endpoints in one slice at most.
    pub endpoints_max: usize,
    pub zone_of: ZoneOf<'a>,
    /// When what the plan follows happened.
    pub trigger: Option<&'a str>,
    /// What each zone is thought to send, if that is known.
    pub ratios: Option<&'a Ratios>,
}

/// Writes, and how topology-aware hints were shared out if the service asks for them.
pub(super) struct Plan {
    pub actions: Vec<Action>,
    pub hints: Option<Outcomes>,
}

/// The writes that bring the slices of a service to what its pods are.
pub(super) fn plan(
    service: &Service,
    backends: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    world: &World<'_>,
) -> Plan {
    let labels = labels(service);
    let families: Vec<&str> = if service.spec.ip_families.is_empty() {
        vec!["IPv4"]
    } else {
        service.spec.ip_families.iter().map(String::as_str).collect()
    };
    let mut actions = Vec::new();
    let mut outcomes = topology::is_asked(service).then(Vec::new);
    for slice in slices.iter().filter(|slice| !families.contains(&slice.address_type.as_str())) {
        actions.push(Action::Delete(slice.metadata.name().into()));
    }
    for family in families {
        let existing: Vec<&Arc<EndpointSlice>> =
            slices.iter().filter(|slice| slice.address_type == family).collect();
        let wanted = endpoints_by_ports(service, backends, family, world.zone_of);
        let (mut contents, unused) = contents(wanted, existing, world.endpoints_max);
        if let Some(outcomes) = &mut outcomes {
            outcomes.push((family.to_owned(), add_hints(&mut contents, &labels, world.ratios)));
        }
        actions.extend(unused.iter().map(|slice| Action::Delete(slice.metadata.name().into())));
        for (slice, ports, endpoints) in contents {
            match slice {
                None => actions.push(create(service, family, &labels, &ports, &endpoints)),
                Some(slice) => actions.extend(update(slice, &labels, &ports, &endpoints)),
            }
        }
    }
    for action in &mut actions {
        stamp(action, world.trigger);
    }
    Plan { actions, hints: outcomes }
}

/// upstream: endpointslice/utils.go addTriggerTimeAnnotation
fn stamp(action: &mut Action, trigger: Option<&str>) {
    let (Action::Create(slice) | Action::Update(slice)) = action else { return };
    let annotations = &mut slice["metadata"]["annotations"];
    match (trigger, annotations.as_object_mut()) {
        (Some(trigger), _) => annotations[LAST_CHANGE] = json!(trigger),
        (None, Some(known)) => drop(known.remove(LAST_CHANGE)),
        (None, None) => {}
    }
}

/// Endpoints by the ports that they have: pods may give one name to different numbers.
fn endpoints_by_ports(
    service: &Service,
    backends: &[Arc<Pod>],
    family: &str,
    zone_of: ZoneOf<'_>,
) -> BTreeMap<String, (Value, Vec<Value>)> {
    let mut by_ports: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for pod in backends {
        let addresses: Vec<&str> = services::addresses(pod, family).collect();
        if addresses.is_empty() {
            continue;
        }
        let ports = ports(service, pod);
        let endpoint = endpoint(service, pod, &addresses, zone_of);
        by_ports.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
    }
    by_ports
}

fn ports(service: &Service, pod: &Pod) -> Value {
    let port = |port: &crate::kinds::ServicePort| {
        let number = services::target_port(pod, port)?;
        let mut out = json!({"name": port.name, "port": number, "protocol": port.protocol});
        if let Some(protocol) = &port.app_protocol {
            out["appProtocol"] = json!(protocol);
        }
        Some(out)
    };
    Value::Array(service.spec.ports.iter().filter_map(port).collect())
}

/// upstream: endpointslice/utils.go podToEndpoint
fn endpoint(service: &Service, pod: &Pod, addresses: &[&str], zone_of: ZoneOf<'_>) -> Value {
    let (serving, terminating) = (pods::is_ready(pod), pod.metadata.deleting());
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let mut out = json!({
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": MetaExt::namespace(&pod.metadata), "name": pod.metadata.name(),
            "uid": MetaExt::uid(&pod.metadata)},
    });
    if !pod.spec.node_name.is_empty() {
        out["nodeName"] = json!(pod.spec.node_name);
        if let Some(zone) = zone_of(&pod.spec.node_name) {
            out["zone"] = json!(zone);
        }
    }
    if let Some(hostname) = services::hostname(service, pod) {
        out["hostname"] = json!(hostname);
    }
    if ready && !topology::is_asked(service) {
        hints(service, &mut out);
    }
    out
}

/// Who should prefer the endpoint: clients of its zone, or of its node before them.
///
/// upstream: endpointslice/trafficdist/trafficdist.go preferCloseHeuristic
fn hints(service: &Service, endpoint: &mut Value) {
    let distribution = service.spec.traffic_distribution.as_deref().unwrap_or_default();
    if !matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode") {
        return;
    }
    let mut hints = Map::new();
    if let Some(zone) = endpoint.get("zone") {
        hints.insert("forZones".into(), json!([{"name": zone}]));
    }
    if let Some(node) = endpoint.get("nodeName").filter(|_| distribution == "PreferSameNode") {
        hints.insert("forNodes".into(), json!([{"name": node}]));
    }
    if !hints.is_empty() {
        endpoint["hints"] = Value::Object(hints);
    }
}

/// upstream: endpointslice/utils.go setEndpointSliceLabels
fn labels(service: &Service) -> Map<String, Value> {
    let reserved = [SERVICE_NAME, MANAGED_BY, services::HEADLESS_LABEL];
    let own = service.metadata.labels.iter().flatten();
    let mut labels: Map<String, Value> = own
        .filter(|(key, _)| !reserved.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    if !services::has_cluster_ip(service) {
        labels.insert(services::HEADLESS_LABEL.into(), json!(""));
    }
    labels.insert(SERVICE_NAME.into(), json!(service.metadata.name()));
    labels.insert(MANAGED_BY.into(), json!(MANAGER));
    labels
}

/// What the slices of a family should hold, and those that are not needed any more.
fn contents<'a>(
    wanted: BTreeMap<String, (Value, Vec<Value>)>,
    existing: Vec<&'a Arc<EndpointSlice>>,
    endpoints_max: usize,
) -> (Vec<Content<'a>>, Vec<&'a Arc<EndpointSlice>>) {
    let mut contents: Vec<Content<'_>> = Vec::new();
    let mut unused = existing;
    for (ports, endpoints) in wanted.into_values() {
        let (mine, others) = unused.into_iter().partition(|slice| slice.ports == ports);
        unused = others;
        contents.extend(fill(ports, endpoints, mine, endpoints_max));
    }
    // A service without pods keeps one empty slice, so that readers know that somebody looked.
    if contents.is_empty() {
        let kept = unused.pop();
        contents.push((kept, json!([]), Vec::new()));
    }
    // A slice that is not needed any more becomes one that is: readers see one change instead of two.
    for content in contents.iter_mut().filter(|(slice, ..)| slice.is_none()) {
        content.0 = unused.pop();
    }
    (contents, unused)
}

/// Topology-aware hints for all endpoints, or for none.
fn add_hints(
    contents: &mut [Content<'_>],
    labels: &Map<String, Value>,
    ratios: Option<&Ratios>,
) -> Result<Allocated, String> {
    fn known<'a>(content: &Content<'a>) -> Option<&'a Vec<Value>> {
        content.0.and_then(|slice| slice.endpoints.as_array())
    }
    let mut slices: Vec<Slots> = contents
        .iter()
        .map(|content| {
            let unchanged =
                content.0.is_some_and(|slice| is_same(slice, labels, &content.1, &content.2, false));
            let hints = if unchanged { known(content) } else { None };
            let slot =
                |(at, endpoint): (usize, &Value)| slot(endpoint, hints.and_then(|known| known.get(at)));
            Slots { unchanged, slots: content.2.iter().enumerate().map(slot).collect() }
        })
        .collect();
    let allocated = topology::assign(ratios, &mut slices)?;
    for (content, slots) in contents.iter_mut().zip(slices) {
        let kept = if slots.unchanged { known(content).cloned() } else { None };
        if let Some(kept) = kept {
            content.2 = kept;
            continue;
        }
        for (endpoint, slot) in content.2.iter_mut().zip(slots.slots) {
            let zones: Vec<Value> = slot.hints.iter().map(|zone| json!({"name": zone})).collect();
            if !zones.is_empty() {
                endpoint["hints"] = json!({ "forZones": zones });
            }
        }
    }
    Ok(allocated)
}

/// An endpoint, with the hints of `known`.
fn slot(endpoint: &Value, known: Option<&Value>) -> Slot {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let zones = known.and_then(|known| known["hints"]["forZones"].as_array()).into_iter().flatten();
    Slot {
        ready: endpoint["conditions"]["ready"] == true,
        zone: text(&endpoint["zone"]),
        hints: zones.filter_map(|zone| text(&zone["name"])).collect(),
    }
}

/// A slice that is there, if any, with the ports and endpoints that it should have.
type Content<'a> = (Option<&'a Arc<EndpointSlice>>, Value, Vec<Value>);

/// Shares endpoints out: each stays in the slice that has its pod; new ones fill the fullest slices first.
fn fill<'a>(
    ports: Value,
    endpoints: Vec<Value>,
    slices: Vec<&'a Arc<EndpointSlice>>,
    endpoints_max: usize,
) -> Vec<Content<'a>> {
    let uid = |endpoint: &Value| endpoint["targetRef"]["uid"].as_str().unwrap_or_default().to_owned();
    let mut left: BTreeMap<String, Value> = endpoints.into_iter().map(|e| (uid(&e), e)).collect();
    let mut filled: Vec<Content<'a>> = Vec::new();
    for slice in slices {
        let known = slice.endpoints.as_array().into_iter().flatten().map(uid);
        let kept: Vec<Value> = known.take(endpoints_max).filter_map(|uid| left.remove(&uid)).collect();
        filled.push((Some(slice), ports.clone(), kept));
    }
    filled.sort_by_key(|(_, _, kept)| std::cmp::Reverse(kept.len()));
    let mut rest = left.into_values();
    for (_, _, kept) in &mut filled {
        let room = endpoints_max.saturating_sub(kept.len());
        kept.extend(rest.by_ref().take(room));
    }
    let rest: Vec<Value> = rest.collect();
    filled.extend(rest.chunks(endpoints_max).map(|chunk| (None, ports.clone(), chunk.to_vec())));
    // Slices that have become empty are not needed as long as another one is there.
    let has_any = filled.iter().any(|(_, _, kept)| !kept.is_empty());
    let empty = |content: &Content<'_>| content.2.is_empty();
    if has_any && filled.iter().any(empty) {
        let (emptied, full): (Vec<_>, Vec<_>) = filled.into_iter().partition(empty);
        let gone = emptied.into_iter().map(|(slice, _, _)| (slice, Value::Null, Vec::new()));
        return full.into_iter().chain(gone).collect();
    }
    filled
}

fn create(
    service: &Service,
    family: &str,
    labels: &Map<String, Value>,
    ports: &Value,
    endpoints: &[Value],
) -> Action {
    Action::Create(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {
            "generateName": format!("{}-", service.metadata.name()), "labels": labels,
            "namespace": MetaExt::namespace(&service.metadata),
            "ownerReferences": [controller_reference(service)],
        },
        "ports": ports, "endpoints": endpoints,
    }))
}

fn update(
    slice: &EndpointSlice,
    labels: &Map<String, Value>,
    ports: &Value,
    endpoints: &[Value],
) -> Option<Action> {
    if ports.is_null() {
        return Some(Action::Delete(slice.metadata.name().to_owned()));
    }
    if is_same(slice, labels, ports, endpoints, true) {
        return None;
    }
    let mut metadata = slice.metadata.clone();
    metadata.labels = Some(texts(labels));
    Some(Action::Update(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": slice.address_type,
        "metadata": metadata, "ports": ports, "endpoints": endpoints,
    })))
}

fn texts(labels: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    labels.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// Whether a slice is as it should be, its endpoints' hints being looked at or not.
fn is_same(
    slice: &EndpointSlice,
    labels: &Map<String, Value>,
    ports: &Value,
    endpoints: &[Value],
    with_hints: bool,
) -> bool {
    let as_list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut known = as_list(&slice.endpoints);
    if !with_hints {
        known.iter_mut().filter_map(Value::as_object_mut).for_each(|endpoint| drop(endpoint.remove("hints")));
    }
    slice.metadata.labels.clone().unwrap_or_default() == texts(labels)
        && known == endpoints
        && as_list(&slice.ports) == as_list(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(extra: Value) -> Service {
        let mut value = json!({"metadata": {"name": "web", "namespace": "x", "labels": {"team": "a"}},
            "spec": {"selector": {"app": "x"}, "clusterIP": "10.0.0.1",
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}});
        for (path, new) in extra.as_object().expect("paths") {
            let (parent, key) = path.rsplit_once('/').expect("a path");
            value.pointer_mut(parent).expect("a parent")[key] = new.clone();
        }
        serde_json::from_value(value).expect("a service")
    }

    fn pod(name: &str, ip: &str, port: i32, ready: bool) -> Arc<Pod> {
        let value = json!({"metadata": {"name": name, "uid": name, "namespace": "x"},
            "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        Arc::new(serde_json::from_value(value).expect("a pod"))
    }

    fn slice(name: &str, content: &Value) -> Arc<EndpointSlice> {
        let mut value = content.clone();
        value["metadata"]["name"] = json!(name);
        Arc::new(serde_json::from_value(value).expect("a slice"))
    }

    fn run(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>], max: usize) -> Vec<Action> {
        let zone_of = |_: &str| Some("z1".into());
        let world = World { endpoints_max: max, zone_of: &zone_of, trigger: None, ratios: None };
        plan(service, pods, slices, &world).actions
    }

    /// The slices that the first plan makes; a plan on them has nothing to do.
    fn made(service: &Service, pods: &[Arc<Pod>], max: usize) -> Vec<Arc<EndpointSlice>> {
        let created = run(service, pods, &[], max);
        let slices: Vec<_> = created
            .iter()
            .enumerate()
            .map(|(at, action)| match action {
                Action::Create(content) => Some(slice(&format!("s{at}"), content)),
                _ => None,
            })
            .map(|made| made.expect("only creations"))
            .collect();
        assert_eq!(run(service, pods, &slices, max), [], "settled");
        slices
    }

    #[test]
    fn an_endpoint_tells_all_about_its_pod() {
        let slices = made(&service(json!({})), &[pod("a", "10.1.0.1", 8080, true)], 100);
        assert_eq!(slices[0].ports, json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
        assert_eq!(
            slices[0].endpoints,
            json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "x", "name": "a", "uid": "a"}, "nodeName": "n", "zone": "z1"}])
        );
        assert_eq!(slices[0].metadata.label("team"), Some("a"));
        assert_eq!(slices[0].metadata.label(services::HEADLESS_LABEL), None);
    }

    #[test]
    fn slices_are_filled_and_changed_as_little_as_possible() {
        let web = service(json!({}));
        let pods: Vec<_> = (0..5).map(|n| pod(&format!("p{n}"), &format!("10.1.0.{n}"), 80, true)).collect();
        let slices = made(&web, &pods, 2);
        assert_eq!(slices.len(), 3, "two, two, one");

        let mut changed = pods.clone();
        changed[0] = pod("p0", "10.1.0.0", 80, false);
        let actions = run(&web, &changed, &slices, 2);
        assert!(matches!(actions.as_slice(), [Action::Update(_)]), "one pod, one slice: {actions:?}");

        let fewer = &pods[..4];
        let gone = run(&web, fewer, &slices, 2);
        assert!(matches!(gone.as_slice(), [Action::Delete(_)]), "an emptied slice goes: {gone:?}");
    }

    #[test]
    fn hints_follow_the_distribution_and_readiness() {
        for (distribution, ready, want) in [
            ("", true, json!(null)),
            ("PreferClose", true, json!({"forZones": [{"name": "z1"}]})),
            ("PreferSameZone", true, json!({"forZones": [{"name": "z1"}]})),
            ("PreferSameZone", false, json!(null)),
            ("PreferSameNode", true, json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n"}]})),
        ] {
            let service = service(json!({"/spec/trafficDistribution": distribution}));
            let slices = made(&service, &[pod("a", "10.1.0.1", 80, ready)], 9);
            assert_eq!(slices[0].endpoints[0]["hints"], want, "{distribution} {ready}");
        }
    }

    #[test]
    fn hints_at_zones_stay_as_long_as_they_are_good() {
        let asked =
            service(json!({"/metadata/annotations": {"service.kubernetes.io/topology-mode": "Auto"}}));
        let of_zone = |name: &str, zone: &str| {
            let mut pod = (*pod(name, &format!("10.1.0.{}", name.len()), 80, true)).clone();
            pod.spec.node_name = zone.to_owned();
            Arc::new(pod)
        };
        let run = |pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>], ratios: Option<&Ratios>| {
            let zone_of = |node: &str| Some(node.to_owned());
            plan(&asked, pods, slices, &World { endpoints_max: 9, zone_of: &zone_of, trigger: None, ratios })
        };
        let hints = |content: &Value| -> Vec<String> {
            let zone = |endpoint: &Value| endpoint["hints"]["forZones"][0]["name"].to_string();
            content["endpoints"].as_array().into_iter().flatten().map(zone).collect()
        };
        let even = Ratios::from([("z1".to_owned(), 0.5), ("z2".to_owned(), 0.5)]);
        let pods = [of_zone("p", "z1"), of_zone("pp", "z1")];
        let made = run(&pods, &[], Some(&even));
        let [Action::Create(content)] = made.actions.as_slice() else { unreachable!("a creation") };
        assert_eq!(hints(content), ["\"z2\"", "\"z1\""], "one of them serves the other zone");
        let outcome = Ok(Allocated::from([("z1".to_owned(), 1), ("z2".to_owned(), 1)]));
        assert_eq!(made.hints, Some(vec![("IPv4".to_owned(), outcome)]));

        let known = [slice("s", content)];
        assert_eq!(run(&pods, &known, Some(&even)).actions, [], "settled");
        let unknown = run(&pods, &known, None);
        let [Action::Update(content)] = unknown.actions.as_slice() else { unreachable!("an update") };
        assert_eq!(hints(content), ["null", "null"], "nothing is known of the zones any more");
        assert!(matches!(unknown.hints.as_deref(), Some([(_, Err(_))])), "{:?}", unknown.hints);
    }

    #[test]
    fn a_write_says_what_time_it_follows() {
        let (web, pods) = (service(json!({})), [pod("a", "10.1.0.1", 80, true)]);
        let at = |slices: &[Arc<EndpointSlice>], pods: &[Arc<Pod>], time: Option<&str>| {
            let world = World { endpoints_max: 9, zone_of: &|_| None, trigger: time, ratios: None };
            plan(&web, pods, slices, &world).actions.pop()
        };
        let Some(Action::Create(content)) = at(&[], &pods, Some("t1")) else { unreachable!("a creation") };
        assert_eq!(content["metadata"]["annotations"][LAST_CHANGE], "t1");
        let known = [slice("s", &content)];
        assert_eq!(at(&known, &pods, Some("t2")), None, "a new time alone is no reason to write");
        let Some(Action::Update(content)) = at(&known, &[], None) else { unreachable!("an update") };
        assert_eq!(content["metadata"]["annotations"], json!({}));
    }

    #[test]
    fn special_cases() {
        let none = made(&service(json!({})), &[], 100);
        assert_eq!((none.len(), &none[0].endpoints), (1, &json!([])), "one empty slice");
        let headless =
            made(&service(json!({"/spec/clusterIP": "None"})), &[pod("a", "10.1.0.1", 80, true)], 100);
        assert_eq!(headless[0].metadata.label(services::HEADLESS_LABEL), Some(""));
        let two_ports = [pod("a", "10.1.0.1", 80, true), pod("b", "10.1.0.2", 81, true)];
        assert_eq!(made(&service(json!({})), &two_ports, 100).len(), 2, "one slice for each set of ports");
        let early = made(
            &service(json!({"/spec/publishNotReadyAddresses": true})),
            &[pod("a", "10.1.0.1", 80, false)],
            9,
        );
        assert_eq!(
            early[0].endpoints[0]["conditions"],
            json!({"ready": true, "serving": false, "terminating": false})
        );
    }
}
