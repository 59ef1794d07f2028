//! Every pod runs as a service account that exists; its token is mounted; its pull secrets are taken over.
//!
//! upstream: plugin/pkg/admission/serviceaccount/admission.go

use crate::helpers::{forbidden, is, is_mirror_pod, push};
use copepod_meta::pod_references;
use copepod_meta::{
    Admission, AdmissionRequest, BoxFuture, GroupResource, Lister, Map, Operation, Status, Value,
};
use rand::RngExt as _;
use std::sync::Arc;
use std::time::Duration;

const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ENFORCE_ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";
/// An hour and a little: tokens of this length are extended where `--service-account-extend-token-expiration` is on.
/// upstream: WarnOnlyBoundTokenExpirationSeconds
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
/// The `default` account of a new namespace is made by a controller; a pod may come a moment before it.
const DEFAULT_ACCOUNT_ATTEMPTS: usize = 10;
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_millis(100);

pub struct ServiceAccount {
    lister: Arc<dyn Lister>,
    accounts: GroupResource,
}

impl ServiceAccount {
    pub fn new(lister: Arc<dyn Lister>) -> ServiceAccount {
        ServiceAccount { lister, accounts: GroupResource::new("", "serviceaccounts") }
    }

    async fn account(&self, request: &AdmissionRequest<'_>, name: &str) -> Result<Arc<Value>, Status> {
        let namespace = request.namespace;
        let failed = |e: String| {
            forbidden(request, format!("error looking up service account {namespace}/{name}: {e}"))
        };
        let cached = self.lister.get(&self.accounts, namespace, name).await.map_err(|e| failed(e.message))?;
        if let Some(found) = cached {
            return Ok(found.object);
        }
        let attempts = if name == "default" { DEFAULT_ACCOUNT_ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(DEFAULT_ACCOUNT_WAIT).await;
            }
            let live = self.lister.get_consistent(&self.accounts, namespace, name).await;
            if let Some(found) = live.map_err(|e| failed(e.message))? {
                return Ok(found.object);
            }
        }
        Err(failed(Status::not_found(&GroupResource::new("", "serviceaccount"), name).message))
    }

    async fn admit_pod(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        if is_mirror_pod(pod) {
            return self.validate_pod(request).await;
        }
        if pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            pod.set(&["spec", "serviceAccountName"], "default");
        }
        let name = pod.str_at(&["spec", "serviceAccountName"]).to_string();
        let account = self.account(request, &name).await?;
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        // Both names are one field; the old one is shown with the value of the new one.
        pod.set(&["spec", "serviceAccount"], name);
        let asked = pod.at(&["spec", "automountServiceAccountToken"]).as_bool();
        let automount =
            asked.or_else(|| account.get("automountServiceAccountToken").as_bool()).unwrap_or(true);
        if automount {
            mount_token(pod);
        }
        if pod.list_at(&["spec", "imagePullSecrets"]).is_empty() {
            let own = account.list_at(&["imagePullSecrets"]);
            if !own.is_empty() {
                let names = own.iter().map(|s| reference(s.str_at(&["name"]))).collect::<Vec<Value>>();
                pod.set(&["spec", "imagePullSecrets"], names);
            }
        }
        // Twice, as upstream: what is refused here is refused before the plugins that come later have their say.
        self.validate_pod(request).await
    }

    async fn validate_pod(&self, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let Some(pod) = request.object.as_deref() else { return Ok(()) };
        if request.operation == Operation::Create && is_mirror_pod(pod) {
            return check_mirror_pod(pod).map_err(|why| forbidden(request, why));
        }
        let ephemeral = request.subresource == "ephemeralcontainers";
        if (request.operation == Operation::Update) != ephemeral {
            return Ok(());
        }
        let name = pod.str_at(&["spec", "serviceAccountName"]);
        if name.is_empty() {
            let pod_name = pod.str_at(&["metadata", "name"]);
            let why = format!("no service account specified for pod {}/{pod_name}", request.namespace);
            return Err(forbidden(request, why));
        }
        let account = self.account(request, name).await?;
        let enforce = account.str_at(&["metadata", "annotations", ENFORCE_ANNOTATION]);
        if !matches!(enforce, "1" | "t" | "T" | "TRUE" | "true" | "True") {
            return Ok(());
        }
        check_secrets(&account, pod, ephemeral).map_err(|why| forbidden(request, why))
    }
}

