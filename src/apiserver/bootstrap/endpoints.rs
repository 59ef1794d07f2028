//! The endpoints of the service `kubernetes`: one address for each API server that is alive on the same store.
//!
//! Each server keeps a key with a time to live under `masterleases/`, and makes Endpoints and EndpointSlice say what keys there
//! are. A server that is killed disappears when its key does; one that ends in order takes its key away.
//!
//! Invariants: while this server runs, an empty list of keys is an error and never empties the endpoints; after [`Kubernetes::leave`]
//! nothing is added any more.
//!
//! upstream: pkg/controlplane/reconcilers/{lease.go,endpointsadapter.go}, pkg/controlplane/controller/kubernetesservice

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use copepod_codec::Media;
use copepod_meta::{Bytes, GroupResource, Gvk, Reason, Status, Value};
use copepod_schema::Universe;
use copepod_store::{KeyValue, ListRequest, Op, Store, TxnResult};

use super::Access;
use super::own::{create, map, object};

/// upstream: controlplane.DefaultEndpointReconcilerInterval
pub const RECONCILE: Duration = Duration::from_secs(10);
/// upstream: controlplane.DefaultEndpointReconcilerTTL
const TTL_SECONDS: u64 = 15;
/// A key of ours that somebody else keeps changing is given up for this round.
const ATTEMPTS_MAX: usize = 5;

/// This server among those in front of one store.
pub struct Kubernetes {
    /// Where the keys are.
    pub store: Arc<dyn Store>,
    /// `--etcd-prefix`
    pub prefix: String,
    /// Where the cluster reaches us.
    pub address: IpAddr,
    /// Our port.
    pub port: u16,
}

impl Kubernetes {
    fn folder(&self) -> String {
        format!("{}/masterleases/", self.prefix.trim_end_matches('/'))
    }

    /// Renews our key and makes the endpoints say who is there. `ports`: also if only the port is another; not in every round,
    /// or servers with different ports would take turns for ever.
    pub async fn join(&self, access: &Access, ports: bool) -> Result<(), Status> {
        self.renew().await?;
        let servers = self.servers().await?;
        if servers.is_empty() {
            return Err(Status::internal(
                "no API server IP addresses were listed in storage, refusing to erase all endpoints for the kubernetes \
                 Service",
            ));
        }
        self.publish(access, &servers, ports, false).await
    }

    /// Takes our key away, and our address out of the endpoints.
    pub async fn leave(&self, access: &Access) -> Result<(), Status> {
        self.remove().await?;
        self.publish(access, &self.servers().await?, true, true).await
    }

    /// A key that an earlier life of this server left, which did not end in order: the address is taken out until we are ready.
    pub async fn clean(&self, access: &Access) -> Result<(), Status> {
        let key = format!("{}{}", self.folder(), self.address);
        if self.store.get(key.as_bytes()).await.map_err(store_error)?.kv.is_none() {
            return Ok(());
        }
        tracing::warn!(
            "found stale data: this server did not end in order, its address is taken out of the endpoints"
        );
        self.leave(access).await
    }

    async fn renew(&self) -> Result<(), Status> {
        let key = format!("{}{}", self.folder(), self.address);
        let mut held = self.store.get(key.as_bytes()).await.map_err(store_error)?.kv;
        for _ in 0..ATTEMPTS_MAX {
            let expect = held.as_ref().map_or(0, |kv| kv.mod_revision);
            let op = Op::Put { value: self.lease(held.as_ref())?, ttl_seconds: Some(TTL_SECONDS) };
            match self.store.txn(key.as_bytes(), expect, op).await.map_err(store_error)? {
                TxnResult::Done { .. } => return Ok(()),
                TxnResult::Conflict { current, .. } => held = current,
            }
        }
        Err(Status::internal(format!("{key} is changed by somebody else all the time")))
    }

