//! A container's environment: service variables, envFrom, env. Pure; the objects it draws on are fetched before.
//!
//! upstream: kubelet/kubelet_pods.go makeEnvironmentVariables, kubelet/envvars/envvars.go

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};

use super::{
    downward::{self, NodeFacts},
    expand::expand,
};

/// ConfigMaps and Secrets of the pod's namespace by name; `None` for one that does not exist.
#[derive(Debug, Clone, Default)]
pub struct EnvSources {
    /// ConfigMaps.
    pub config_maps: HashMap<String, Option<Arc<ConfigMap>>>,
    /// Secrets.
    pub secrets: HashMap<String, Option<Arc<Secret>>>,
}

/// Why the environment cannot be made. The text is upstream's and stands in the container's status.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    /// A ConfigMap or Secret that is not optional does not exist.
    #[error("{0} \"{1}\" not found")]
    Missing(&'static str, String),
    /// A key that is not optional does not exist.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A source that this version does not serve.
    #[error("environment source {0} is not supported")]
    Unsupported(&'static str),
    /// A field that cannot be given.
    #[error(transparent)]
    Downward(#[from] downward::DownwardError),
}

/// Names of the objects that a container's environment needs: config maps, secrets.
pub fn needs(container: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for source in container.env_from.iter().flatten() {
        config_maps.extend(source.config_map_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment: what the spec says in its order, then the service variables that it does not override.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &EnvSources,
    services: &BTreeMap<String, String>,
    facts: &NodeFacts,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut names: Vec<String> = Vec::new();
    let mut values: HashMap<String, String> = HashMap::new();
    let mut set = |values: &mut HashMap<String, String>, name: String, value: String| {
        if values.insert(name.clone(), value).is_none() {
            names.push(name);
        }
    };
    for (name, value) in from_objects(container, sources)? {
        set(&mut values, name, value);
    }
    for variable in container.env.iter().flatten() {
        let value = match variable.value.as_deref() {
            Some(text) if !text.is_empty() => {
                Some(expand(text, |name| values.get(name).or_else(|| services.get(name)).cloned()))
            }
            _ => referenced(pod, container, variable, sources, facts)?,
        };
        if let Some(value) = value {
            set(&mut values, variable.name.clone(), value);
        }
    }
    let mut all: Vec<(String, String)> = names
        .into_iter()
        .map(|name| {
            let value = values.remove(&name).unwrap_or_default();
            (name, value)
        })
        .collect();
    let known: std::collections::HashSet<&String> = all.iter().map(|(name, _)| name).collect();
    let mut rest: Vec<(String, String)> = services
        .iter()
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.append(&mut rest);
    Ok(all)
}

/// `envFrom`, in order.
fn from_objects(container: &Container, sources: &EnvSources) -> Result<Vec<(String, String)>, EnvError> {
    let mut all = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match sources.config_maps.get(&reference.name).cloned().flatten() {
                Some(map) => all.extend(
                    map.data.iter().flatten().map(|(key, value)| (format!("{prefix}{key}"), value.clone())),
                ),
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::Missing("configmap", reference.name.clone())),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match sources.secrets.get(&reference.name).cloned().flatten() {
                Some(secret) => all.extend(secret.data.iter().flatten().map(|(key, value)| {
                    (format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned())
                })),
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::Missing("secret", reference.name.clone())),
            }
        }
    }
    Ok(all)
}

/// `valueFrom`; `None` when an optional source is missing. A variable without value and source is empty.
fn referenced(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    sources: &EnvSources,
    facts: &NodeFacts,
) -> Result<Option<String>, EnvError> {
    let Some(source) = &variable.value_from else { return Ok(Some(String::new())) };
    let key_error = |key: &str, kind, name: &str| EnvError::Key {
        key: key.into(),
        kind,
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: name.into(),
    };
    if let Some(selector) = &source.field_ref {
        return Ok(Some(downward::field(selector, pod, facts)?));
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(downward::resource(selector, pod, Some(container), facts)?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = sources.config_maps.get(&reference.name).cloned().flatten() else {
            let missing = EnvError::Missing("configmap", reference.name.clone());
            return if optional { Ok(None) } else { Err(missing) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(key_error(&reference.key, "ConfigMap", &reference.name)),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = sources.secrets.get(&reference.name).cloned().flatten() else {
            let missing = EnvError::Missing("secret", reference.name.clone());
            return if optional { Ok(None) } else { Err(missing) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(key_error(&reference.key, "Secret", &reference.name)),
        };
    }
    if source.file_key_ref.is_some() {
        return Err(EnvError::Unsupported("fileKeyRef"));
    }
    Ok(Some(String::new()))
}

/// A service as far as variables are made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Cluster address.
    pub cluster_ip: String,
    /// Name, port, protocol of each port.
    pub ports: Vec<(String, i32, String)>,
}

/// The variables of the services a pod sees: those of its namespace, and the master service of `default`.
// upstream: kubelet/kubelet_pods.go getServiceEnvVarMap
pub fn service_variables<'a>(
    services: impl Iterator<Item = &'a ServiceFacts>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for service in services {
        let master = service.namespace == "default" && service.name == "kubernetes";
        let wanted = (links && service.namespace == namespace) || master;
        if !wanted
            || service.cluster_ip.is_empty()
            || service.cluster_ip == "None"
            || service.ports.is_empty()
        {
            continue;
        }
        // The namespace's own service of the same name wins over the master's.
        if master && namespace != "default" && links && all.contains_key("KUBERNETES_SERVICE_HOST") {
            continue;
        }
        one_service(service, &mut all);
    }
    all
}

// upstream: kubelet/envvars/envvars.go FromServices
fn one_service(service: &ServiceFacts, all: &mut BTreeMap<String, String>) {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = upper(&service.name);
    let host = if service.cluster_ip.contains(':') {
        format!("[{}]", service.cluster_ip)
    } else {
        service.cluster_ip.clone()
    };
    all.insert(format!("{prefix}_SERVICE_HOST"), service.cluster_ip.clone());
    for (index, (name, port, protocol)) in service.ports.iter().enumerate() {
        if index == 0 {
            all.insert(format!("{prefix}_SERVICE_PORT"), port.to_string());
        }
        if !name.is_empty() {
            all.insert(format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.to_string());
        }
        let url = format!("{}://{host}:{port}", protocol.to_lowercase());
        if index == 0 {
            all.insert(format!("{prefix}_PORT"), url.clone());
        }
        let base = format!("{prefix}_PORT_{port}_{protocol}");
        all.insert(format!("{base}_PROTO"), protocol.to_lowercase());
        all.insert(format!("{base}_PORT"), port.to_string());
        all.insert(format!("{base}_ADDR"), service.cluster_ip.clone());
        all.insert(base, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(env: &[(String, String)]) -> String {
        env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn spec_order_expansion_and_overrides() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "gone", "optional": true}}],
            "env": [
                {"name": "B", "value": "b"},
                {"name": "A", "value": "$(B)-$(P_k)-$(SVC)-$(NONE)"},
                {"name": "B", "value": "again"},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "none", "optional": true}}},
                {"name": "E"}
            ]
        }))
        .expect("a container");
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.namespace = Some("n".into());
        let map = ConfigMap { data: Some([("k".to_owned(), "v".to_owned())].into()), ..ConfigMap::default() };
        let secret = Secret {
            data: Some([("x".to_owned(), k8s_openapi::ByteString(b"y".to_vec()))].into()),
            ..Secret::default()
        };
        let mut sources = EnvSources::default();
        sources.config_maps.insert("m".into(), Some(Arc::new(map)));
        sources.secrets.insert("s".into(), Some(Arc::new(secret)));
        sources.secrets.insert("gone".into(), None);
        let services = [("SVC".to_owned(), "svc".to_owned()), ("N".to_owned(), "hidden".to_owned())].into();
        let env = environment(&pod, &container, &sources, &services, &NodeFacts::default())
            .expect("an environment");
        assert_eq!(render(&env), "P_k=v B=again A=b-v-svc-$(NONE) N=p S=y E= SVC=svc");

        sources.secrets.insert("s".into(), None);
        let error =
            environment(&pod, &container, &sources, &services, &NodeFacts::default()).expect_err("missing");
        assert_eq!(error.to_string(), "secret \"s\" not found");
        sources.secrets.insert("s".into(), Some(Arc::default()));
        let error =
            environment(&pod, &container, &sources, &services, &NodeFacts::default()).expect_err("no key");
        assert_eq!(error.to_string(), "couldn't find key x in Secret n/s");
    }

    #[test]
    fn services_become_variables() {
        let services = [
            ServiceFacts {
                namespace: "n".into(),
                name: "my-db".into(),
                cluster_ip: "10.0.0.9".into(),
                ports: vec![("sql".into(), 5432, "TCP".into())],
            },
            ServiceFacts {
                namespace: "default".into(),
                name: "kubernetes".into(),
                cluster_ip: "10.0.0.1".into(),
                ports: vec![("https".into(), 443, "TCP".into())],
            },
            ServiceFacts {
                namespace: "n".into(),
                name: "headless".into(),
                cluster_ip: "None".into(),
                ports: vec![],
            },
            ServiceFacts {
                namespace: "other".into(),
                name: "x".into(),
                cluster_ip: "10.0.0.2".into(),
                ports: vec![("".into(), 1, "UDP".into())],
            },
        ];
        let all = service_variables(services.iter(), "n", true);
        assert_eq!(all["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(all["MY_DB_PORT_5432_TCP"], "tcp://10.0.0.9:5432");
        assert_eq!(all["KUBERNETES_SERVICE_HOST"], "10.0.0.1");
        assert!(!all.keys().any(|name| name.starts_with("X_") || name.starts_with("HEADLESS")));
        let unlinked = service_variables(services.iter(), "n", false);
        assert!(unlinked.keys().all(|name| name.starts_with("KUBERNETES_")), "{unlinked:?}");
    }
}
