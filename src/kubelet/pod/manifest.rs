//! Static pods: manifests in a directory, and the mirror pods that show them to the API.
//!
//! A static pod's uid is a hash of its manifest and the node's name: a changed file is another pod. Its name is the
//! manifest's with the node's name behind it.
//!
//! upstream: kubelet/config/{common,file,file_linux}.go, kubelet/pod/mirror_client.go

use std::path::{Path, PathBuf};
use std::sync::Arc;

use copepod_client::rest;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::sync::mpsc;

use super::manager::Change;
use super::model::{
    CONFIG_HASH_ANNOTATION, CONFIG_MIRROR_ANNOTATION, CONFIG_SEEN_ANNOTATION, CONFIG_SOURCE_ANNOTATION,
    annotation, names,
};
use crate::{
    context::Context,
    directory::{DirectoryWatch, FILES},
    yaml,
};

const PODS: rest::ResourceType = rest::ResourceType::namespaced("", "v1", "pods");
const NODES: rest::ResourceType = rest::ResourceType::cluster("", "v1", "nodes");

/// The whole directory is read again so often, should a change have gone unseen (upstream's `fileCheckFrequency`).
const REREAD: std::time::Duration = std::time::Duration::from_secs(20);

/// Reads the directory now and whenever it changes.
pub async fn follow(context: Arc<Context>, directory: PathBuf, changes: mpsc::Sender<Change>) {
    let watch = match DirectoryWatch::new(&directory, FILES) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(%error, path = %directory.display(), "cannot watch the manifest directory");
            None
        }
    };
    loop {
        let pods = read_directory(&directory, &context.config.node_name);
        if changes.send(Change::Manifests(pods)).await.is_err() {
            return;
        }
        let changed = async {
            match &watch {
                Some(watch) => {
                    if let Err(error) = watch.changed().await {
                        tracing::warn!(%error, path = %directory.display(), "watching the manifest directory");
                        std::future::pending::<()>().await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(REREAD) => {}
        }
    }
}

/// All manifests of a directory. One that cannot be read is told and left out.
fn read_directory(directory: &Path, node_name: &str) -> Vec<Arc<Pod>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, path = %directory.display(), "reading the manifest directory");
            return Vec::new();
        }
    };
    let mut pods = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        // Editors' and deployers' temporary files begin with a dot.
        if entry.file_name().to_string_lossy().starts_with('.') || !path.is_file() {
            continue;
        }
        let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        match read.and_then(|text| parse(&text, node_name)) {
            Ok(pod) => pods.push(Arc::new(pod)),
            Err(error) => tracing::warn!(error, path = %path.display(), "manifest"),
        }
    }
    pods
}

/// A pod from a manifest, with what upstream's kubelet adds to it.
// upstream: kubelet/config/common.go applyDefaults
fn parse(text: &str, node_name: &str) -> Result<Pod, String> {
    let mut pod: Pod = yaml::read(text)?;
    let spec = pod.spec.as_mut().ok_or("no spec")?;
    if spec.containers.is_empty() {
        return Err("no containers".into());
    }
    spec.node_name = Some(node_name.to_owned());
    spec.enable_service_links.get_or_insert(true);
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    // The node's taints never evict a static pod.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    });
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        container.termination_message_policy.get_or_insert_with(|| "File".into());
        if container.image_pull_policy.is_none() {
            let image = container.image.as_deref().unwrap_or_default();
            let floating =
                image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains(':');
            container.image_pull_policy = Some(if floating { "Always" } else { "IfNotPresent" }.into());
        }
    }
    let meta = &mut pod.metadata;
    let name = meta.name.as_deref().filter(|name| !name.is_empty()).ok_or("no name")?;
    meta.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".into());
    let hash = content_hash(text, node_name);
    if meta.uid.is_none() {
        meta.uid = Some(hash.clone());
    }
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH_ANNOTATION.into(), hash);
    annotations.insert(CONFIG_SOURCE_ANNOTATION.into(), "file".into());
    annotations.insert(CONFIG_SEEN_ANNOTATION.into(), jiff::Timestamp::now().to_string());
    pod.status =
        Some(k8s_openapi::api::core::v1::PodStatus { phase: Some("Pending".into()), ..Default::default() });
    Ok(pod)
}

/// 128 bits of FNV-1a as hex. Nobody attacks the names of files that root writes.
fn content_hash(text: &str, node_name: &str) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    let bytes = text.bytes().chain([0]).chain(node_name.bytes());
    let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:032x}")
}

/// Whether a mirror shows another manifest than the static pod's.
pub fn is_stale(mirror: &Pod, pod: &Pod) -> bool {
    annotation(mirror, CONFIG_MIRROR_ANNOTATION) != annotation(pod, CONFIG_HASH_ANNOTATION)
}

/// Makes the mirror of a static pod. An existing one will be seen by the watch.
pub fn create_mirror(context: Arc<Context>, pod: Arc<Pod>) {
    tokio::spawn(async move {
        let mut mirror = Pod::clone(&pod);
        let hash = annotation(&pod, CONFIG_HASH_ANNOTATION).unwrap_or_default().to_owned();
        mirror.metadata.uid = None;
        mirror.metadata.annotations.get_or_insert_default().insert(CONFIG_MIRROR_ANNOTATION.into(), hash);
        mirror.status = None;
        let node_name = &context.config.node_name;
        match rest::get::<k8s_openapi::api::core::v1::Node>(&context.client, &NODES, "", node_name).await {
            Ok(node) => {
                // The node owns its mirrors; the API server refuses others'.
                mirror.metadata.owner_references = Some(vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: node_name.clone(),
                    uid: node.metadata.uid.unwrap_or_default(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]);
            }
            Err(error) => tracing::warn!(error = rest::message(&error), "node of a mirror pod"),
        }
        let (namespace, name) = names(&pod);
        match rest::create::<Pod>(&context.client, &PODS, namespace, &mirror).await {
            Err(error) if !rest::is_already_exists(&error) => {
                tracing::warn!(error = rest::message(&error), namespace, name, "creating a mirror pod");
            }
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::model::is_static;

    const MANIFEST: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: a\n    image: nginx\n  - name: b\n    image: nginx:1\n";

    #[test]
    fn manifests_become_pods() {
        let pod = parse(MANIFEST, "Node-1").expect("a pod");
        assert_eq!(names(&pod), ("default", "web-node-1"));
        assert!(is_static(&pod));
        let same = parse(MANIFEST, "Node-1").expect("a pod");
        let other = parse(&MANIFEST.replace("nginx:1", "nginx:2"), "Node-1").expect("a pod");
        assert_eq!(pod.metadata.uid, same.metadata.uid);
        assert_ne!(pod.metadata.uid, other.metadata.uid);
        let spec = pod.spec.expect("a spec");
        let policies: Vec<_> =
            spec.containers.iter().filter_map(|c| c.image_pull_policy.as_deref()).collect();
        assert_eq!(policies, ["Always", "IfNotPresent"]);
        for bad in ["", "kind: Pod", "metadata: {name: x}\nspec: {containers: []}", "a: [1"] {
            assert!(parse(bad, "n").is_err(), "{bad:?}");
        }
    }
}
