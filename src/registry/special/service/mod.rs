//! Services: cluster addresses and node ports, taken before a service is stored and given back when it is not.
//!
//! Addresses are IPAddress objects, so that every API server of the cluster sees the same ones taken; node ports are bits of one
//! RangeAllocation. Both as upstream keeps them.
//!
//! upstream: pkg/registry/core/service/storage/{storage,alloc}.go

mod addresses;
mod families;
mod ports;
mod repair;

use std::net::IpAddr;

use copepod_meta::{BoxFuture, GroupResource, Status, Value};

pub(crate) use addresses::Addresses;
pub use repair::Repair;

use super::{Hooks, Taken};
use crate::call::Call;

/// A headless service's address.
const NONE: &str = "None";

pub(super) struct Service;

impl Hooks for Service {
    fn begin_create<'a>(
        &'a self,
        call: &'a Call<'_>,
        service: &'a mut Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(async move {
            if !cluster_ip(service).is_empty() && cluster_ips(service).is_empty() {
                set_cluster_ips(service, &[cluster_ip(service).to_string()]);
            }
            take(call, service, None).await
        })
    }

    fn begin_update<'a>(
        &'a self,
        call: &'a Call<'_>,
        service: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(async move {
            if !call.target.subresource.is_empty() {
                // Status takes nothing.
                return Ok(Taken::default());
            }
            keep_taken(service, old);
            normalize_cluster_ips(service, old);
            take(call, service, Some(old)).await
        })
    }

    fn after_delete<'a>(&'a self, call: &'a Call<'_>, service: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let endpoints = GroupResource::new("", "endpoints");
            let text = |member| service.str_at(&["metadata", member]);
            let registry = call.registry;
            if let Err(error) = registry.delete_own(&endpoints, text("namespace"), text("name")).await {
                tracing::warn!(%error, "endpoints of a deleted service stay behind");
            }
            let mut ports = node_ports(service);
            ports.extend(health_port(service));
            release(registry, &held_addresses(service), &ports).await;
        })
    }
}

/// Gives back what nobody holds any more. What cannot be given back is leaked until the next repair, never taken twice.
async fn release(registry: &crate::registry::Registry, addresses: &[IpAddr], ports: &[i64]) {
    for address in addresses {
        if let Err(error) = registry.addresses.release(registry, *address).await {
            tracing::warn!(%address, %error, "a cluster address could not be given back");
        }
    }
    if let Err(error) = registry.addresses.release_ports(registry, ports).await {
        tracing::warn!(?ports, %error, "node ports could not be given back");
    }
}

/// What a write takes, and what it lets go of when it is done.
#[derive(Default)]
struct Changes {
    taken: Vec<IpAddr>,
    let_go: Vec<IpAddr>,
    taken_ports: Vec<i64>,
    let_go_ports: Vec<i64>,
}

/// upstream: allocateCreate, allocateUpdate
async fn take(call: &Call<'_>, service: &mut Value, old: Option<&Value>) -> Result<Taken, Status> {
    let mut changes = Changes::default();
    let done = take_all(call, service, old, &mut changes).await;
    let Some(registry) = call.registry.me.upgrade() else { return done.map(|()| Taken::default()) };
    if let Err(status) = done {
        release(&registry, &changes.taken, &changes.taken_ports).await;
        return Err(status);
    }
    if call.dry_run {
        return Ok(Taken::default());
    }
    Ok(Taken::new(move |done| {
        Box::pin(async move {
            if done {
                release(&registry, &changes.let_go, &changes.let_go_ports).await;
            } else {
                release(&registry, &changes.taken, &changes.taken_ports).await;
            }
        })
    }))
}

async fn take_all(
    call: &Call<'_>,
    service: &mut Value,
    old: Option<&Value>,
    changes: &mut Changes,
) -> Result<(), Status> {
    let addresses = &call.registry.addresses;
    families::initialize(service, old, addresses.families())?;
    if !old.is_some_and(|old| families::is_settled_dual_stack(service, old)) {
        take_addresses(call, service, old, changes).await?;
    }
    ports::take(call, service, old, &mut changes.taken_ports, &mut changes.let_go_ports).await
}

