//! Images: their names, whether to pull them, with which credentials, and the back-off of pulls that fail.
//!
//! upstream: kubelet/images/image_manager.go, pkg/util/parsers/parsers.go, pkg/credentialprovider/keyring.go

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use copepod_client::events::EventType;
use copepod_cri::{CriError, api};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Secret};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    context::{Context, container_reference},
    pod::{
        backoff::Backoff,
        model::{spec, uid},
    },
    text::go_duration,
};

/// Failed pulls remembered, over all pods; beyond it the oldest back-off is forgotten.
const FAILURES_MAX: usize = 1000;

/// Why an image is not there: the waiting reason, and the message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageError {
    /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`.
    pub reason: &'static str,
    /// The details.
    pub message: String,
    /// When another try makes sense, if it is a matter of time.
    pub retry_at: Option<Timestamp>,
}

/// Pulls images, so many at once.
pub struct Puller {
    slots: Semaphore,
    state: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    backoff: Backoff,
    last_error: HashMap<String, String>,
}

impl Puller {
    /// At most `parallel` pulls at once; upstream's default is one.
    pub fn new(parallel: usize) -> Self {
        Puller { slots: Semaphore::new(parallel.max(1)), state: Mutex::default() }
    }

    /// Makes sure that a container's image is there and says how the runtime knows it.
    // upstream: kubelet/images/image_manager.go EnsureImageExists
    pub async fn ensure(
        &self,
        context: &Context,
        pod: &Pod,
        container: &Container,
        sandbox_config: &api::PodSandboxConfig,
    ) -> Result<api::Image, ImageError> {
        let target = container_reference(pod, &container.name);
        let requested = container.image.as_deref().unwrap_or_default();
        let record =
            |kind, reason: &str, message: &str| context.recorder.event(&target, kind, reason, message);
        let name = match ImageName::parse(requested) {
            Ok(name) => name,
            Err(error) => {
                let message = format!(
                    "Failed to apply default image tag {requested:?}: couldn't parse image name {requested:?}: {error}"
                );
                record(EventType::Warning, "InspectFailed", &message);
                return Err(ImageError { reason: "InvalidImageName", message, retry_at: None });
            }
        };
        let spec = api::ImageSpec { image: name.with_default_tag(requested), ..Default::default() };
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        if policy != "Always" {
            match context.runtime.image_status(spec.clone()).await {
                Ok(Some(image)) => {
                    let message = format!(
                        "Container image {requested:?} already present on machine and can be accessed by the pod"
                    );
                    record(EventType::Normal, "Pulled", &message);
                    return Ok(image);
                }
                Ok(None) if policy == "Never" => {
                    let message =
                        format!("Container image {requested:?} is not present with pull policy of Never");
                    record(EventType::Warning, "ErrImageNeverPull", &message);
                    return Err(ImageError { reason: "ErrImageNeverPull", message, retry_at: None });
                }
                Ok(None) => {}
                Err(error) => {
                    let message = format!("Failed to inspect image {:?}: {}", "", error.grpc_text());
                    record(EventType::Warning, "InspectFailed", &message);
                    return Err(ImageError { reason: "ImageInspectError", message, retry_at: None });
                }
            }
        }
        self.pull(context, pod, &target, requested, &name, spec, sandbox_config).await
    }

    #[allow(clippy::too_many_arguments)] // One call site; a struct would only rename them.
    async fn pull(
        &self,
        context: &Context,
        pod: &Pod,
        target: &ObjectReference,
        requested: &str,
        name: &ImageName,
        spec: api::ImageSpec,
        sandbox_config: &api::PodSandboxConfig,
    ) -> Result<api::Image, ImageError> {
        let key = format!("{}_{requested}", uid(pod));
        if let Some(error) = self.in_backoff(&key, requested) {
            let message = format!("Back-off pulling image {requested:?}");
            context.recorder.event(target, EventType::Normal, "BackOff", message);
            return Err(error);
        }
        context.recorder.event(target, EventType::Normal, "Pulling", format!("Pulling image {requested:?}"));
        let started = Instant::now();
        let credentials = pull_credentials(context, pod, name).await;
        let _slot = self.slots.acquire().await;
        let pulling = Instant::now();
        let pulled = pull_with_each(context, &spec, credentials, sandbox_config).await;
        match pulled {
            Ok(image_ref) => {
                let by_ref = api::ImageSpec { image: image_ref.clone(), ..Default::default() };
                let image = match context.runtime.image_status(by_ref).await {
                    Ok(Some(image)) => image,
                    _ => api::Image { id: image_ref, ..Default::default() },
                };
                let truncated = |since: Instant| {
                    go_duration(Duration::from_millis(
                        u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                    ))
                };
                let message = format!(
                    "Successfully pulled image {requested:?} in {} ({} including waiting). Image size: {} bytes.",
                    truncated(pulling),
                    truncated(started),
                    image.size
                );
                context.recorder.event(target, EventType::Normal, "Pulled", message);
                let mut state = self.state.lock();
                state.backoff.reset(&key);
                state.last_error.remove(&key);
                Ok(image)
            }
            Err(error) => Err(self.failed(context, target, &key, requested, &error)),
        }
    }

    fn in_backoff(&self, key: &str, requested: &str) -> Option<ImageError> {
        let state = self.state.lock();
        let until = state.backoff.until_since_update(key, Timestamp::now())?;
        let mut message = format!("Back-off pulling image {requested:?}");
        if let Some(last) = state.last_error.get(key) {
            message = format!("{message}: {last}");
        }
        Some(ImageError { reason: "ImagePullBackOff", message, retry_at: Some(until) })
    }

    fn failed(
        &self,
        context: &Context,
        target: &ObjectReference,
        key: &str,
        requested: &str,
        error: &CriError,
    ) -> ImageError {
        let text = error.grpc_text();
        let message = format!("Failed to pull image {requested:?}: {text}");
        context.recorder.event(target, EventType::Warning, "Failed", message);
        let now = Timestamp::now();
        let mut state = self.state.lock();
        if state.last_error.len() >= FAILURES_MAX
            && let Some(old) = state.last_error.keys().next().cloned()
        {
            state.last_error.remove(&old);
            state.backoff.reset(&old);
        }
        state.backoff.next(key, now, now);
        state.last_error.insert(key.to_owned(), format!("ErrImagePull: {text}"));
        let retry_at = state.backoff.until_since_update(key, now);
        ImageError { reason: "ErrImagePull", message: text, retry_at }
    }
}

/// Tries each credential, and none if there is none. The last error counts.
async fn pull_with_each(
    context: &Context,
    spec: &api::ImageSpec,
    credentials: Vec<api::AuthConfig>,
    sandbox_config: &api::PodSandboxConfig,
) -> Result<String, CriError> {
    let mut attempts: Vec<Option<api::AuthConfig>> = credentials.into_iter().map(Some).collect();
    if attempts.is_empty() {
        attempts.push(None);
    }
    let mut last = None;
    for auth in attempts {
        match context.runtime.pull_image(spec.clone(), auth, sandbox_config.clone()).await {
            Ok(image_ref) => return Ok(image_ref),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| CriError::Unavailable("no attempt was made".into())))
}

/// Credentials of the pod's pull secrets that fit the image's registry.
async fn pull_credentials(context: &Context, pod: &Pod, name: &ImageName) -> Vec<api::AuthConfig> {
    let mut all = Vec::new();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for reference in spec(pod).image_pull_secrets.iter().flatten() {
        match context.objects.secret(uid(pod), namespace, &reference.name).await {
            Ok(Some(secret)) => all.extend(secret_credentials(&secret)),
            // upstream: a missing secret is noted and the pull is tried without it.
            Ok(None) | Err(_) => context.recorder.event(
                &crate::context::pod_reference(pod),
                EventType::Warning,
                "FailedToRetrieveImagePullSecret",
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                ),
            ),
        }
    }
    lookup(&all, name)
}

/// Registry keys and what to show there.
fn secret_credentials(secret: &Arc<Secret>) -> Vec<(String, api::AuthConfig)> {
    let data = secret.data.as_ref();
    let parsed = |key: &str| -> Option<serde_json::Value> {
        let read = serde_json::from_slice(&data?.get(key)?.0);
        // What is wrong with it is the error's; what is in it is nobody's.
        read.inspect_err(|_| tracing::warn!(secret = secret.metadata.name, key, "a pull secret is not JSON"))
            .ok()
    };
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            parsed(".dockerconfigjson").and_then(|json| json.get("auths").cloned())
        }
        Some("kubernetes.io/dockercfg") => parsed(".dockercfg"),
        _ => None,
    };
    let Some(serde_json::Value::Object(auths)) = auths else { return Vec::new() };
    auths
        .into_iter()
        .map(|(server, entry)| {
            let text =
                |key: &str| entry.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            let (mut username, mut password) = (text("username"), text("password"));
            let pair = BASE64.decode(text("auth")).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            if let Some((user, secret)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
                (username, password) = (user.to_owned(), secret.to_owned());
            }
            (server, api::AuthConfig { username, password, ..Default::default() })
        })
        .collect()
}

/// The entries for an image's registry and path, most specific first.
fn lookup(all: &[(String, api::AuthConfig)], name: &ImageName) -> Vec<api::AuthConfig> {
    let mut found: Vec<(usize, &api::AuthConfig)> = all
        .iter()
        .filter_map(|(server, auth)| {
            let server =
                server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
            let server = server.trim_end_matches("/v1").trim_end_matches("/v2");
            let server = if server == "index.docker.io" { "docker.io" } else { server };
            let (host, path) = server.split_once('/').unwrap_or((server, ""));
            let host_fits = match host.strip_prefix("*.") {
                Some(suffix) => name.registry.split_once('.').is_some_and(|(_, rest)| rest == suffix),
                None => name.registry == host,
            };
            let path_fits =
                path.is_empty() || name.path == path || name.path.starts_with(&format!("{path}/"));
            (host_fits && path_fits).then_some((server.len(), auth))
        })
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth.clone()).collect()
}

/// An image reference taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Registry host and port; `docker.io` if none is written.
    pub registry: String,
    /// Repository; `library/` is put before one-word names of docker.io.
    pub path: String,
    /// Tag as written.
    pub tag: Option<String>,
    /// Digest as written.
    pub digest: Option<String>,
}

impl ImageName {
    /// Takes a reference apart.
    // upstream: github.com/distribution/reference ParseNormalizedNamed
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const INVALID: &str = "invalid reference format";
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let (algorithm, hex) = digest.split_once(':').ok_or(INVALID)?;
                let good = !algorithm.is_empty()
                    && hex.len() >= 32
                    && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !good {
                    return Err(INVALID);
                }
                (rest, Some(digest.to_owned()))
            }
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].rfind(':') {
            Some(at) => (&rest[..slash + at], Some(rest[slash + at + 1..].to_owned())),
            None => (rest, None),
        };
        if let Some(tag) = &tag {
            let first = tag.bytes().next().ok_or(INVALID)?;
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            if tag.len() > 128 || !tag.bytes().all(good) || b".-".contains(&first) {
                return Err(INVALID);
            }
        }
        if name.is_empty() {
            return Err(INVALID);
        }
        let is_host = |word: &str| {
            word.contains(['.', ':']) || word == "localhost" || word.bytes().any(|b| b.is_ascii_uppercase())
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_host(first) => (first.to_owned(), path.to_owned()),
            Some(_) => ("docker.io".to_owned(), name.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{name}")),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("repository name must be lowercase");
        }
        let registry = if registry == "index.docker.io" { "docker.io".to_owned() } else { registry };
        if !path.split('/').all(good_component) {
            return Err(INVALID);
        }
        Ok(ImageName { registry, path, tag, digest })
    }

    /// The reference as written, with `:latest` if it has neither tag nor digest.
    pub fn with_default_tag(&self, written: &str) -> String {
        if self.tag.is_none() && self.digest.is_none() {
            format!("{written}:latest")
        } else {
            written.to_owned()
        }
    }
}

fn good_component(component: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    edge(component.bytes().next())
        && edge(component.bytes().next_back())
        && component
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("busybox", Ok("docker.io|library/busybox|busybox:latest")),
            ("busybox:1.36", Ok("docker.io|library/busybox|busybox:1.36")),
            ("me/app", Ok("docker.io|me/app|me/app:latest")),
            ("localhost:5000/a/b:t", Ok("localhost:5000|a/b|localhost:5000/a/b:t")),
            ("reg.example.com/a", Ok("reg.example.com|a|reg.example.com/a:latest")),
            ("FAILED_IMAGE", Err("repository name must be lowercase")),
            ("a:", Err("invalid reference format")),
            ("a b", Err("invalid reference format")),
            ("", Err("invalid reference format")),
            ("-a", Err("invalid reference format")),
        ] {
            let got = ImageName::parse(text)
                .map(|name| format!("{}|{}|{}", name.registry, name.path, name.with_default_tag(text)));
            assert_eq!(got, want.map(str::to_owned), "{text}");
        }
        let text = format!("a@{digest}");
        assert_eq!(ImageName::parse(&text).map(|name| name.with_default_tag(&text)), Ok(text.clone()));
    }

    #[test]
    fn credentials_fit_registry_and_path() {
        let auth = |user: &str| api::AuthConfig { username: user.into(), ..Default::default() };
        let all = vec![
            ("https://index.docker.io/v1/".to_owned(), auth("hub")),
            ("reg.example.com".to_owned(), auth("reg")),
            ("reg.example.com/team".to_owned(), auth("team")),
            ("*.example.org".to_owned(), auth("star")),
        ];
        for (image, want) in [
            ("busybox", vec!["hub"]),
            ("reg.example.com/team/app", vec!["team", "reg"]),
            ("reg.example.com/teamwork", vec!["reg"]),
            ("a.example.org/x", vec!["star"]),
            ("other.io/x", vec![]),
        ] {
            let name = ImageName::parse(image).expect("a name");
            let got: Vec<String> = lookup(&all, &name).into_iter().map(|auth| auth.username).collect();
            assert_eq!(got, want, "{image}");
        }
    }
}
