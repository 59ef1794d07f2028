//! The sandbox's configuration.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_sandbox.go generatePodSandboxConfig

use std::collections::HashMap;
use std::path::PathBuf;

use copepod_cri::api;
use k8s_openapi::api::core::v1::Pod;

use super::{
    dns::{NodeDns, kernel_hostname, pod_dns},
    labels, security,
};
use crate::{
    context::Context,
    pod::model::{host_network, init_containers, is_sidecar, names, spec, uid},
};

/// Directory of a pod's logs: `<namespace>_<name>_<uid>`.
pub fn log_dir(context: &Context, pod: &Pod) -> PathBuf {
    let (namespace, name) = names(pod);
    context.config.pod_logs_dir.join(format!("{namespace}_{name}_{}", uid(pod)))
}

/// The node's part of name resolution, read anew: the node's resolv.conf may have changed.
pub fn node_dns(context: &Context) -> NodeDns {
    let host = match &context.config.resolv_conf {
        Some(path) => {
            let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
                // A file that is missing is an empty one, as for the resolver itself.
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "reading the node's resolv.conf");
                }
                String::new()
            });
            super::dns::parse_resolv_conf(&text)
        }
        None => api::DnsConfig::default(),
    };
    NodeDns {
        cluster_dns: context.config.cluster_dns.clone(),
        cluster_domain: context.config.cluster_domain.clone(),
        host,
    }
}

/// The configuration, and a warning about name resolution.
pub fn sandbox_config(
    context: &Context,
    pod: &Pod,
    attempt: u32,
) -> Result<(api::PodSandboxConfig, Option<String>), security::SecurityError> {
    let (namespace, name) = names(pod);
    let (dns, warning) = pod_dns(pod, &node_dns(context));
    let hostname =
        if host_network(pod) { String::new() } else { kernel_hostname(pod, &context.config.cluster_domain) };
    let sysctls: HashMap<String, String> = spec(pod)
        .security_context
        .iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone()))
        .collect();
    let config = api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: name.into(),
            namespace: namespace.into(),
            uid: uid(pod).into(),
            attempt,
        }),
        hostname,
        log_directory: log_dir(context, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(api::LinuxPodSandboxConfig {
            cgroup_parent: context.cgroups.parent_of(pod),
            security_context: Some(security::sandbox_context(pod)?),
            sysctls,
            ..api::LinuxPodSandboxConfig::default()
        }),
        ..api::PodSandboxConfig::default()
    };
    Ok((config, warning))
}

/// Host ports of all containers that live as long as the pod.
fn port_mappings(pod: &Pod) -> Vec<api::PortMapping> {
    if host_network(pod) {
        return Vec::new();
    }
    spec(pod)
        .containers
        .iter()
        .chain(init_containers(pod).iter().filter(|container| is_sidecar(container)))
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| api::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => api::Protocol::Udp,
                Some("SCTP") => api::Protocol::Sctp,
                _ => api::Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}