fn reference(name: &str) -> Value {
    let one: Map = [("name", Value::string(name))].into_iter().collect();
    Value::Map(one)
}

/// Adds the token's volume and mounts it where nothing is mounted there yet. upstream: mountServiceAccountToken
fn mount_token(pod: &mut Value) {
    let volumes = pod.list_at(&["spec", "volumes"]);
    let existing = volumes.iter().map(|v| v.str_at(&["name"])).find(|n| n.starts_with(VOLUME_PREFIX));
    let (name, mut missing) = match existing {
        Some(name) => (name.to_string(), false),
        None => (format!("{VOLUME_PREFIX}{}", suffix()), true),
    };
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_list_mut);
        for container in containers.into_iter().flatten() {
            let taken =
                container.list_at(&["volumeMounts"]).iter().any(|m| m.str_at(&["mountPath"]) == MOUNT_PATH);
            if !taken {
                let mut mount: Map =
                    [("name", Value::string(&name)), ("mountPath", Value::string(MOUNT_PATH))]
                        .into_iter()
                        .collect();
                mount.insert("readOnly", true);
                push(container, &["volumeMounts"], Value::Map(mount));
                mounted = true;
            }
        }
    }
    missing &= mounted;
    if missing {
        push(pod, &["spec", "volumes"], token_volume(&name));
    }
}

/// Five characters of the alphabet of generated names. upstream: apimachinery/pkg/util/rand
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// upstream: TokenVolumeSource
fn token_volume(name: &str) -> Value {
    let mut token = Value::map();
    token.set(&["serviceAccountToken", "path"], "token");
    token.set(&["serviceAccountToken", "expirationSeconds"], TOKEN_SECONDS);
    let mut item = Value::map();
    item.set(&["key"], "ca.crt");
    item.set(&["path"], "ca.crt");
    let mut root_ca = Value::map();
    root_ca.set(&["configMap", "name"], "kube-root-ca.crt");
    root_ca.set(&["configMap", "items"], vec![item]);
    let mut file = Value::map();
    file.set(&["path"], "namespace");
    file.set(&["fieldRef", "apiVersion"], "v1");
    file.set(&["fieldRef", "fieldPath"], "metadata.namespace");
    let mut namespace = Value::map();
    namespace.set(&["downwardAPI", "items"], vec![file]);
    let mut volume = Value::map();
    volume.set(&["name"], name);
    volume.set(&["projected", "defaultMode"], 0o644);
    volume.set(&["projected", "sources"], vec![token, root_ca, namespace]);
    volume
}

