//! The ConfigMap `kube-root-ca.crt` in every namespace: by it pods know the API server.
//!
//! upstream: pkg/controller/certificates/rootcacertpublisher/publisher.go

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_client::informer::Informer;
use copepod_client::object::{Key, MetaExt, join};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::common::resources::CONFIG_MAPS;
use crate::common::writes;
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{ConfigMap, Namespace};

const NAME: &str = "root-ca-certificate-publisher-controller";
const MAP: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const NOTE: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// What has to be written.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Create,
    Mend,
}

fn plan(namespace: Option<&Namespace>, map: Option<&ConfigMap>, ca: &str) -> Action {
    if namespace.is_none_or(|n| n.metadata.deleting() || n.status.phase == "Terminating") {
        return Action::Nothing;
    }
    let wanted = BTreeMap::from([(KEY.to_owned(), ca.to_owned())]);
    match map {
        None => Action::Create,
        Some(map) if map.data == wanted && map.metadata.annotation(NOTE) == Some(DESCRIPTION) => {
            Action::Nothing
        }
        Some(_) => Action::Mend,
    }
}

/// Starts the controller; without a root certificate it has nothing to publish.
pub fn start(context: &Context) -> Work {
    let Some(ca) = context.config.root_ca.clone() else { return Box::pin(std::future::ready(())) };
    let namespaces: Arc<Informer<Namespace>> = context.informer();
    // Of all ConfigMaps only these are watched.
    let only = kube::runtime::watcher::Config::default().fields(&format!("metadata.name={MAP}"));
    let maps: Arc<Informer<ConfigMap>> = context.factory.informer_with(only, |_| {});
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&namespaces, &queue);
    let add = queue.clone();
    maps.on_change(move |change| add.add(MetaExt::namespace(&change.object().metadata).into()));
    let (client, ca) = (context.client.clone(), Arc::new(ca));
    Box::pin(run_workers(NAME, queue, 1, context.shutdown.clone(), move |namespace: Key| {
        let map = maps.get(&join(&namespace, MAP));
        let action = plan(namespaces.get(&namespace).as_deref(), map.as_deref(), &ca);
        let (client, ca) = (client.clone(), ca.clone());
        async move { act(&client, &namespace, map.as_deref(), &ca, action).await.map(|()| Next::Done) }
    }))
}

async fn act(
    client: &Client,
    namespace: &str,
    known: Option<&ConfigMap>,
    ca: &str,
    action: Action,
) -> Result<(), kube::Error> {
    // What is there is replaced as it was read, metadata and all: what else is in its data goes.
    let mut metadata = known.map_or_else(Default::default, |known| known.metadata.clone());
    metadata.name = Some(MAP.into());
    metadata.namespace = Some(namespace.into());
    metadata.annotations.get_or_insert_default().insert(NOTE.into(), DESCRIPTION.into());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: ca}});
    match action {
        Action::Nothing => Ok(()),
        Action::Create => match rest::create::<IgnoredAny>(client, &CONFIG_MAPS, namespace, &map).await {
            Err(error) if rest::is_already_exists(&error) || rest::is_namespace_terminating(&error) => Ok(()),
            other => other.map(drop),
        },
        Action::Mend => {
            let written = rest::update::<IgnoredAny>(client, &CONFIG_MAPS, namespace, MAP, "", &map).await;
            writes::unless_gone(written.map(drop))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_made_and_kept_as_it_should_be() {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}))
                .expect("JSON");
        let map = |data: serde_json::Value| -> ConfigMap {
            serde_json::from_value(json!({"metadata": {"annotations": {NOTE: DESCRIPTION}}, "data": data}))
                .expect("a map")
        };
        for (name, map, want) in [
            ("missing", None, Action::Create),
            ("right", Some(map(json!({"ca.crt": "CA"}))), Action::Nothing),
            ("another certificate", Some(map(json!({"ca.crt": "old"}))), Action::Mend),
            ("something added", Some(map(json!({"ca.crt": "CA", "x": "y"}))), Action::Mend),
        ] {
            assert_eq!(plan(Some(&namespace), map.as_ref(), "CA"), want, "{name}");
        }
        assert_eq!(plan(None, None, "CA"), Action::Nothing);
    }
}
