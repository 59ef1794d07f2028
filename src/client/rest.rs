//! Requests with raw JSON bodies, addressed by resource.
//!
//! Controllers write what they mean to change (patches), an object read as raw JSON, or a status of their own; they never
//! send a typed object back, because a typed object has lost the fields that only a newer server knows.

use std::borrow::Cow;

use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::{MetaExt, slim_metadata};

/// A resource type as the API's paths name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceType {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version in the group.
    pub version: Cow<'static, str>,
    /// Plural name in the path.
    pub plural: Cow<'static, str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl ResourceType {
    /// A namespaced resource.
    pub const fn namespaced(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            namespaced: true,
        }
    }

    /// A resource of the whole cluster.
    pub const fn cluster(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            namespaced: false,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the collection; of all namespaces if `namespace` is empty.
    pub fn path(&self, namespace: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        path
    }

    /// Path of one object, or of its subresource if that is not empty.
    pub fn object_path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = self.path(namespace);
        for part in [name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

/// How the body of a patch is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/json-patch+json`
    Json,
}

impl PatchType {
    fn media_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

/// Reads one object.
pub async fn get<T: DeserializeOwned>(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    name: &str,
) -> Result<T, Error> {
    send(client, "GET", &resource.object_path(namespace, name, ""), "", &()).await
}

/// Reads a collection; `query` is empty or like `labelSelector=..` (already encoded).
pub async fn list<T: DeserializeOwned>(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    query: &str,
) -> Result<T, Error> {
    let mut path = resource.path(namespace);
    if !query.is_empty() {
        path.push('?');
        path.push_str(query);
    }
    send(client, "GET", &path, "", &()).await
}

/// Creates an object, or POSTs to the subresource of `name` when one is given.
pub async fn create<T: DeserializeOwned>(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    body: &impl Serialize,
) -> Result<T, Error> {
    send(client, "POST", &resource.path(namespace), "application/json", body).await
}

/// POSTs to a subresource (`binding`, `eviction`, `token` ...).
pub async fn create_subresource<T: DeserializeOwned>(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    name: &str,
    subresource: &str,
    body: &impl Serialize,
) -> Result<T, Error> {
    send(client, "POST", &resource.object_path(namespace, name, subresource), "application/json", body).await
}

/// Replaces an object or a subresource. `body` carries the resourceVersion that was read.
pub async fn update<T: DeserializeOwned>(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    name: &str,
    subresource: &str,
    body: &impl Serialize,
) -> Result<T, Error> {
    send(client, "PUT", &resource.object_path(namespace, name, subresource), "application/json", body).await
}

/// Replaces the status of an object as an informer holds it; returns the metadata that it has then.
///
/// A whole status is sent, because upstream's roles let controllers `update` it and not `patch` it. The server keeps what
/// is not status; metadata is sent as it was read (without managed fields, which means: unchanged), and its
/// resourceVersion makes the write a conflict when somebody else was faster.
pub async fn update_status<K: Resource<DynamicType = ()>>(
    client: &Client,
    resource: &ResourceType,
    object: &K,
    status: &impl Serialize,
) -> Result<ObjectMeta, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a, S> {
        api_version: Cow<'a, str>,
        kind: Cow<'a, str>,
        metadata: &'a ObjectMeta,
        status: &'a S,
    }
    #[derive(Deserialize)]
    struct Written {
        #[serde(deserialize_with = "slim_metadata")]
        metadata: ObjectMeta,
    }
    let (meta, kind) = (object.meta(), K::kind(&()));
    let body = Body { api_version: K::api_version(&()), kind, metadata: meta, status };
    let (namespace, name) = (MetaExt::namespace(meta), MetaExt::name(meta));
    update::<Written>(client, resource, namespace, name, "status", &body).await.map(|w| w.metadata)
}

/// Reads an object as raw JSON, lets `change` work on it, and replaces it; again after a conflict. Nothing is written
/// when `change` says `false`. Returns the resourceVersion that the object has then.
pub async fn edit(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    name: &str,
    change: impl Fn(&mut Value) -> bool,
) -> Result<Option<String>, Error> {
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    crate::retry::on_conflict(|| async {
        let mut live: Value = get(client, resource, namespace, name).await?;
        if !change(&mut live) {
            return Ok(version(&live));
        }
        update::<Value>(client, resource, namespace, name, "", &live).await.map(|written| version(&written))
    })
    .await
}

/// Patches an object or a subresource.
pub async fn patch<T: DeserializeOwned>(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    name: &str,
    subresource: &str,
    kind: PatchType,
    body: &impl Serialize,
) -> Result<T, Error> {
    send(client, "PATCH", &resource.object_path(namespace, name, subresource), kind.media_type(), body).await
}

/// Deletes an object; `options` is a DeleteOptions.
pub async fn delete(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    name: &str,
    options: &impl Serialize,
) -> Result<(), Error> {
    let path = resource.object_path(namespace, name, "");
    send::<serde::de::IgnoredAny>(client, "DELETE", &path, "application/json", options).await.map(drop)
}

/// Deletes every object of a collection.
pub async fn delete_collection(
    client: &Client,
    resource: &ResourceType,
    namespace: &str,
    options: &impl Serialize,
) -> Result<(), Error> {
    let path = resource.path(namespace);
    send::<serde::de::IgnoredAny>(client, "DELETE", &path, "application/json", options).await.map(drop)
}

/// One request with a JSON body (none if `media_type` is empty) and a JSON answer.
pub async fn send<T: DeserializeOwned>(
    client: &Client,
    method: &str,
    path: &str,
    media_type: &str,
    body: &impl Serialize,
) -> Result<T, Error> {
    let mut request = Request::builder().method(method).uri(path).header("accept", "application/json");
    let bytes = if media_type.is_empty() {
        Vec::new()
    } else {
        request = request.header("content-type", media_type);
        serde_json::to_vec(body).map_err(Error::SerdeError)?
    };
    client.request(request.body(bytes).map_err(Error::HttpError)?).await
}

/// The Status code of an answer of the server; `None` if there was no answer.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The Status reason of an answer of the server, or "".
pub fn reason(error: &Error) -> &str {
    match error {
        Error::Api(status) => &status.reason,
        _ => "",
    }
}

/// The object does not exist.
pub fn is_not_found(error: &Error) -> bool {
    code(error) == Some(404)
}

/// Another writer was faster, or a precondition failed.
pub fn is_conflict(error: &Error) -> bool {
    code(error) == Some(409) && reason(error) != "AlreadyExists"
}

/// An object of that name exists.
pub fn is_already_exists(error: &Error) -> bool {
    reason(error) == "AlreadyExists"
}

/// The object is not acceptable to the server: sending it again will not help.
pub fn is_invalid(error: &Error) -> bool {
    reason(error) == "Invalid"
}

/// The namespace is being deleted, so that nothing can be created in it.
pub fn is_namespace_terminating(error: &Error) -> bool {
    match error {
        Error::Api(status) => status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")),
        _ => false,
    }
}

/// What an error says to a user: the server's message, or what went wrong on the way and why.
pub fn message(error: &Error) -> String {
    if let Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_resources() {
        let pods = ResourceType::namespaced("", "v1", "pods");
        let roles = ResourceType::cluster("rbac.authorization.k8s.io", "v1", "clusterroles");
        for (path, want) in [
            (pods.path(""), "/api/v1/pods"),
            (pods.path("x"), "/api/v1/namespaces/x/pods"),
            (pods.object_path("x", "a", "status"), "/api/v1/namespaces/x/pods/a/status"),
            (roles.object_path("", "a", ""), "/apis/rbac.authorization.k8s.io/v1/clusterroles/a"),
        ] {
            assert_eq!(path, want);
        }
        assert_eq!(
            (pods.api_version().as_str(), roles.api_version().as_str()),
            ("v1", "rbac.authorization.k8s.io/v1")
        );
    }

    #[test]
    fn errors_are_told_apart_by_code_and_reason() {
        let error = |code: u16, reason: &str| {
            let status =
                serde_json::json!({"status": "Failure", "code": code, "reason": reason, "message": "said"});
            Error::Api(serde_json::from_value(status).expect("a status"))
        };
        assert!(is_conflict(&error(409, "Conflict")) && !is_already_exists(&error(409, "Conflict")));
        assert!(
            !is_conflict(&error(409, "AlreadyExists")) && is_already_exists(&error(409, "AlreadyExists"))
        );
        assert!(is_not_found(&error(404, "NotFound")) && is_invalid(&error(422, "Invalid")));
        assert_eq!(message(&error(404, "NotFound")), "said");
    }
}
