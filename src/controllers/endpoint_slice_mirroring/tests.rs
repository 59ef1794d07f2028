//! What is written for Endpoints that somebody keeps, as tables.

use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Plan, is_mirrored, plan};
use crate::common::slices::{Action, MANAGED_BY, SERVICE_NAME};
use crate::common::triggers::LAST_CHANGE;
use crate::kinds::{EndpointSlice, Endpoints};

fn endpoints(subsets: Value) -> Endpoints {
    let metadata = json!({"name": "db", "namespace": "x", "uid": "u1", "labels": {"team": "a"}});
    serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).expect("endpoints")
}

/// Endpoints of one port with these addresses.
fn simple(ips: &[&str]) -> Endpoints {
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    endpoints(json!([{"addresses": addresses, "ports": [{"port": 5432, "protocol": "TCP"}]}]))
}

fn run(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
    plan(endpoints, slices, 3).expect("a plan")
}

/// Slices as the API server keeps them after these creations, named s0, s1 ...
fn kept(plan: &Plan) -> Vec<Arc<EndpointSlice>> {
    let slices = plan.actions.iter().enumerate().filter_map(|(at, action)| {
        let Action::Create(content) = action else { return None };
        let mut content = content.clone();
        content["metadata"]["name"] = json!(format!("s{at}"));
        Some(Arc::new(serde_json::from_value(content).expect("a slice")))
    });
    slices.collect()
}

/// Writes in one line each: `create IPv4 5432: 10.0.0.1 [10.0.0.2]`, what is not ready in brackets.
fn render(plan: &Plan) -> Vec<String> {
    let content = |slice: &Value| {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let ports: Vec<String> = list(&slice["ports"]).iter().map(|port| port["port"].to_string()).collect();
        let address = |endpoint: &Value| {
            let ip = endpoint["addresses"][0].as_str().unwrap_or_default().to_owned();
            if endpoint["conditions"]["ready"] == true { ip } else { format!("[{ip}]") }
        };
        let addresses: Vec<String> = list(&slice["endpoints"]).iter().map(address).collect();
        let family = slice["addressType"].as_str().unwrap_or_default();
        format!("{family} {}: {}", ports.join(","), addresses.join(" "))
    };
    let action = |action: &Action| match action {
        Action::Create(slice) => format!("create {}", content(slice)),
        Action::Update(slice) => {
            format!("update {} {}", slice["metadata"]["name"].as_str().unwrap_or_default(), content(slice))
        }
        Action::Delete(name) => format!("delete {name}"),
    };
    plan.actions.iter().map(action).collect()
}

#[test]
fn subsets_become_slices() {
    let port = |number: i32| json!({"port": number, "protocol": "TCP"});
    let [a, b, six] = [json!({"ip": "10.0.0.1"}), json!({"ip": "10.0.0.2"}), json!({"ip": "fd00::1"})];
    for (name, subsets, want) in [
        ("nothing", json!(null), vec![]),
        ("one", json!([{"addresses": [a], "ports": [port(1)]}]), vec!["create IPv4 1: 10.0.0.1"]),
        ("no ports", json!([{"addresses": [a]}]), vec!["create IPv4 : 10.0.0.1"]),
        (
            "not ready",
            json!([{"addresses": [a], "notReadyAddresses": [b], "ports": [port(1)]}]),
            vec!["create IPv4 1: 10.0.0.1 [10.0.0.2]"],
        ),
        (
            "two sets of ports",
            json!([{"addresses": [a], "ports": [port(1)]}, {"addresses": [b], "ports": [port(2)]}]),
            vec!["create IPv4 1: 10.0.0.1", "create IPv4 2: 10.0.0.2"],
        ),
        (
            "two ports, one address",
            json!([{"addresses": [a], "ports": [port(1)]}, {"addresses": [a], "ports": [port(2)]}]),
            vec!["create IPv4 1,2: 10.0.0.1"],
        ),
        (
            "two families",
            json!([{"addresses": [a, six], "ports": [port(1)]}]),
            vec!["create IPv4 1: 10.0.0.1", "create IPv6 1: fd00::1"],
        ),
        (
            "an address written in another way",
            json!([{"addresses": [{"ip": "010.000.0.01"}, {"ip": "::ffff:10.0.0.2"}], "ports": [port(1)]}]),
            vec!["create IPv4 1: 10.0.0.1 10.0.0.2"],
        ),
    ] {
        assert_eq!(render(&run(&endpoints(subsets), &[])), want, "{name}");
    }
}

#[test]
fn a_slice_tells_all_that_is_known() {
    let mut source = endpoints(json!([{
        "addresses": [{"ip": "10.0.0.1", "hostname": "h", "nodeName": "n",
            "targetRef": {"kind": "Pod", "namespace": "x", "name": "p", "uid": "u"}}],
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP", "appProtocol": "x.io/sql"}]}]));
    source.metadata.annotations = Some(
        [("note", "n"), (LAST_CHANGE, "t"), ("kubectl.kubernetes.io/last-applied-configuration", "{}")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    let made = run(&source, &[]);
    let [Action::Create(slice)] = made.actions.as_slice() else { unreachable!("one creation: {made:?}") };
    let want = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"generateName": "db-", "namespace": "x", "annotations": {"note": "n"},
            "labels": {"team": "a", SERVICE_NAME: "db",
                MANAGED_BY: "endpointslicemirroring-controller.k8s.io"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Endpoints", "name": "db", "uid": "u1",
                "controller": true, "blockOwnerDeletion": true}]},
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP", "appProtocol": "x.io/sql"}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "hostname": "h", "nodeName": "n",
            "targetRef": {"kind": "Pod", "namespace": "x", "name": "p", "uid": "u"}}],
    });
    assert_eq!(slice, &want);
    assert_eq!(run(&source, &kept(&made)), Plan::default(), "settled");
}

