//! Host name, /etc/hosts and resolv.conf of a pod. Pure but for reading the node's own resolv.conf.
//!
//! upstream: kubelet/network/dns/dns.go, kubelet/kubelet_pods.go GeneratePodHostNameAndDomain, hostsFileContent

use copepod_cri::api;
use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::pod::model::{host_network, names, spec};

/// Name servers a resolver uses.
const NAMESERVERS_MAX: usize = 3;
/// Search domains a resolver uses.
const SEARCHES_MAX: usize = 32;
/// Characters of all search domains together.
const SEARCH_CHARS_MAX: usize = 2048;
/// Longest host name the kernel takes.
const HOSTNAME_BYTES_MAX: usize = 63;

/// The node's part of name resolution.
#[derive(Debug, Clone, Default)]
pub struct NodeDns {
    /// Addresses of the cluster's name server.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The node's own resolv.conf.
    pub host: api::DnsConfig,
}

/// Reads resolv.conf's text.
// upstream: kubelet/network/dns/dns.go parseResolvConf
pub fn parse_resolv_conf(text: &str) -> api::DnsConfig {
    let mut config = api::DnsConfig::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            // Only the last search line counts.
            Some("search") => {
                config.searches =
                    words
                        .map(|word| {
                            if word == "." { word.to_owned() } else { word.trim_end_matches('.').to_owned() }
                        })
                        .collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// The pod's resolver configuration. The second value is a warning for the user.
// upstream: kubelet/network/dns/dns.go GetPodDNS
pub fn pod_dns(pod: &Pod, node: &NodeDns) -> (api::DnsConfig, Option<String>) {
    let policy = spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !host_network(pod),
        _ => false,
    };
    let mut warning = None;
    let mut config = match policy {
        "None" => api::DnsConfig::default(),
        _ if cluster && !node.cluster_dns.is_empty() => cluster_config(pod, node),
        _ => {
            if cluster {
                warning = Some(format!(
                    "kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy."
                ));
            }
            let mut host = node.host.clone();
            if host.servers.is_empty()
                && host.searches.is_empty()
                && policy != "None"
                && node.host.servers.is_empty()
            {
                // Without a resolv.conf of the node the runtime's default is loopback, as upstream's.
                host.servers = vec!["127.0.0.1".into()];
                host.searches = vec![".".into()];
            }
            host
        }
    };
    if let Some(extra) = &spec(pod).dns_config {
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut config.servers, &extra.nameservers);
        add(&mut config.searches, &extra.searches);
        for option in extra.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config.options.retain(|other| other.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    cut(&mut config);
    (config, warning)
}

fn cluster_config(pod: &Pod, node: &NodeDns) -> api::DnsConfig {
    let (namespace, _) = names(pod);
    let domain = &node.cluster_domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    }
    for search in &node.host.searches {
        if !searches.contains(search) {
            searches.push(search.clone());
        }
    }
    api::DnsConfig { servers: node.cluster_dns.clone(), searches, options: vec!["ndots:5".into()] }
}

/// What is beyond a resolver's limits is left out, as the resolver would.
fn cut(config: &mut api::DnsConfig) {
    config.servers.truncate(NAMESERVERS_MAX);
    config.searches.truncate(SEARCHES_MAX);
    while config.searches.join(" ").len() > SEARCH_CHARS_MAX {
        config.searches.pop();
    }
}

/// Host name and domain of a pod.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let (namespace, name) = names(pod);
    let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(hostname) = set(&spec(pod).hostname_override) {
        return (cut_hostname(&hostname), String::new());
    }
    let hostname = cut_hostname(&set(&spec(pod).hostname).unwrap_or_else(|| name.to_owned()));
    let domain = set(&spec(pod).subdomain)
        .map(|subdomain| format!("{subdomain}.{namespace}.svc.{cluster_domain}"))
        .unwrap_or_default();
    (hostname, domain)
}

/// The host name the kernel is given.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> String {
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    if spec(pod).set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        return format!("{hostname}.{domain}");
    }
    hostname
}

fn cut_hostname(hostname: &str) -> String {
    let cut: String = hostname.chars().take(HOSTNAME_BYTES_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Content of a pod's /etc/hosts. `host_file` is the node's, for pods in the node's network.
pub fn hosts_file(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host_file: Option<&str>) -> String {
    let aliases = aliases(spec(pod).host_aliases.as_deref().unwrap_or_default());
    if let Some(host_file) = host_file {
        return format!("# Kubernetes-managed hosts file (host network).\n{host_file}{aliases}");
    }
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    for ip in pod_ips {
        if domain.is_empty() {
            out.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            out.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    out + &aliases
}

fn aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        out.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .expect("a pod")
    }

    fn node() -> NodeDns {
        NodeDns {
            cluster_dns: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            host: parse_resolv_conf(
                "# x\nnameserver 192.0.2.53\nsearch old\nsearch example.com. a.b\noptions rotate\n",
            ),
        }
    }

    #[test]
    fn policies() {
        let cluster =
            "10.96.0.10 | n.svc.cluster.local svc.cluster.local cluster.local example.com a.b | ndots:5";
        let host = "192.0.2.53 | example.com a.b | rotate";
        let own = serde_json::json!({"dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        let merged = serde_json::json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}});
        for (spec, want) in [
            (serde_json::json!({}), cluster),
            (serde_json::json!({"dnsPolicy": "Default"}), host),
            (serde_json::json!({"hostNetwork": true}), host),
            (serde_json::json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), cluster),
            (own, "1.1.1.1 | x | ndots:2 edns0"),
            (merged, &cluster.replace("ndots:5", "ndots:1")),
        ] {
            let (config, warning) = pod_dns(&pod(spec.clone()), &node());
            let got =
                [config.servers.join(" "), config.searches.join(" "), config.options.join(" ")].join(" | ");
            assert_eq!((got.as_str(), warning), (want, None), "{spec}");
        }
        let bare = NodeDns { cluster_dns: vec![], ..node() };
        assert!(pod_dns(&pod(serde_json::json!({})), &bare).1.is_some());
    }

    #[test]
    fn names_and_hosts() {
        let plain = pod(serde_json::json!({}));
        let full = pod(serde_json::json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true,
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        assert_eq!(kernel_hostname(&plain, "c.l"), "p");
        assert_eq!(kernel_hostname(&full, "c.l"), "h.s.n.svc.c.l");
        let ips = ["10.0.0.5".to_owned()];
        assert!(hosts_file(&plain, &ips, "c.l", None).ends_with("allrouters\n10.0.0.5\tp\n"));
        assert!(
            hosts_file(&full, &ips, "c.l", None)
                .ends_with("10.0.0.5\th.s.n.svc.c.l\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
        );
        assert!(
            hosts_file(&plain, &ips, "c.l", Some("127.0.0.1 x\n"))
                .starts_with("# Kubernetes-managed hosts file (host network).\n127")
        );
    }
}
