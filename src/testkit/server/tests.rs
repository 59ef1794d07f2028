//! The API server through a real client, in process.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::networking::v1::IPAddress;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::ObjectMeta;

use super::*;

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("a".into(), "b".into())])),
        ..ConfigMap::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_server_holds_what_upstreams_does_and_writes_are_seen() {
    let began = std::time::Instant::now();
    let server = TestServer::start().await.expect("a server");
    eprintln!("ready after {:?}", began.elapsed());
    let client = server.client().await.expect("a client");

    let namespaces: Vec<String> = Api::<Namespace>::all(client.clone())
        .list(&ListParams::default())
        .await
        .expect("namespaces")
        .into_iter()
        .filter_map(|n| n.metadata.name)
        .collect();
    assert_eq!(namespaces, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let roles = Api::<ClusterRole>::all(client.clone()).list(&ListParams::default()).await.expect("roles");
    assert_eq!(roles.items.len(), 69);
    let kubernetes =
        Api::<Service>::default_namespaced(client.clone()).get("kubernetes").await.expect("service");
    assert_eq!(kubernetes.spec.and_then(|s| s.cluster_ip).as_deref(), Some("10.96.0.1"));

    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let created = maps.create(&PostParams::default(), &config_map("m")).await.expect("created");
    let revision = created.metadata.resource_version.expect("a revision");
    let mut watch = Box::pin(maps.watch(&WatchParams::default(), &revision).await.expect("a watch"));
    let patch = serde_json::json!({"data": {"a": "c"}});
    maps.patch("m", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    maps.delete("m", &DeleteParams::default()).await.expect("deleted");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match futures::StreamExt::next(&mut watch).await.expect("an event").expect("no error") {
            WatchEvent::Modified(m) => {
                seen.push(format!("modified {:?}", m.data.and_then(|d| d.get("a").cloned())))
            }
            WatchEvent::Deleted(m) => seen.push(format!("deleted {}", m.metadata.name.unwrap_or_default())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["modified Some(\"c\")", "deleted m"]);
    drop(watch);
    tokio::time::timeout(std::time::Duration::from_secs(10), server.stop()).await.expect("ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_may_what_their_roles_say() {
    let server = TestServer::start().await.expect("a server");
    let jane = server.client_of("jane", Some("devs")).await.expect("a client");
    let refused = Api::<ConfigMap>::default_namespaced(jane).list(&ListParams::default()).await;
    let message = match refused {
        Err(kube::Error::Api(status)) => status.message.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        message,
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \
         \"default\""
    );
}

/// upstream: protobuf in the store holds no type meta, so the claims of a StatefulSet lose theirs there.
#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_that_was_read_can_be_written() {
    let server = TestServer::start().await.expect("a server");
    let client = server.client().await.expect("a client");
    let sets: Api<StatefulSet> = Api::default_namespaced(client);
    let set = serde_json::json!({
        "metadata": {"name": "s"},
        "spec": {
            "serviceName": "s",
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    });
    let set: StatefulSet = serde_json::from_value(set).expect("a stateful set");
    sets.create(&PostParams::default(), &set).await.expect("created");
    let read = sets.get("s").await.expect("read");
    let again = sets.replace("s", &PostParams::default(), &read).await.expect("written");
    assert_eq!(again.metadata.resource_version, read.metadata.resource_version, "nothing changed");
}

/// An address whose object was deleted, and one whose object is nobody's any more: a pass puts both right.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_services_are_repaired() {
    let server = TestServer::start().await.expect("a server");
    let client = server.client().await.expect("a client");
    let addresses: Api<IPAddress> = Api::all(client.clone());
    let services: Api<Service> = Api::default_namespaced(client);
    let mut ips = Vec::new();
    for name in ["a", "b"] {
        let service = serde_json::json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        let service: Service = serde_json::from_value(service).expect("a service");
        let made = services.create(&PostParams::default(), &service).await.expect("created");
        ips.push(made.spec.and_then(|s| s.cluster_ip).expect("an address"));
    }
    addresses.delete(&ips[0], &DeleteParams::default()).await.expect("deleted");
    let unlabelled = serde_json::json!({"metadata": {"labels": null}});
    let changed = addresses.patch(&ips[1], &PatchParams::default(), &Patch::Merge(unlabelled)).await;
    assert_eq!(changed.expect("changed").metadata.labels, None);

    let registry = &server.server().expect("a server").registry;
    registry.repair_services(&mut Default::default()).await.expect("repaired");
    for (ip, name) in ips.iter().zip(["a", "b"]) {
        let address = addresses.get(ip).await.expect("an address");
        let parent = address.spec.parent_ref;
        assert_eq!((parent.resource.as_str(), parent.name.as_str()), ("services", name));
        let labels = address.metadata.labels.expect("labels");
        assert_eq!(labels["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    }
    // A second pass finds nothing to do.
    let before: Vec<_> = addresses.list(&ListParams::default()).await.expect("addresses").items;
    registry.repair_services(&mut Default::default()).await.expect("repaired");
    let after = addresses.list(&ListParams::default()).await.expect("addresses").items;
    assert_eq!(before, after);
}
