//! Objects that tell of this very server: its service and endpoints, its ranges of addresses, whom it trusts, its lease.

use std::sync::Arc;
use std::time::Duration;

use copepod_meta::{BoxFuture, GroupResource, Map, Reason, Status, Value, time};
use copepod_registry::{Registry, Repair};
use copepod_serve::Shutdown;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::endpoints::Kubernetes;
use super::{Access, upkeep};

/// The identity lease is renewed so often. upstream: controlplane IdentityLeaseRenewIntervalPeriod
const LEASE_RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i64 = 3600;

/// At the end the store may be gone already. upstream: kubernetesservice Controller.Stop
const LEAVE_TIME_MAX: Duration = Duration::from_secs(20);

/// Keys and values of `extension-apiserver-authentication`.
pub type Trust = Vec<(String, String)>;

/// The first tick comes after a period; after a pause of the machine there is one tick, not a hundred.
fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// What of this server is told to the cluster.
pub struct Own {
    /// `--service-cluster-ip-range`
    pub service_ranges: Vec<ipnet::IpNet>,
    /// Our port.
    pub port: u16,
    /// Our place among the endpoints of `kubernetes`, if they are ours to keep.
    pub kubernetes: Option<Kubernetes>,
    /// `extension-apiserver-authentication`: key and value; changes with the files.
    pub trust: watch::Receiver<Trust>,
    /// The machine's name.
    pub host: String,
    /// Objects, for what needs more than reading and writing them.
    pub registry: Arc<Registry>,
    /// What repairs remember.
    pub repair: tokio::sync::Mutex<Repair>,
}

fn core(resource: &str) -> GroupResource {
    GroupResource::new("", resource)
}

/// An object from members at paths.
pub(super) fn object(namespace: &str, name: &str) -> Value {
    let mut object = Value::map();
    object.set(&["metadata", "name"], name);
    if !namespace.is_empty() {
        object.set(&["metadata", "namespace"], namespace);
    }
    object
}

/// A map of members.
pub(super) fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Map(Map::from_iter(members))
}

