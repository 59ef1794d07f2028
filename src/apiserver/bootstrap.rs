//! Objects that the server makes for itself at start, and keeps.
//!
//! upstream: the post-start hooks of pkg/controlplane, pkg/registry/{rbac,scheduling,flowcontrol}/rest
//!
//! What upstream writes down in Go is data here: `api/bootstrap/*.jsonl`, taken from a fresh upstream server by
//! `hack/upstream/bootstrap-objects`. What depends on this server's flags is made by [`own`].
//!
//! Invariants: what a user changed is not changed back, except as upstream does (rights that a default role lacks, fields of
//! flow control that are marked for automatic update); nothing is deleted.
//!
//! When it breaks: each part is tried again until it succeeds; `/readyz` names the part that has not.

mod endpoints;
mod own;
mod reconcile;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use copepod_codec::Media;
use copepod_meta::{GroupResource, Lister, Status, Value, Writer};
use copepod_schema::Universe;
use copepod_serve::Shutdown;
use copepod_serve::health::Flag;
use futures::StreamExt as _;

pub use endpoints::Kubernetes;
pub use own::{Own, Trust};
use reconcile::Policy;

/// Writes under way at a time: they share commits of the store.
const CONCURRENCY: usize = 64;
/// Between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A part of the start with its check in `/readyz`.
struct Part {
    /// Upstream's name of the hook.
    hook: &'static str,
    /// Files of objects, one a line.
    files: &'static [(&'static str, &'static str, Policy, &'static str)],
}

/// The parts, in order; namespaces come before what lives in them.
const PARTS: &[Part] = &[
    Part {
        hook: NAMESPACES,
        files: &[("", "namespaces", Policy::Create, include_str!("../../api/bootstrap/namespaces.jsonl"))],
    },
    Part {
        hook: ROLES,
        files: &[
            (RBAC, "clusterroles", Policy::Role, include_str!("../../api/bootstrap/clusterroles.jsonl")),
            (
                RBAC,
                "clusterrolebindings",
                Policy::Binding,
                include_str!("../../api/bootstrap/clusterrolebindings.jsonl"),
            ),
            (RBAC, "roles", Policy::Role, include_str!("../../api/bootstrap/roles.jsonl")),
            (RBAC, "rolebindings", Policy::Binding, include_str!("../../api/bootstrap/rolebindings.jsonl")),
        ],
    },
    Part {
        hook: PRIORITIES,
        files: &[(
            "scheduling.k8s.io",
            "priorityclasses",
            Policy::Create,
            include_str!("../../api/bootstrap/priorityclasses.jsonl"),
        )],
    },
    Part {
        hook: FLOWS,
        files: &[
            (
                FLOW,
                "prioritylevelconfigurations",
                Policy::AutoUpdate,
                include_str!("../../api/bootstrap/prioritylevelconfigurations.jsonl"),
            ),
            (FLOW, "flowschemas", Policy::AutoUpdate, include_str!("../../api/bootstrap/flowschemas.jsonl")),
        ],
    },
    Part {
        hook: API_SERVICES,
        files: &[(
            "apiregistration.k8s.io",
            "apiservices",
            Policy::ApiService,
            include_str!("../../api/bootstrap/apiservices.jsonl"),
        )],
    },
];

const RBAC: &str = "rbac.authorization.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";

/// All checks in upstream's order, each with the part that it waits for. What upstream checks beyond these are parts that this
/// server does not have.
const CHECKS: &[(&str, &str)] = &[
    (upkeep::CACHES, upkeep::CACHES),
    (NAMESPACES, NAMESPACES),
    (own::TRUST, own::TRUST),
    (own::IDENTITY, own::IDENTITY),
    (upkeep::LEASES, upkeep::LEASES),
    (upkeep::FILLED, upkeep::FILLED),
    (own::TOKENS, own::TOKENS),
    (upkeep::REPAIR, upkeep::REPAIR),
    (ROLES, ROLES),
    (PRIORITIES, PRIORITIES),
    (FLOWS, FLOWS),
    (own::SERVICE, own::SERVICE),
    (own::RANGES, own::RANGES),
    ("poststarthook/apiservice-status-local-available-controller", API_SERVICES),
    (API_SERVICES, API_SERVICES),
    ("poststarthook/kube-apiserver-autoregistration", API_SERVICES),
    ("autoregister-completion", API_SERVICES),
];

