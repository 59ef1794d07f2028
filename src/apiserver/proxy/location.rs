//! Which address a request goes to.
//!
//! upstream: pkg/registry/core/{pod/strategy.go,node/strategy.go,service/storage/storage.go}, pkg/kubelet/client/kubelet_client.go

use std::net::IpAddr;

use copepod_meta::field::quote;
use copepod_meta::url::escape_query;
use copepod_meta::{Status, Value};
use copepod_registry::Caller;
use rand::RngExt as _;

use super::backend::{Address, Security};
use super::object;
use crate::server::Server;

/// Upstream's default port of a kubelet.
const KUBELET_PORT: i64 = 10250;

/// `name`, `name:port` or `scheme:name:port`. upstream: apimachinery/pkg/util/net/port_split.go SplitSchemeNamePort
pub struct Id {
    /// `http` unless `https` is said.
    pub https: bool,
    /// The object.
    pub name: String,
    /// Number or name; "" for none.
    pub port: String,
}

impl Id {
    /// Parses; `what` is named in the refusal.
    pub fn parse(id: &str, what: &str) -> Result<Id, Status> {
        let invalid = || Status::bad_request(format!("invalid {what} request {}", quote(id)));
        let (scheme, name, port) = match id.split(':').collect::<Vec<_>>().as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return Err(invalid()),
        };
        if !matches!(scheme, "" | "http" | "https") || name.is_empty() {
            return Err(invalid());
        }
        Ok(Id { https: scheme == "https", name: name.into(), port: port.into() })
    }

    fn security(&self) -> Security {
        if self.https { Security::Untrusted } else { Security::None }
    }

    fn default_port(&self) -> &'static str {
        if self.https { "443" } else { "80" }
    }
}

/// The kubelet of a node.
pub async fn kubelet(server: &Server, caller: &Caller, node: &str) -> Result<Address, Status> {
    let object = object(server, caller, "nodes", "", node).await?;
    let addresses = object.list_at(&["status", "addresses"]);
    let preferred = server.backends.address_types.iter().find_map(|ty| {
        addresses.iter().find(|a| a.str_at(&["type"]) == ty).map(|a| a.str_at(&["address"]).to_string())
    });
    let Some(host) = preferred else {
        let known: Vec<String> = addresses
            .iter()
            .map(|a| format!("{{{} {}}}", a.str_at(&["type"]), a.str_at(&["address"])))
            .collect();
        let message = format!("no preferred addresses found; known addresses: [{}]", known.join(" "));
        return Err(super::plain_error(message));
    };
    let port = match object.int_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]) {
        0 => KUBELET_PORT,
        port => port,
    };
    let port = u16::try_from(port).map_err(|_| Status::internal(format!("node {node} has port {port}")))?;
    Ok(Address { host, port, security: Security::Kubelet })
}

/// A node's kubelet, or another port of the node.
pub async fn node(server: &Server, caller: &Caller, id: &Id) -> Result<Address, Status> {
    let kubelet = kubelet(server, caller, &id.name).await?;
    ensure_proxyable(&kubelet).await?;
    if id.port.is_empty() || id.port == kubelet.port.to_string() {
        return Ok(kubelet);
    }
    let port = port_number(&id.port)?;
    Ok(Address { host: kubelet.host, port, security: id.security() })
}

/// A node whose address is ours would be a way to everything that trusts this machine.
/// upstream: node/strategy.go isProxyableHostname
async fn ensure_proxyable(address: &Address) -> Result<(), Status> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let mut found =
        found.map_err(|e| Status::bad_request(format!("lookup {}: {e}", address.host)))?.peekable();
    if found.peek().is_none() {
        return Err(Status::bad_request("no addresses for hostname"));
    }
    if found.all(|a| is_global_unicast(a.ip())) {
        Ok(())
    } else {
        Err(Status::bad_request("address not allowed"))
    }
}