    /// What the key holds: an Endpoints whose generation rises, because a write that changes nothing would not renew it.
    fn lease(&self, held: Option<&KeyValue>) -> Result<Bytes, Status> {
        let mut lease = match held {
            Some(kv) => decode(kv)?,
            None => Value::map(),
        };
        let generation = lease.int_at(&["metadata", "generation"]);
        lease.set(&["metadata", "generation"], generation + 1);
        let address = map([("ip", self.address.to_string().into())]);
        lease.set(&["subsets"], vec![map([("addresses", vec![address].into())])]);
        let gvk = Gvk::new("", "v1", "Endpoints");
        let (universe, ty) = endpoints_type()?;
        copepod_codec::encode_stored(&mut lease, universe, ty, &gvk, copepod_schema::Media::Protobuf)
            .map_err(Status::internal)
    }

    async fn remove(&self) -> Result<(), Status> {
        let key = format!("{}{}", self.folder(), self.address);
        let mut held = self.store.get(key.as_bytes()).await.map_err(store_error)?.kv;
        for _ in 0..ATTEMPTS_MAX {
            let Some(kv) = &held else { return Ok(()) };
            match self.store.txn(key.as_bytes(), kv.mod_revision, Op::Delete).await.map_err(store_error)? {
                TxnResult::Done { .. } => return Ok(()),
                TxnResult::Conflict { current, .. } => held = current,
            }
        }
        Err(Status::internal(format!("{key} is changed by somebody else all the time")))
    }

    /// The addresses of all servers that are alive, in order of their keys.
    async fn servers(&self) -> Result<Vec<String>, Status> {
        let listed = self.store.list(ListRequest::prefix(self.folder())).await.map_err(store_error)?;
        let mut servers = Vec::new();
        for kv in &listed.kvs {
            let lease = decode(kv)?;
            if let [subset, ..] = lease.list_at(&["subsets"])
                && let [address, ..] = subset.list_at(&["addresses"])
                && !address.str_at(&["ip"]).is_empty()
            {
                servers.push(address.str_at(&["ip"]).to_string());
            }
        }
        Ok(servers)
    }

    fn ports(&self) -> Value {
        let port = map([
            ("name", "https".into()),
            ("port", i64::from(self.port).into()),
            ("protocol", "TCP".into()),
        ]);
        vec![port].into()
    }

    /// Brings Endpoints and EndpointSlice to where they have to be. Another server may be at it too: who is late looks again.
    async fn publish(
        &self,
        access: &Access,
        servers: &[String],
        ports: bool,
        leaving: bool,
    ) -> Result<(), Status> {
        for _ in 0..ATTEMPTS_MAX {
            match self.publish_once(access, servers, ports, leaving).await {
                Err(status) if status.reason == Reason::Conflict => {}
                other => return other,
            }
        }
        Err(Status::internal(
            "the endpoints of the service kubernetes are changed by somebody else all the time",
        ))
    }

    async fn publish_once(
        &self,
        access: &Access,
        servers: &[String],
        ports: bool,
        leaving: bool,
    ) -> Result<(), Status> {
        let resource = GroupResource::new("", "endpoints");
        let existing = access.lister.get_consistent(&resource, "default", "kubernetes").await?;
        let endpoints = match existing {
            // The last one to leave makes nothing new.
            None if leaving => return Ok(()),
            None => {
                let made = plan(&object("default", "kubernetes"), servers, &self.ports(), ports);
                let made = made.unwrap_or_else(|| object("default", "kubernetes"));
                create(access, &resource, "default", made.clone()).await?;
                made
            }
            Some(existing) => match plan(&existing.object, servers, &self.ports(), ports) {
                None => (*existing.object).clone(),
                Some(changed) => {
                    tracing::warn!(?servers, "Resetting endpoints for master service \"kubernetes\"");
                    access.writer.update(&resource, "", changed.clone()).await?;
                    changed
                }
            },
        };
        self.slice(access, &endpoints).await
    }