const NAMESPACES: &str = "poststarthook/start-system-namespaces-controller";
const ROLES: &str = "poststarthook/rbac/bootstrap-roles";
const PRIORITIES: &str = "poststarthook/scheduling/bootstrap-system-priority-classes";
const FLOWS: &str = "poststarthook/priority-and-fairness-config-producer";
const API_SERVICES: &str = "poststarthook/apiservice-registration-controller";

/// The names of all checks with their flags; [`run`] sets them.
pub fn checks() -> Vec<(&'static str, Flag)> {
    let mut flags: Vec<(&str, Flag)> = Vec::new();
    let mut checks = Vec::new();
    for (name, part) in CHECKS {
        let flag = match flags.iter().find(|(known, _)| known == part) {
            Some((_, flag)) => flag.clone(),
            None => {
                let flag = Flag::new("not finished");
                flags.push((part, flag.clone()));
                flag
            }
        };
        checks.push((*name, flag));
    }
    checks
}

/// How objects are reached.
#[derive(Clone)]
pub struct Access {
    /// Reads.
    pub lister: Arc<dyn Lister>,
    /// Writes.
    pub writer: Arc<dyn Writer>,
}

/// Makes everything, then keeps what has to be kept until `shutdown`.
pub async fn run(access: Access, own: Own, checks: Vec<(&'static str, Flag)>, shutdown: Shutdown) {
    let done = |name: &str| {
        if let Some((_, flag)) = checks.iter().find(|(n, _)| *n == name) {
            flag.set();
        }
    };
    let part = async |part: &Part| {
        retry(part.hook, &shutdown, || make(&access, part)).await;
        done(part.hook);
    };
    let steps = async |steps: &[own::Named]| {
        for (hook, step) in steps {
            retry(hook, &shutdown, || step(&own, &access)).await;
            done(hook);
        }
    };
    // Namespaces are needed by the others; these need nothing of each other, and together they share the store's commits.
    let (namespaces, others) = PARTS.split_at(1);
    futures::future::join_all(namespaces.iter().map(&part)).await;
    let parts = futures::future::join_all(others.iter().map(&part));
    let chains = futures::future::join_all(own::CHAINS.iter().map(|chain| steps(chain)));
    futures::join!(parts, chains);
    own.keep(&access, &shutdown).await;
}

/// Tries until it succeeds or the server ends.
async fn retry<F>(what: &str, shutdown: &Shutdown, attempt: impl Fn() -> F)
where
    F: Future<Output = Result<(), Status>>,
{
    while let Err(error) = attempt().await {
        tracing::warn!(%error, what, "a start-up object could not be made; trying again");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

/// Brings every object of a part to where it has to be.
async fn make(access: &Access, part: &Part) -> Result<(), Status> {
    let mut objects = Vec::new();
    for (group, plural, policy, text) in part.files {
        let resource = GroupResource::new(group, plural);
        for line in text.lines() {
            objects.push((resource.clone(), *policy, parse(line)?));
        }
    }
    let made = futures::stream::iter(objects)
        .map(|(resource, policy, object)| async move { policy.reconcile(access, &resource, object).await })
        .buffer_unordered(CONCURRENCY);
    let results: Vec<Result<(), Status>> = made.collect().await;
    results.into_iter().collect()
}

/// An object of a file as a tree.
fn parse(line: &str) -> Result<Value, Status> {
    let gvk = copepod_codec::type_meta(line.as_bytes(), Media::Json).map_err(Status::internal)?;
    let universe = Universe::builtin();
    let ty = universe.by_gvk(&gvk).ok_or_else(|| Status::internal(format!("no type for {gvk}")))?;
    let decoded = copepod_codec::decode(line.as_bytes(), Media::Json, universe, ty, None);
    Ok(decoded.map_err(Status::internal)?.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_check() {
        let parts =
            PARTS.iter().map(|p| p.hook).chain(own::CHAINS.iter().copied().flatten().map(|(hook, _)| *hook));
        for part in parts {
            assert!(CHECKS.contains(&(part, part)), "{part}: nothing would wait for it");
        }
    }

    #[test]
    fn every_line_is_an_object_of_a_known_type() {
        let mut count = 0;
        for (_, plural, _, text) in PARTS.iter().flat_map(|p| p.files) {
            for line in text.lines() {
                let object = parse(line).unwrap_or_else(|e| panic!("{plural}: {e}: {line}"));
                assert!(!object.str_at(&["metadata", "name"]).is_empty(), "{line}");
                count += 1;
            }
        }
        assert_eq!(count, 179, "as many as hack/upstream/bootstrap-objects counted");
    }
}
