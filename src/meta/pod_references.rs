//! Which Secrets and ConfigMaps a pod names, for all who decide on that: the node authorizer, admission.
//!
//! upstream: pkg/api/pod/util.go VisitPodSecretNames, VisitPodConfigmapNames

use crate::Value;

/// The members of a pod's spec that hold containers.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

const SECRET_VOLUMES: [&[&str]; 10] = [
    &["secret", "secretName"],
    &["azureFile", "secretName"],
    &["cephfs", "secretRef", "name"],
    &["cinder", "secretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["scaleIO", "secretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["storageos", "secretRef", "name"],
    &["csi", "nodePublishSecretRef", "name"],
];

/// All containers of a pod's spec, in the order of upstream's VisitContainers.
pub fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.iter().flat_map(|list| spec.list_at(&[list]))
}

/// The Secrets that a pod's spec names, some of them several times; empty names are left out.
pub fn secret_names(spec: &Value) -> impl Iterator<Item = &str> {
    let pull = spec.list_at(&["imagePullSecrets"]).iter().map(|secret| secret.str_at(&["name"]));
    let volumes = spec.list_at(&["volumes"]).iter();
    let mounted = volumes.flat_map(|volume| SECRET_VOLUMES.iter().map(|path| volume.str_at(path)));
    let environment = environment(spec, "secretKeyRef", "secretRef");
    pull.chain(mounted).chain(projected(spec, "secret")).chain(environment).filter(|name| !name.is_empty())
}

/// The same of ConfigMaps.
pub fn config_map_names(spec: &Value) -> impl Iterator<Item = &str> {
    let volumes = spec.list_at(&["volumes"]).iter();
    let mounted = volumes.map(|volume| volume.str_at(&["configMap", "name"]));
    let environment = environment(spec, "configMapKeyRef", "configMapRef");
    mounted.chain(projected(spec, "configMap")).chain(environment).filter(|name| !name.is_empty())
}

fn projected<'a>(spec: &'a Value, member: &'static str) -> impl Iterator<Item = &'a str> {
    let volumes = spec.list_at(&["volumes"]).iter();
    let sources = volumes.flat_map(|volume| volume.list_at(&["projected", "sources"]));
    sources.map(move |source| source.str_at(&[member, "name"]))
}

fn environment<'a>(spec: &'a Value, one: &'static str, whole: &'static str) -> impl Iterator<Item = &'a str> {
    all_containers(spec).flat_map(move |container| {
        let keys = container.list_at(&["env"]).iter().map(move |env| env.str_at(&["valueFrom", one, "name"]));
        keys.chain(container.list_at(&["envFrom"]).iter().map(move |from| from.str_at(&[whole, "name"])))
    })
}