    /// upstream: EndpointsAdapter.EnsureEndpointSliceFromEndpoints
    async fn slice(&self, access: &Access, endpoints: &Value) -> Result<(), Status> {
        let resource = GroupResource::new("discovery.k8s.io", "endpointslices");
        let wanted = slice_of(endpoints);
        let Some(existing) = access.lister.get_consistent(&resource, "default", "kubernetes").await? else {
            return create(access, &resource, "default", wanted).await.map(|_| ());
        };
        let mut changed = (*existing.object).clone();
        for member in ["endpoints", "ports"] {
            changed.set(&[member], wanted.get(member).clone());
        }
        changed.set(
            &["metadata", "labels", "kubernetes.io/service-name"],
            wanted.str_at(&["metadata", "labels", "kubernetes.io/service-name"]),
        );
        let same = |member: &str| changed.list_at(&[member]) == existing.object.list_at(&[member]);
        if same("endpoints") && same("ports") && changed.get("metadata") == existing.object.get("metadata") {
            return Ok(());
        }
        access.writer.update(&resource, "", changed).await.map(|_| ())
    }
}

fn store_error(error: copepod_store::StoreError) -> Status {
    Status::internal(error)
}

fn endpoints_type() -> Result<(&'static Universe, copepod_schema::TypeId), Status> {
    let universe = Universe::builtin();
    let ty = universe.by_gvk(&Gvk::new("", "v1", "Endpoints"));
    Ok((universe, ty.ok_or_else(|| Status::internal("Endpoints is not among the facts"))?))
}

fn decode(kv: &KeyValue) -> Result<Value, Status> {
    let (universe, ty) = endpoints_type()?;
    let decoded = copepod_codec::decode(&kv.value, Media::Protobuf, universe, ty, None);
    decoded.map(|d| d.value).map_err(Status::internal)
}

/// The Endpoints as they have to be, if they are not so. upstream: leaseEndpointReconciler.doReconcile
fn plan(existing: &Value, servers: &[String], wanted_ports: &Value, reconcile_ports: bool) -> Option<Value> {
    const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
    let mut endpoints = existing.clone();
    endpoints.set(&["metadata", "labels", SKIP_MIRROR], "true");
    let labelled = existing.str_at(&["metadata", "labels", SKIP_MIRROR]) == "true";
    let (format, addresses, ports) = match existing.list_at(&["subsets"]) {
        [subset] => {
            let mut there: Vec<&str> =
                subset.list_at(&["addresses"]).iter().map(|a| a.str_at(&["ip"])).collect();
            let mut wanted: Vec<&str> = servers.iter().map(String::as_str).collect();
            there.sort_unstable();
            wanted.sort_unstable();
            let ports = Value::from(subset.list_at(&["ports"]).to_vec());
            (true, there == wanted, !reconcile_ports || ports == *wanted_ports)
        }
        _ => (false, false, false),
    };
    if labelled && format && addresses && ports {
        return None;
    }
    let kept = existing.list_at(&["subsets"]).first().filter(|_| format && ports);
    let shown =
        kept.map_or_else(|| wanted_ports.clone(), |subset| subset.list_at(&["ports"]).to_vec().into());
    let all: Vec<Value> = servers.iter().map(|ip| map([("ip", ip.as_str().into())])).collect();
    let subsets = match all.is_empty() {
        // A subset without addresses says nothing. upstream: endpoints.RepackSubsets
        true => Vec::new(),
        false => vec![map([("addresses", all.into()), ("ports", shown)])],
    };
    endpoints.set(&["subsets"], subsets);
    Some(endpoints)
}