/// upstream: allocClusterIPs, updateClusterIPs
async fn take_addresses(
    call: &Call<'_>,
    service: &mut Value,
    old: Option<&Value>,
    changes: &mut Changes,
) -> Result<(), Status> {
    let is_headless = |service: &Value| cluster_ips(service).first().is_some_and(|ip| ip == NONE);
    let Some(old) = old.filter(|old| !is_external_name(old)) else {
        if is_external_name(service) || is_headless(service) {
            return Ok(());
        }
        return take_from(call, service, 0, changes).await;
    };
    if is_headless(old) {
        return Ok(());
    }
    if is_external_name(service) {
        changes.let_go = held_addresses(old);
        return Ok(());
    }
    // The first address stays; the second one comes and goes with its family.
    match (families::of(old).len(), families::of(service).len()) {
        (1, 2) => take_from(call, service, 1, changes).await,
        (2, 1) => {
            changes.let_go = held_addresses(old).into_iter().skip(1).collect();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Takes an address for each family from the place `first` on: the one that is asked for, else any.
async fn take_from(
    call: &Call<'_>,
    service: &mut Value,
    first: usize,
    changes: &mut Changes,
) -> Result<(), Status> {
    let mut ips = cluster_ips(service);
    let wanted = families::of(service);
    ips.resize(wanted.len().max(ips.len()), String::new());
    for (i, family) in wanted.into_iter().enumerate().skip(first) {
        let address = call.registry.addresses.take(call, service, family, &ips[i], &ips).await?;
        if !call.dry_run {
            changes.taken.push(address);
        }
        if ips[i].is_empty() {
            ips[i] = address.to_string();
        }
    }
    if let Some(ip) = ips.first().filter(|ip| first == 0 && !ip.is_empty()) {
        service.set(&["spec", "clusterIP"], ip.as_str());
    }
    set_cluster_ips(service, &ips);
    Ok(())
}

/// What a client left out is what it had. upstream: patchAllocatedValues
fn keep_taken(service: &mut Value, old: &Value) {
    if !is_external_name(service) && !is_external_name(old) {
        if cluster_ip(service).is_empty() && !cluster_ip(old).is_empty() {
            service.set(&["spec", "clusterIP"], cluster_ip(old));
        }
        if cluster_ips(service).is_empty() {
            set_cluster_ips(service, &cluster_ips(old));
        }
    }
    if ports::gives_ports_unasked(service) && ports::gives_ports_unasked(old) {
        ports::keep_by_name(service, old);
    }
    if let (true, Some(port)) = (ports::needs_health_check(service), health_port(old))
        && ports::needs_health_check(old)
        && health_port(service).is_none()
    {
        service.set(&["spec", "healthCheckNodePort"], port);
    }
}

/// `clusterIP` and `clusterIPs` say the same. upstream: normalizeClusterIPs
fn normalize_cluster_ips(service: &mut Value, old: &Value) {
    let (ip, old_ip) = (cluster_ip(service).to_string(), cluster_ip(old).to_string());
    let (ips, old_ips) = (cluster_ips(service), cluster_ips(old));
    if !old_ips.is_empty() && ips.is_empty() && ip == old_ip {
        set_cluster_ips(service, &old_ips);
    }
    if ip != old_ip && ips == old_ips {
        let new = if !old_ip.is_empty() && ip.is_empty() { Vec::new() } else { vec![ip] };
        set_cluster_ips(service, &new);
    }
}

fn is_external_name(service: &Value) -> bool {
    service.str_at(&["spec", "type"]) == "ExternalName"
}

fn cluster_ip(service: &Value) -> &str {
    service.str_at(&["spec", "clusterIP"])
}

fn cluster_ips(service: &Value) -> Vec<String> {
    let list = service.list_at(&["spec", "clusterIPs"]);
    list.iter().filter_map(|ip| ip.as_str().map(str::to_string)).collect()
}

fn set_cluster_ips(service: &mut Value, ips: &[String]) {
    if ips.is_empty() {
        service.remove(&["spec", "clusterIPs"]);
    } else {
        service.set(&["spec", "clusterIPs"], ips.iter().map(Value::string).collect::<Vec<_>>());
    }
}

/// The addresses that a stored service holds.
fn held_addresses(service: &Value) -> Vec<IpAddr> {
    if is_external_name(service) {
        return Vec::new();
    }
    cluster_ips(service).iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn node_ports(service: &Value) -> Vec<i64> {
    let ports = service.list_at(&["spec", "ports"]).iter();
    ports.map(|p| p.int_at(&["nodePort"])).filter(|p| *p != 0).collect()
}

fn health_port(service: &Value) -> Option<i64> {
    Some(service.int_at(&["spec", "healthCheckNodePort"])).filter(|p| *p != 0)
}
