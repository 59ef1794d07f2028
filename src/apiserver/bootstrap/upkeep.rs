//! What is kept in order besides the objects themselves: caches at start, leases of servers that are gone, addresses and ports of
//! services.
//!
//! Each has its check in `/readyz`, which passes after the first success.

use std::time::Duration;

use copepod_meta::{GroupResource, Status, Value, time};

use super::Access;
use super::own::Own;

pub const CACHES: &str = "poststarthook/generic-apiserver-start-informers";
pub const FILLED: &str = "poststarthook/storage-readiness";
pub const LEASES: &str = "poststarthook/start-kube-apiserver-identity-lease-garbage-collector";
pub const REPAIR: &str = "poststarthook/start-service-ip-repair-controllers";

/// Expired leases are looked for so often. upstream: controlplane IdentityLeaseGCPeriod
pub const COLLECT: Duration = Duration::from_secs(3600);
/// Services are repaired so often. upstream: controlplane RepairServicesInterval
pub const REPAIR_PAUSE: Duration = Duration::from_secs(180);
/// The label of leases of API servers, and its value.
pub const IDENTITY_LABEL: &str = "apiserver.kubernetes.io/identity";
pub const IDENTITY_VALUE: &str = "kube-apiserver";

/// Caches are waited for so long before it is said that they are late.
const FILL_TIME: Duration = Duration::from_secs(10);

impl Own {
    /// Lets every cache follow the store; one that does already goes on.
    pub async fn start_caches(&self) -> Result<(), Status> {
        self.registry.warm();
        Ok(())
    }

    /// Waits until every cache has its state. Later gaps are not its matter: `informer-sync` tells of them.
    /// upstream: apiserver/pkg/server/storage_readiness_hook.go
    pub async fn caches_filled(&self) -> Result<(), Status> {
        let filled = async {
            while !self.registry.not_ready().is_empty() {
                // Caches have no common signal; this wait is some milliseconds at start only.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let late =
            |_| Status::service_unavailable(format!("not filled: {}", self.registry.not_ready().join(" ")));
        tokio::time::timeout(FILL_TIME, filled).await.map_err(late)
    }

    /// Deletes leases of API servers that are gone. upstream: pkg/controlplane/controller/apiserverleasegc gc
    pub async fn collect_leases(&self, access: &Access) -> Result<(), Status> {
        let resource = GroupResource::new("coordination.k8s.io", "leases");
        let now = time::now();
        for lease in access.lister.list(&resource, "kube-system").await? {
            let is_ours = lease.object.str_at(&["metadata", "labels", IDENTITY_LABEL]) == IDENTITY_VALUE;
            if !is_ours || !is_expired(&lease.object, now) {
                continue;
            }
            // The cache may be behind a renewal.
            let name = lease.object.str_at(&["metadata", "name"]);
            let newest = access.lister.get_consistent(&resource, "kube-system", name).await?;
            if let Some(newest) = newest.filter(|newest| is_expired(&newest.object, now)) {
                self.registry.delete_seen(&resource, &newest.object).await?;
                tracing::info!(name, "the lease of an API server that is gone was deleted");
            }
        }
        Ok(())
    }

    /// One pass; several never run at a time.
    pub async fn repair_services(&self) -> Result<(), Status> {
        self.registry.repair_services(&mut *self.repair.lock().await).await
    }
}

/// Whether its server has not renewed it in time; one without times is nobody's. upstream: isLeaseExpired
fn is_expired(lease: &Value, now: time::Timestamp) -> bool {
    let renewed = time::parse(lease.str_at(&["spec", "renewTime"]));
    let seconds = lease.at(&["spec", "leaseDurationSeconds"]).as_int();
    match (renewed, seconds) {
        (Some(renewed), Some(seconds)) => time::plus_seconds(renewed, seconds) < now,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_expires_when_it_is_not_renewed() {
        let now = time::parse("2026-01-01T01:00:00Z").expect("a time");
        for (renewed, seconds, want) in [
            ("2026-01-01T00:00:01.000000Z", Some(3600), false),
            ("2026-01-01T00:00:00.000000Z", Some(3600), false),
            ("2025-12-31T23:59:59.000000Z", Some(3600), true),
            ("2026-01-01T01:00:00.000000Z", None, true),
            ("", Some(3600), true),
        ] {
            let mut lease = Value::map();
            if !renewed.is_empty() {
                lease.set(&["spec", "renewTime"], renewed);
            }
            if let Some(seconds) = seconds {
                lease.set(&["spec", "leaseDurationSeconds"], i64::from(seconds));
            }
            assert_eq!(is_expired(&lease, now), want, "{renewed} {seconds:?}");
        }
    }
}