/// A pod's own address.
pub async fn pod(server: &Server, caller: &Caller, namespace: &str, id: &Id) -> Result<Address, Status> {
    let pod = object(server, caller, "pods", namespace, &id.name).await?;
    let declared = pod.list_at(&["spec", "containers"]).iter().find_map(|c| c.list_at(&["ports"]).first());
    let port = match (id.port.as_str(), declared) {
        ("", Some(port)) => port.int_at(&["containerPort"]).to_string(),
        ("", None) => id.default_port().to_string(),
        (port, _) => port.to_string(),
    };
    let ip = pod.str_at(&["status", "podIP"]);
    if !ip.parse::<IpAddr>().is_ok_and(is_global_unicast) {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(Address { host: ip.into(), port: port_number(&port)?, security: id.security() })
}

/// One of the pods behind a service.
pub async fn service(
    server: &Server,
    caller: &Caller,
    namespace: &str,
    id: &Id,
    whole: &str,
) -> Result<Address, Status> {
    let mut port_name = id.port.clone();
    if let Ok(number) = id.port.parse::<i64>() {
        let service = object(server, caller, "services", namespace, &id.name).await?;
        let ports = service.list_at(&["spec", "ports"]);
        let Some(port) = ports.iter().find(|p| p.int_at(&["port"]) == number) else {
            let name = quote(&id.name);
            return Err(Status::service_unavailable(format!(
                "no service port {number} found for service {name}"
            )));
        };
        port_name = port.str_at(&["name"]).to_string();
    }
    // A service that is not there is the answer, not its missing endpoints.
    object(server, caller, "services", namespace, &id.name).await?;
    let endpoints = object(server, caller, "endpoints", namespace, &id.name).await?;
    let subsets = endpoints.list_at(&["subsets"]);
    if subsets.is_empty() {
        return Err(no_endpoints(&id.name));
    }
    let fits = subsets.iter().flat_map(|subset| {
        let port = subset.list_at(&["ports"]).iter().find(|p| p.str_at(&["name"]) == port_name);
        let addresses = subset.list_at(&["addresses"]).iter();
        port.into_iter().flat_map(move |port| addresses.clone().map(move |a| (a, port.int_at(&["port"]))))
    });
    // Only addresses that belong to pods: an endpoint may be written by hand, and the request would go anywhere.
    let fits: Vec<(&Value, i64)> = fits.filter(|(a, _)| a.str_at(&["targetRef", "kind"]) == "Pod").collect();
    if fits.is_empty() {
        return Err(no_endpoints(whole));
    }
    let start = rand::rng().random_range(0..fits.len());
    for (address, port) in fits.iter().cycle().skip(start).take(fits.len()) {
        let (ip, target) = (address.str_at(&["ip"]), address.get("targetRef"));
        let (pod_namespace, pod_name) = (target.str_at(&["namespace"]), target.str_at(&["name"]));
        let Ok(pod) = object(server, caller, "pods", pod_namespace, pod_name).await else { continue };
        let ips = pod.list_at(&["status", "podIPs"]);
        let is_its_own =
            pod.str_at(&["status", "podIP"]) == ip || ips.iter().any(|i| i.str_at(&["ip"]) == ip);
        if is_its_own {
            return Ok(Address {
                host: ip.into(),
                port: port_number(&port.to_string())?,
                security: id.security(),
            });
        }
    }
    Err(no_endpoints(whole))
}

fn no_endpoints(service: &str) -> Status {
    Status::service_unavailable(format!("no endpoints available for service {}", quote(service)))
}

fn port_number(port: &str) -> Result<u16, Status> {
    port.parse().map_err(|_| Status::bad_request(format!("invalid port {}", quote(port))))
}

/// Go's IsGlobalUnicast.
fn is_global_unicast(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

/// The container that is meant. upstream: pod/strategy.go validateContainer
pub fn container(asked: &str, pod: &Value) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        pod.list_at(&["spec", list]).iter().map(|c| c.str_at(&["name"]).to_string()).collect()
    };
    let (containers, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let name = pod.str_at(&["metadata", "name"]);
    if !asked.is_empty() {
        let known = containers.iter().chain(&init).chain(&ephemeral).any(|c| c == asked);
        let refused = || Status::bad_request(format!("container {asked} is not valid for pod {name}"));
        return known.then(|| asked.to_string()).ok_or_else(refused);
    }
    match containers.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        several => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// A query out of pairs, percent-encoded.
pub fn query(pairs: &[(String, String)]) -> String {
    let encoded: Vec<String> =
        pairs.iter().map(|(k, v)| format!("{}={}", escape_query(k), escape_query(v))).collect();
    encoded.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: &[&str], init: &[&str]) -> Value {
        let list = |names: &[&str]| {
            Value::List(
                names
                    .iter()
                    .map(|n| {
                        let mut c = Value::map();
                        c.set(&["name"], *n);
                        c
                    })
                    .collect(),
            )
        };
        let mut pod = Value::map();
        pod.set(&["metadata", "name"], "p");
        pod.set(&["spec", "containers"], list(containers));
        pod.set(&["spec", "initContainers"], list(init));
        pod
    }

    #[test]
    fn containers_are_chosen_or_refused_as_upstream() {
        for (asked, pod, want) in [
            ("", pod(&["a"], &[]), "a"),
            ("b", pod(&["a"], &["b"]), "b"),
            ("x", pod(&["a"], &[]), "container x is not valid for pod p"),
            ("", pod(&["a", "b"], &[]), "a container name must be specified for pod p, choose one of: [a b]"),
            (
                "",
                pod(&["a", "b"], &["i"]),
                "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
            ),
        ] {
            assert_eq!(container(asked, &pod).unwrap_or_else(|s| s.message), want);
        }
    }

    #[test]
    fn identifiers_have_a_scheme_and_a_port() {
        for (id, want) in [
            ("a", "http a "),
            ("a:80", "http a 80"),
            ("https:a:b", "https a b"),
            ("x:a:b", "no"),
            (":80", "no"),
        ] {
            let got = Id::parse(id, "pod").map_or("no".into(), |i| {
                format!("{} {} {}", if i.https { "https" } else { "http" }, i.name, i.port)
            });
            assert_eq!(got, want, "{id}");
        }
    }
}