/// upstream: endpointSliceFromEndpoints
fn slice_of(endpoints: &Value) -> Value {
    let mut slice = object("default", "kubernetes");
    slice.set(&["metadata", "labels", "kubernetes.io/service-name"], "kubernetes");
    let subset = endpoints.list_at(&["subsets"]).first();
    let addresses = subset.map(|s| s.list_at(&["addresses"])).unwrap_or_default();
    let is_v6 = |a: &Value| a.str_at(&["ip"]).contains(':');
    let v6 = !addresses.is_empty() && addresses.iter().all(is_v6);
    slice.set(&["addressType"], if v6 { "IPv6" } else { "IPv4" });
    let shown = addresses.iter().filter(|a| is_v6(a) == v6).map(|address| {
        map([
            ("addresses", vec![Value::string(address.str_at(&["ip"]))].into()),
            ("conditions", map([("ready", true.into())])),
        ])
    });
    slice.set(&["endpoints"], shown.collect::<Vec<_>>());
    slice.set(&["ports"], subset.map(|s| s.list_at(&["ports"]).to_vec()).unwrap_or_default());
    slice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubernetes(port: u16) -> Kubernetes {
        let store = copepod_store::embedded::EmbeddedStore::ephemeral().expect("a store");
        Kubernetes {
            store: Arc::new(store),
            prefix: "/registry".into(),
            address: IpAddr::from([192, 0, 2, 2]),
            port,
        }
    }

    /// The bytes under `/registry/masterleases/192.0.2.2` of an upstream server's etcd, at their 71st renewal.
    const UPSTREAM: &[u8] =
        b"k8s\x00\n\x0f\n\x02v1\x12\tEndpoints\x12#\n\x10\n\x00\x12\x00\x1a\x00\"\x00*\x002\x008GB\x00\
                              \x12\x0f\n\r\n\t192.0.2.2\x1a\x00\x1a\x00\"\x00";

    #[tokio::test]
    async fn the_key_is_upstreams_byte_for_byte() {
        let server = kubernetes(6443);
        for _ in 0..71 {
            server.renew().await.expect("renewed");
        }
        let kv =
            server.store.get(b"/registry/masterleases/192.0.2.2").await.expect("read").kv.expect("a key");
        assert_eq!(kv.value, UPSTREAM);
        assert_eq!(server.servers().await.expect("listed"), ["192.0.2.2"]);
        server.remove().await.expect("removed");
        server.remove().await.expect("removed twice");
        assert!(server.servers().await.expect("listed").is_empty());
    }

    /// What becomes of each state of the object; `-`: it is left alone.
    #[test]
    fn endpoints_follow_the_servers() {
        let render = |v: &Value| {
            let subset = |s: &Value| {
                let ips: Vec<&str> = s.list_at(&["addresses"]).iter().map(|a| a.str_at(&["ip"])).collect();
                let ports: Vec<String> =
                    s.list_at(&["ports"]).iter().map(|p| p.int_at(&["port"]).to_string()).collect();
                format!("{}:{}", ips.join(","), ports.join(","))
            };
            v.list_at(&["subsets"]).iter().map(subset).collect::<Vec<_>>().join(" ")
        };
        let state = |servers: &[&str], port: u16| {
            let servers: Vec<String> = servers.iter().map(|s| (*s).to_string()).collect();
            plan(&object("default", "kubernetes"), &servers, &kubernetes(port).ports(), true).expect("made")
        };
        for (name, there, servers, ports, want) in [
            ("nothing there", object("default", "kubernetes"), &["a"][..], false, "a:1"),
            ("as it has to be", state(&["a", "b"], 1), &["b", "a"], true, "-"),
            ("one more", state(&["a"], 1), &["a", "b"], false, "a,b:1"),
            ("one less", state(&["a", "b"], 1), &["b"], false, "b:1"),
            ("another port, which is not looked at", state(&["a"], 2), &["a"], false, "-"),
            ("another port", state(&["a"], 2), &["a"], true, "a:1"),
            ("one more, the port stays", state(&["a"], 2), &["a", "b"], false, "a,b:2"),
            ("nobody is left", state(&["a"], 1), &[], true, ""),
        ] {
            let servers: Vec<String> = servers.iter().map(|s| (*s).to_string()).collect();
            let planned = plan(&there, &servers, &kubernetes(1).ports(), ports);
            assert_eq!(planned.as_ref().map_or("-".into(), render), want, "{name}");
        }
    }
}
