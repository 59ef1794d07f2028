//! Node ports of a service: which it needs, which it has, which it lets go.
//!
//! upstream: pkg/registry/core/service/storage/alloc.go initNodePorts, updateNodePorts, updateHealthCheckNodePort

use copepod_meta::{ErrorList, FieldError, Path, Status, Value};

use super::addresses::PortError;
use super::{health_port, node_ports};
use crate::call::Call;

/// NodePort and LoadBalancer services have node ports.
pub(super) fn needs_node_ports(service: &Value) -> bool {
    matches!(service.str_at(&["spec", "type"]), "NodePort" | "LoadBalancer")
}

/// upstream: NeedsHealthCheck
pub(super) fn needs_health_check(service: &Value) -> bool {
    service.str_at(&["spec", "type"]) == "LoadBalancer"
        && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

/// upstream: shouldAllocateNodePorts, needsNodePort
pub(super) fn gives_ports_unasked(service: &Value) -> bool {
    match service.str_at(&["spec", "type"]) {
        "NodePort" => true,
        "LoadBalancer" => service.at(&["spec", "allocateLoadBalancerNodePorts"]).as_bool().unwrap_or(true),
        _ => false,
    }
}

/// Ports that a client left out are those of the same name before, unless they are used otherwise.
pub(super) fn keep_by_name(service: &mut Value, old: &Value) {
    let before = node_ports(old);
    let used: Vec<i64> = node_ports(service).into_iter().filter(|p| before.contains(p)).collect();
    let by_name = |name: &str| {
        let mut ports = old.list_at(&["spec", "ports"]).iter();
        ports.rfind(|p| p.str_at(&["name"]) == name).map_or(0, |p| p.int_at(&["nodePort"]))
    };
    let Some(ports) = service.at_mut(&["spec", "ports"]).and_then(Value::as_list_mut) else { return };
    for port in ports.iter_mut().filter(|p| p.int_at(&["nodePort"]) == 0) {
        let kept = by_name(port.str_at(&["name"]));
        if kept != 0 && !used.contains(&kept) {
            port.set(&["nodePort"], kept);
        }
    }
}

/// Takes the ports that a service needs and does not have yet; notes those that it no longer needs.
pub(super) async fn take(
    call: &Call<'_>,
    service: &mut Value,
    old: Option<&Value>,
    taken: &mut Vec<i64>,
    let_go: &mut Vec<i64>,
) -> Result<(), Status> {
    let had = old.filter(|old| needs_node_ports(old)).map(node_ports).unwrap_or_default();
    if needs_node_ports(service) {
        take_node_ports(call, service, &had, taken).await?;
        let has = node_ports(service);
        let_go.extend(had.iter().filter(|p| !has.contains(p)));
    } else {
        let_go.extend(&had);
    }
    let (needed, needs) = (old.is_some_and(needs_health_check), needs_health_check(service));
    if needs && !needed {
        let port = call.registry.addresses.take_port(call, health_port(service), taken).await;
        let port = port.map_err(|e| {
            let asked = service.int_at(&["spec", "healthCheckNodePort"]);
            Status::internal(if asked == 0 {
                format!("failed to allocate a HealthCheck NodePort {asked}: {e}")
            } else {
                format!("failed to allocate requested HealthCheck NodePort {asked}: {e}")
            })
        })?;
        taken.push(port);
        service.set(&["spec", "healthCheckNodePort"], port);
    } else if needed && !needs {
        let_go.extend(old.and_then(health_port));
    }
    Ok(())
}

async fn take_node_ports(
    call: &Call<'_>,
    service: &mut Value,
    had: &[i64],
    taken: &mut Vec<i64>,
) -> Result<(), Status> {
    let unasked = gives_ports_unasked(service);
    let name = service.str_at(&["metadata", "name"]).to_string();
    // One port number with several protocols shares a node port.
    let mut by_port: Vec<(i64, i64)> = Vec::new();
    let asked: Vec<(i64, i64)> = service
        .list_at(&["spec", "ports"])
        .iter()
        .map(|p| (p.int_at(&["port"]), p.int_at(&["nodePort"])))
        .collect();
    for (i, (port, node_port)) in asked.iter().copied().enumerate() {
        if node_port == 0 && !unasked {
            continue;
        }
        let shared = by_port.iter().find(|(p, _)| *p == port).map(|(_, n)| *n);
        let later = asked.iter().find(|(p, n)| *p == port && *n != 0).map(|(_, n)| *n);
        let wanted = match (node_port, shared) {
            (0, Some(shared)) => shared,
            (0, None) => later.unwrap_or(0),
            (given, _) => given,
        };
        let number =
            if wanted != 0 && (had.contains(&wanted) || taken.contains(&wanted) || shared == Some(wanted)) {
                wanted
            } else {
                let asked = Some(wanted).filter(|w| *w != 0);
                let number = call.registry.addresses.take_port(call, asked, taken).await;
                let number = number.map_err(|e| refused(&name, i, wanted, &e))?;
                taken.push(number);
                number
            };
        by_port.push((port, number));
        if let Some(ports) = service.at_mut(&["spec", "ports"]).and_then(Value::as_list_mut) {
            ports[i].set(&["nodePort"], number);
        }
    }
    Ok(())
}

fn refused(name: &str, index: usize, wanted: i64, error: &PortError) -> Status {
    if wanted == 0 || matches!(error, PortError::Failed(_)) {
        return Status::internal(format!("failed to allocate a nodePort: {error}"));
    }
    let spec = Path::new("spec");
    let ports = spec.child("ports");
    let port = ports.index(index);
    let errors: ErrorList = vec![FieldError::invalid_int(&port.child("nodePort"), wanted, error.to_string())];
    Status::invalid("", "Service", name, &errors)
}