#[test]
fn what_is_there_is_changed_only_where_it_must_be() {
    let known = kept(&run(&simple(&["10.0.0.1", "10.0.0.2"]), &[]));
    let two_ports = endpoints(json!([
        {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1, "protocol": "TCP"}]},
        {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 2, "protocol": "TCP"}]}]));
    let twice = [known[0].clone(), {
        let mut other = (*known[0]).clone();
        other.metadata.name = Some("later".into());
        Arc::new(other)
    }];
    let mut recreated = simple(&["10.0.0.1", "10.0.0.2"]);
    recreated.metadata.uid = Some("u2".into());
    let mut labelled = simple(&["10.0.0.1", "10.0.0.2"]);
    labelled.metadata.labels = None;
    let mut stamped = simple(&["10.0.0.1", "10.0.0.2"]);
    stamped.metadata.annotations = Some([(LAST_CHANGE.to_owned(), "t".to_owned())].into());
    let mut annotated = simple(&["10.0.0.1", "10.0.0.2"]);
    annotated.metadata.annotations = Some([("note".to_owned(), "t".to_owned())].into());
    let all = "update s0 IPv4 5432: 10.0.0.1 10.0.0.2";
    for (name, source, slices, want) in [
        ("the same", simple(&["10.0.0.1", "10.0.0.2"]), &known[..], vec![]),
        ("another order", simple(&["10.0.0.2", "10.0.0.1"]), &known, vec![]),
        ("only a time", stamped, &known, vec![]),
        ("an annotation", annotated, &known, vec![all]),
        ("a label less", labelled, &known, vec![all]),
        ("an owner of the same name", recreated, &known, vec![all]),
        ("one less", simple(&["10.0.0.2"]), &known, vec!["update s0 IPv4 5432: 10.0.0.2"]),
        ("none left", simple(&[]), &known, vec!["delete s0"]),
        ("a slice too many", simple(&["10.0.0.1", "10.0.0.2"]), &twice, vec!["delete later"]),
        (
            "other ports: the slice is used again",
            two_ports,
            &known,
            vec!["create IPv4 2: 10.0.0.2", "update s0 IPv4 1: 10.0.0.1"],
        ),
        (
            "another family: no slice can become of it",
            simple(&["fd00::1"]),
            &known,
            vec!["create IPv6 5432: fd00::1", "delete s0"],
        ),
    ] {
        assert_eq!(render(&run(&source, slices)), want, "{name}");
    }
}

#[test]
fn what_others_added_to_a_slice_is_no_reason_to_write() {
    let source = endpoints(json!([{"addresses": [
        {"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "p", "resourceVersion": "7"}}]}]));
    let mut slice = (*kept(&run(&source, &[]))[0]).clone();
    slice.endpoints[0]["targetRef"]["resourceVersion"] = json!("8");
    slice.endpoints[0]["hints"] = json!({"forZones": [{"name": "z"}]});
    assert_eq!(run(&source, &[Arc::new(slice)]), Plan::default());
}

#[test]
fn what_cannot_be_mirrored_is_told() {
    let invalid = "Skipped 2 invalid IP addresses when mirroring to EndpointSlices";
    let skipped = |count: usize| {
        format!(
            "A max of 3 addresses can be mirrored to EndpointSlices per Endpoints subset. {count} addresses were skipped"
        )
    };
    let source = simple(&["10.0.0.1", "ten", "10.0.0.256"]);
    let plan = run(&source, &[]);
    assert_eq!(render(&plan), ["create IPv4 5432: 10.0.0.1"]);
    assert_eq!(plan.warnings, [("InvalidIPAddress", invalid.to_owned())]);

    let plan = run(&simple(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]), &[]);
    assert_eq!(render(&plan), ["create IPv4 5432: 10.0.0.1 10.0.0.2 10.0.0.3"]);
    assert_eq!(plan.warnings, [("TooManyAddressesToMirror", skipped(2))]);

    let source = endpoints(json!([{"addresses": [{"ip": "10.0.0.9"}], "notReadyAddresses":
        [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}]}]));
    assert_eq!(
        render(&run(&source, &[])),
        ["create IPv4 : [10.0.0.1] [10.0.0.2] 10.0.0.9"],
        "the ready one stays"
    );
}

#[test]
fn endpoints_that_go_get_no_new_slices() {
    let mut source = simple(&["10.0.0.1"]);
    let known = kept(&run(&source, &[]));
    source.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    assert_eq!(run(&source, &[]).actions, []);
    assert_eq!(run(&source, &known).actions, []);
}

#[test]
fn who_is_mirrored() {
    for (name, metadata, want) in [
        ("any", json!({}), true),
        ("not to be", json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}), false),
        ("another word", json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "yes"}}), true),
        ("a lock", json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}), false),
    ] {
        let endpoints: Endpoints = serde_json::from_value(json!({"metadata": metadata})).expect("endpoints");
        assert_eq!(is_mirrored(&endpoints), want, "{name}");
    }
}