type Step = for<'a> fn(&'a Own, &'a Access) -> BoxFuture<'a, Result<(), Status>>;
/// A step under the name of upstream's hook.
pub type Named = (&'static str, Step);

pub const RANGES: &str = "poststarthook/start-kubernetes-service-cidr-controller";
pub const SERVICE: &str = "poststarthook/bootstrap-controller";
pub const TRUST: &str = "poststarthook/start-cluster-authentication-info-controller";
pub const TOKENS: &str = "poststarthook/start-legacy-token-tracking-controller";
pub const IDENTITY: &str = "poststarthook/start-kube-apiserver-identity-lease-controller";

/// What is made: chains that need nothing of each other, each in order (a service's address is of a range).
pub const CHAINS: &[&[Named]] = &[
    &[
        (RANGES, |own, access| Box::pin(own.service_cidr(access))),
        (SERVICE, |own, access| Box::pin(own.service_alone(access))),
        (upkeep::REPAIR, |own, _| Box::pin(own.repair_services())),
    ],
    &[
        (upkeep::CACHES, |own, _| Box::pin(own.start_caches())),
        (upkeep::FILLED, |own, _| Box::pin(own.caches_filled())),
    ],
    &[(TRUST, |own, access| Box::pin(own.authentication(access)))],
    &[(TOKENS, |_, access| Box::pin(legacy_tokens(access)))],
    &[
        (IDENTITY, |own, access| Box::pin(own.renew_lease(access))),
        (upkeep::LEASES, |own, access| Box::pin(own.collect_leases(access))),
    ],
];

impl Own {
    /// Renews the identity lease, stays among the endpoints of `kubernetes`, publishes a changed trust, and keeps leases and
    /// services in order, until the server ends. Then it takes its address out of the endpoints.
    pub async fn keep(&self, access: &Access, shutdown: &Shutdown) {
        self.among_endpoints(access, true).await;
        let mut trust = self.trust.clone();
        let mut renew = interval(LEASE_RENEW);
        let mut reconcile = interval(super::endpoints::RECONCILE);
        let mut collect = interval(upkeep::COLLECT);
        let mut repair = interval(upkeep::REPAIR_PAUSE);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = renew.tick() => {
                    if let Err(error) = self.renew_lease(access).await {
                        tracing::warn!(%error, "the identity lease was not renewed");
                    }
                }
                _ = reconcile.tick() => self.among_endpoints(access, false).await,
                _ = collect.tick() => {
                    if let Err(error) = self.collect_leases(access).await {
                        tracing::error!(%error, "expired leases of API servers were not deleted");
                    }
                }
                _ = repair.tick() => {
                    if let Err(error) = self.repair_services().await {
                        tracing::error!(%error, "addresses and ports of services were not repaired");
                    }
                }
                // The sender lives as long as the server: an error only comes at its end.
                Ok(()) = trust.changed() => {
                    if let Err(error) = self.authentication(access).await {
                        tracing::error!(%error, "whom this server trusts was not published");
                    }
                }
            }
        }
        let Some(kubernetes) = &self.kubernetes else { return };
        match tokio::time::timeout(LEAVE_TIME_MAX, kubernetes.leave(access)).await {
            Ok(Ok(())) => tracing::info!("this server is out of the endpoints of the service kubernetes"),
            Ok(Err(error)) => {
                tracing::error!(%error, "this server could not leave the endpoints of the service kubernetes")
            }
            Err(_) => tracing::warn!("leaving the endpoints of the service kubernetes took too long"),
        }
    }

    async fn among_endpoints(&self, access: &Access, first: bool) {
        if let Some(kubernetes) = &self.kubernetes
            && let Err(error) = kubernetes.join(access, first).await
        {
            tracing::error!(%error, "unable to sync kubernetes service");
        }
    }

    /// upstream: pkg/controlplane/controller/defaultservicecidr
    async fn service_cidr(&self, access: &Access) -> Result<(), Status> {
        let resource = GroupResource::new("networking.k8s.io", "servicecidrs");
        if self.service_ranges.is_empty() || access.lister.get(&resource, "", "kubernetes").await?.is_some() {
            return Ok(());
        }
        let mut wanted = object("", "kubernetes");
        let ranges: Vec<Value> =
            self.service_ranges.iter().map(|r| Value::string(r.trunc().to_string())).collect();
        wanted.set(&["spec", "cidrs"], ranges);
        let Some(mut made) = create(access, &resource, "", wanted).await? else { return Ok(()) };
        let condition = map([
            ("type", "Ready".into()),
            ("status", "True".into()),
            ("message", "Kubernetes default Service CIDR is ready".into()),
            ("lastTransitionTime", time::rfc3339(time::now()).into()),
        ]);
        made.set(&["status", "conditions"], vec![condition]);
        access.writer.update(&resource, "status", made).await.map(|_| ())
    }

    /// The service. Its endpoints come when the server is ready: until then nobody shall be sent here.
    async fn service_alone(&self, access: &Access) -> Result<(), Status> {
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.clean(access).await?;
        }
        self.service(access).await
    }

    /// upstream: pkg/controlplane/controller/kubernetesservice CreateOrUpdateMasterServiceIfNeeded
    async fn service(&self, access: &Access) -> Result<(), Status> {
        let Some(ip) = self.service_ranges.first().and_then(|range| range.hosts().next()) else {
            return Ok(());
        };
        let port = map([
            ("name", "https".into()),
            ("port", 443.into()),
            ("protocol", "TCP".into()),
            ("targetPort", i64::from(self.port).into()),
        ]);
        let resource = core("services");
        if let Some(existing) = access.lister.get(&resource, "default", "kubernetes").await? {
            let current = existing.object.list_at(&["spec", "ports"]);
            if current.len() == 1 && current[0] == port {
                return Ok(());
            }
            let mut changed = (*existing.object).clone();
            changed.set(&["spec", "ports"], vec![port]);
            return access.writer.update(&resource, "", changed).await.map(|_| ());
        }
        let mut wanted = object("default", "kubernetes");
        wanted.set(&["metadata", "labels", "component"], "apiserver");
        wanted.set(&["metadata", "labels", "provider"], "kubernetes");
        wanted.set(&["spec", "clusterIP"], ip.to_string());
        wanted.set(&["spec", "clusterIPs"], vec![Value::string(ip.to_string())]);
        wanted.set(&["spec", "ipFamilyPolicy"], "SingleStack");
        wanted.set(&["spec", "ports"], vec![port]);
        wanted.set(&["spec", "sessionAffinity"], "None");
        wanted.set(&["spec", "internalTrafficPolicy"], "Cluster");
        wanted.set(&["spec", "type"], "ClusterIP");
        create(access, &resource, "default", wanted).await.map(|_| ())
    }

    /// upstream: pkg/controlplane/controller/clusterauthenticationtrust
    async fn authentication(&self, access: &Access) -> Result<(), Status> {
        let mut wanted = object("kube-system", "extension-apiserver-authentication");
        let trust = self.trust.borrow().clone();
        let data: Map = trust.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        wanted.set(&["data"], data);
        create_or_set(access, &core("configmaps"), wanted, &["data"]).await
    }

    /// upstream: pkg/controlplane/apiserver/server.go, start-kube-apiserver-identity-lease-controller
    async fn renew_lease(&self, access: &Access) -> Result<(), Status> {
        let resource = GroupResource::new("coordination.k8s.io", "leases");
        let name = identity(&self.host);
        let now = time::rfc3339_micro(time::now());
        if let Some(existing) = access.lister.get_consistent(&resource, "kube-system", &name).await? {
            let mut renewed = (*existing.object).clone();
            renewed.set(&["spec", "renewTime"], now);
            return match access.writer.update(&resource, "", renewed).await {
                Err(status) if status.reason == Reason::Conflict => Ok(()),
                other => other.map(|_| ()),
            };
        }
        let mut lease = object("kube-system", &name);
        lease.set(&["metadata", "labels", upkeep::IDENTITY_LABEL], upkeep::IDENTITY_VALUE);
        lease.set(&["metadata", "labels", "kubernetes.io/hostname"], self.host.as_str());
        lease.set(&["spec", "holderIdentity"], format!("{name}_{}", uuid::Uuid::new_v4()));
        lease.set(&["spec", "leaseDurationSeconds"], LEASE_SECONDS);
        lease.set(&["spec", "renewTime"], now);
        create(access, &resource, "kube-system", lease).await.map(|_| ())
    }
}