fn check_mirror_pod(pod: &Value) -> Result<(), &'static str> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    let volumes = pod.list_at(&["spec", "volumes"]);
    let sources = || volumes.iter().flat_map(|v| v.list_at(&["projected", "sources"]));
    if pod_references::secret_names(pod.get("spec")).next().is_some() {
        return Err("a mirror pod may not reference secrets");
    }
    if sources().any(|s| !s.get("serviceAccountToken").is_null()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// An account may limit its pods to the secrets that it names. upstream: limitSecretReferences
fn check_secrets(account: &Value, pod: &Value, only_ephemeral: bool) -> Result<(), String> {
    let account_name = account.str_at(&["metadata", "name"]);
    let lists = |key| account.list_at(&[key]).iter().map(|s| s.str_at(&["name"]));
    let mountable = |name: &str| lists("secrets").any(|s| s == name);
    let refuse = |what: String, secret: &str| {
        Err(format!(
            "{what} referencing secret.secretName=\"{secret}\" is not allowed because service account {account_name} does \
             not reference that secret"
        ))
    };
    if !only_ephemeral {
        for volume in pod.list_at(&["spec", "volumes"]).iter().filter(|v| !v.get("secret").is_null()) {
            let secret = volume.str_at(&["secret", "secretName"]);
            if !mountable(secret) {
                return Err(format!(
                    "volume with secret.secretName=\"{secret}\" is not allowed because service account {account_name} does \
                     not reference that secret"
                ));
            }
        }
    }
    let kinds = [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ];
    for (list, shown) in kinds.into_iter().filter(|(l, _)| (*l == "ephemeralContainers") == only_ephemeral) {
        for container in pod.list_at(&["spec", list]) {
            let container_name = container.str_at(&["name"]);
            for env in container.list_at(&["env"]) {
                let reference = env.at(&["valueFrom", "secretKeyRef"]);
                let secret = reference.str_at(&["name"]);
                if !reference.is_null() && !mountable(secret) {
                    return refuse(
                        format!("{shown} {container_name} with envVar {}", env.str_at(&["name"])),
                        secret,
                    );
                }
            }
            for env in container.list_at(&["envFrom"]) {
                let secret = env.str_at(&["secretRef", "name"]);
                if !env.get("secretRef").is_null() && !mountable(secret) {
                    return refuse(format!("{shown} {container_name} with envFrom"), secret);
                }
            }
        }
    }
    let pull_secrets = if only_ephemeral { &[] } else { pod.list_at(&["spec", "imagePullSecrets"]) };
    for (i, secret) in pull_secrets.iter().map(|s| s.str_at(&["name"])).enumerate() {
        if !lists("imagePullSecrets").any(|s| s == secret) {
            return Err(format!(
                "imagePullSecrets[{i}].name=\"{secret}\" is not allowed because service account {account_name} does not \
                 reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    is(request, "", "pods") && matches!(request.subresource, "" | "ephemeralcontainers")
}

impl Admission for ServiceAccount {
    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            match concerns(request) && request.operation == Operation::Create {
                true => self.admit_pod(request).await,
                false => Ok(()),
            }
        })
    }

    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { if concerns(request) { self.validate_pod(request).await } else { Ok(()) } })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, run};

    #[tokio::test]
    async fn pods_get_their_account_and_its_token() {
        let objects = [
            (
                "",
                "serviceaccounts",
                r#"{"metadata":{"namespace":"a","name":"default"},"imagePullSecrets":[{"name":"reg"}]}"#,
            ),
            (
                "",
                "serviceaccounts",
                r#"{"metadata":{"namespace":"a","name":"plain"},"automountServiceAccountToken":false}"#,
            ),
        ];
        for case in [
            Case {
                name: "the default account, its token and pull secrets",
                object: r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}"#,
                want: r#""imagePullSecrets":[{"name":"reg"}],"serviceAccount":"default","serviceAccountName":"default","volumes":[{"name":"kube-api-access-"#,
            },
            Case {
                name: "an account that does not want its token mounted",
                object: r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}],"serviceAccountName":"plain"}}"#,
                want: r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}],"serviceAccount":"plain","serviceAccountName":"plain"}}"#,
            },
            Case {
                name: "an account that is not there",
                object: r#"{"metadata":{"name":"p"},"spec":{"serviceAccountName":"gone"}}"#,
                want: r#"403 pods "p" is forbidden: error looking up service account a/gone: serviceaccount "gone" not found"#,
            },
            Case {
                name: "a mirror pod with a secret",
                object: r#"{"metadata":{"name":"p","annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"volumes":[{"secret":{"secretName":"s"}}]}}"#,
                want: r#"403 pods "p" is forbidden: a mirror pod may not reference secrets"#,
            },
        ] {
            run("ServiceAccount", "", "pods", &objects, case).await;
        }
    }
}
