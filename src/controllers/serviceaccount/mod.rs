//! A service account `default` in every namespace, so that pods that name none have one.
//!
//! upstream: pkg/controller/serviceaccount/serviceaccounts_controller.go

use std::sync::Arc;

use copepod_client::informer::Informer;
use copepod_client::object::{Key, MetaExt, join};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::common::resources::SERVICE_ACCOUNTS;
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{Namespace, ServiceAccount};

const NAME: &str = "serviceaccount-controller";
const ACCOUNT: &str = "default";

/// Whether the account has to be made.
fn is_missing(
    namespaces: &Informer<Namespace>,
    accounts: &Informer<ServiceAccount>,
    namespace: &str,
) -> bool {
    let open =
        namespaces.get(namespace).is_some_and(|n| !n.metadata.deleting() && n.status.phase != "Terminating");
    open && accounts.get(&join(namespace, ACCOUNT)).is_none()
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let namespaces: Arc<Informer<Namespace>> = context.informer();
    let accounts: Arc<Informer<ServiceAccount>> = context.informer();
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&namespaces, &queue);
    let add = queue.clone();
    accounts.on_change(move |change| {
        let metadata = &change.object().metadata;
        if metadata.name() == ACCOUNT {
            add.add(MetaExt::namespace(metadata).into());
        }
    });
    let (client, workers) = (context.client.clone(), context.config.concurrent_serviceaccount_syncs);
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |namespace: Key| {
        let (client, missing) = (client.clone(), is_missing(&namespaces, &accounts, &namespace));
        async move {
            if !missing {
                return Ok(Next::Done);
            }
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": ACCOUNT, "namespace": &*namespace}});
            match rest::create::<IgnoredAny>(&client, &SERVICE_ACCOUNTS, &namespace, &account).await {
                Err(error) if rest::is_already_exists(&error) || rest::is_namespace_terminating(&error) => {
                    Ok(Next::Done)
                }
                other => other.map(|_| Next::Done),
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_namespaces_without_the_account_get_one() {
        for (name, phase, account, want) in [
            ("new", "Active", "", true),
            ("has one", "Active", "default", false),
            ("has another", "Active", "robot", true),
            ("ending", "Terminating", "", false),
        ] {
            let (namespaces, accounts) = (Informer::default(), Informer::default());
            let namespace = json!({"metadata": {"name": "a"}, "status": {"phase": phase}});
            namespaces.apply(Arc::new(serde_json::from_value(namespace).expect("a namespace")));
            if !account.is_empty() {
                let account = json!({"metadata": {"name": account, "namespace": "a"}});
                accounts.apply(Arc::new(serde_json::from_value(account).expect("an account")));
            }
            assert_eq!(is_missing(&namespaces, &accounts, "a"), want, "{name}");
        }
        assert!(!is_missing(&Informer::default(), &Informer::default(), "unknown"));
    }
}