/// When legacy tokens began to be tracked. upstream: pkg/controlplane/controller/legacytokentracking
async fn legacy_tokens(access: &Access) -> Result<(), Status> {
    let (namespace, name) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
    if access.lister.get(&core("configmaps"), namespace, name).await?.is_some() {
        return Ok(());
    }
    let mut wanted = object(namespace, name);
    let today = time::rfc3339(time::now());
    wanted.set(&["data", "since"], today.split('T').next().unwrap_or(""));
    create(access, &core("configmaps"), namespace, wanted).await.map(|_| ())
}

/// `apiserver-` and a hash of machine and program in base 32. upstream: apiserver/pkg/server/config.go NewConfig
fn identity(host: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut named = Vec::new();
    for part in [host, "kube-apiserver"] {
        named.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        named.extend_from_slice(part.as_bytes());
    }
    let hash = Sha256::digest(&named);
    let mut name = String::from("apiserver-");
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in &hash[..16] {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            name.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
    }
    if held > 0 {
        name.push(char::from(ALPHABET[(bits << (5 - held) & 31) as usize]));
    }
    name
}

/// Creates; `None` if somebody else did meanwhile.
pub(super) async fn create(
    access: &Access,
    resource: &GroupResource,
    namespace: &str,
    wanted: Value,
) -> Result<Option<Value>, Status> {
    match access.writer.create(resource, namespace, wanted).await {
        Err(status) if status.reason == Reason::AlreadyExists => Ok(None),
        other => other.map(Some),
    }
}

/// Creates, or sets these members of what is there.
async fn create_or_set(
    access: &Access,
    resource: &GroupResource,
    wanted: Value,
    members: &[&str],
) -> Result<(), Status> {
    let metadata = wanted.get("metadata").clone();
    let (namespace, name) = (metadata.str_at(&["namespace"]), metadata.str_at(&["name"]));
    let Some(existing) = access.lister.get(resource, namespace, name).await? else {
        return create(access, resource, namespace, wanted).await.map(|_| ());
    };
    let mut changed = (*existing.object).clone();
    for member in members {
        changed.set(&[member], wanted.get(member).clone());
    }
    if changed == *existing.object {
        return Ok(());
    }
    access.writer.update(resource, "", changed).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_identity_is_upstreams() {
        // Taken from a server on a machine called "vm".
        assert_eq!(super::identity("vm"), "apiserver-wlv32tlttr4jl3gtroqexyxapa");
    }
}
