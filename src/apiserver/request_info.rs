//! What a request is about, read from its path and query.
//!
//! upstream: apiserver/pkg/endpoints/request/requestinfo.go NewRequestInfo
//!
//! It says what authorization decides on, so it must never fail to see a resource request: what looks like one is one, served
//! or not.

use copepod_meta::selector::FieldSelector;
use copepod_meta::url::{query_pairs, unescape_path_or_keep};
use copepod_meta::{Attributes, User, names};
use http::Method;
use std::sync::Arc;

/// The parts of a request that matter for who may do it and where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// About objects, under `/api` or `/apis`.
    pub is_resource: bool,
    /// The decoded path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, ...; the method in lower case for non-resource requests.
    pub verb: String,
    /// API group, "" for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, "" for none.
    pub namespace: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource, "" for none.
    pub subresource: String,
    /// Object name, "" for collections; of a list, the name that its field selector demands.
    pub name: String,
    /// Path segments from the resource on: `resource/name/subresource/whatever/else`.
    pub parts: Vec<String>,
    /// The verb came from the path (`/api/v1/watch/...`).
    pub verb_in_path: bool,
    /// The field selector, for verbs that have one.
    pub field_selector: String,
    /// The label selector, for verbs that have one.
    pub label_selector: String,
}

/// A path from which no resource can be read: `/api/v1/watch`.
#[derive(Debug, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {0}")]
pub struct RequestInfoError(String);

impl RequestInfo {
    /// Reads method, path (still percent-encoded) and query.
    pub fn new(method: &Method, raw_path: &str, query: &str) -> Result<RequestInfo, RequestInfoError> {
        // Bad escapes are refused before any handler is chosen.
        let path = unescape_path_or_keep(raw_path).into_owned();
        let mut info = RequestInfo {
            verb: method.as_str().to_ascii_lowercase(),
            path: path.clone(),
            ..RequestInfo::default()
        };
        let trimmed = path.trim_matches('/');
        let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        let (group, rest) = match parts.as_slice() {
            ["api", _, _, ..] => ("", &parts[1..]),
            ["apis", group, _, _, ..] => (*group, &parts[2..]),
            _ => return Ok(info),
        };
        info.is_resource = true;
        info.group = group.to_string();
        info.version = rest[0].to_string();
        let mut rest = &rest[1..];
        if matches!(rest[0], "proxy" | "watch") {
            if rest.len() < 2 {
                return Err(RequestInfoError(path));
            }
            info.verb = rest[0].to_string();
            info.verb_in_path = true;
            rest = &rest[1..];
        } else {
            info.verb = verb_of(method).to_string();
        }
        if let ["namespaces", namespace, ..] = rest {
            info.namespace = (*namespace).to_string();
            // `namespaces/x/status` is about the namespace, `namespaces/x/pods` about pods in it.
            if rest.len() > 2 && !matches!(rest[2], "status" | "finalize") {
                rest = &rest[2..];
            }
        }
        info.parts = rest.iter().map(|p| (*p).to_string()).collect();
        info.resource = rest[0].to_string();
        if let Some(name) = rest.get(1) {
            info.name = (*name).to_string();
        }
        if let Some(subresource) = rest.get(2)
            && !matches!(info.verb.as_str(), "proxy" | "watch")
        {
            info.subresource = (*subresource).to_string();
        }
        info.read_query(query);
        Ok(info)
    }

    /// List, watch or get; deletecollection or delete; selectors.
    fn read_query(&mut self, query: &str) {
        let pairs = query_pairs(query);
        let first = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        if self.name.is_empty() && self.verb == "get" {
            let watch = first("watch").is_some_and(query_bool);
            self.verb = if watch { "watch" } else { "list" }.to_string();
            let selected = first("fieldSelector").and_then(|s| FieldSelector::parse(s).ok());
            if let Some(name) = selected.as_ref().and_then(|s| s.exact("metadata.name"))
                && names::path_segment(name).is_empty()
            {
                self.name = name.to_string();
            }
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_string();
        }
        if !self.verb_in_path && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = first("fieldSelector").unwrap_or("").to_string();
            self.label_selector = first("labelSelector").unwrap_or("").to_string();
        }
    }

    /// What an authorizer decides on.
    /// upstream: apiserver/pkg/endpoints/filters/authorization.go GetAuthorizerAttributes
    pub fn attributes(&self, user: Arc<User>) -> Attributes {
        Attributes {
            user,
            verb: self.verb.clone(),
            namespace: self.namespace.clone(),
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            name: self.name.clone(),
            is_resource: self.is_resource,
            path: self.path.clone(),
            field_selector: self.field_selector.clone(),
            label_selector: self.label_selector.clone(),
        }
    }

    /// Watches, and what keeps its connection: no timeout, no place among the requests in flight.
    /// upstream: pkg/controlplane/apiserver/config.go BasicLongRunningRequestCheck
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || (self.is_resource
                && matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
    }

    /// Whether it only reads.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }

    /// `namespace`, `cluster` or `resource`: a label of metrics.
    pub fn scope(&self) -> &'static str {
        match self {
            _ if !self.is_resource => "",
            _ if !self.name.is_empty() || self.verb == "create" => "resource",
            _ if !self.namespace.is_empty() => "namespace",
            _ => "cluster",
        }
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// A boolean of a query: everything but `false` and `0` is true.
/// upstream: apimachinery/pkg/runtime/conversion.go Convert_Slice_string_To_bool
pub fn query_bool(value: &str) -> bool {
    !(value.eq_ignore_ascii_case("false") || value == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(line: &str) -> String {
        let (method, uri) = line.split_once(' ').expect("method and path");
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        match RequestInfo::new(&method.parse().expect("method"), path, query) {
            Err(error) => error.to_string(),
            Ok(i) if !i.is_resource => format!("{} {}", i.verb, i.path),
            Ok(i) => format!(
                "{} group={} version={} ns={} resource={} sub={} name={} parts={}",
                i.verb,
                i.group,
                i.version,
                i.namespace,
                i.resource,
                i.subresource,
                i.name,
                i.parts.join("/")
            ),
        }
    }

    /// The cases of upstream's requestinfo_test.go, and those that differ by query.
    #[test]
    fn paths_say_what_upstream_reads_from_them() {
        for (line, want) in [
            ("GET /", "get /"),
            ("GET /api", "get /api"),
            ("GET /apis/apps/v1", "get /apis/apps/v1"),
            ("POST /healthz", "post /healthz"),
            (
                "GET /api/v1/namespaces",
                "list group= version=v1 ns= resource=namespaces sub= name= parts=namespaces",
            ),
            (
                "GET /api/v1/namespaces/other",
                "get group= version=v1 ns=other resource=namespaces sub= name=other parts=namespaces/other",
            ),
            (
                "GET /api/v1/namespaces/other/pods",
                "list group= version=v1 ns=other resource=pods sub= name= parts=pods",
            ),
            (
                "GET /api/v1/namespaces/other/pods/foo",
                "get group= version=v1 ns=other resource=pods sub= name=foo parts=pods/foo",
            ),
            ("HEAD /api/v1/pods", "list group= version=v1 ns= resource=pods sub= name= parts=pods"),
            (
                "POST /api/v1/namespaces/other/pods/foo/binding",
                "create group= version=v1 ns=other resource=pods sub=binding name=foo parts=pods/foo/binding",
            ),
            (
                "PUT /api/v1/namespaces/other/finalize",
                "update group= version=v1 ns=other resource=namespaces sub=finalize name=other parts=namespaces/other/finalize",
            ),
            (
                "GET /api/v1/watch/namespaces/other/pods",
                "watch group= version=v1 ns=other resource=pods sub= name= parts=pods",
            ),
            (
                "GET /api/v1/proxy/namespaces/other/pods/foo/subpath/x",
                "proxy group= version=v1 ns=other resource=pods sub= name=foo parts=pods/foo/subpath/x",
            ),
            (
                "GET /api/v1/namespaces/other/pods/foo/proxy/a/b",
                "get group= version=v1 ns=other resource=pods sub=proxy name=foo parts=pods/foo/proxy/a/b",
            ),
            (
                "DELETE /apis/apps/v1/namespaces/x/deployments",
                "deletecollection group=apps version=v1 ns=x resource=deployments sub= name= parts=deployments",
            ),
            ("GET /api/v1/watch", "unable to determine kind and namespace from url, /api/v1/watch"),
            ("GET /api/v1/pods?watch=1", "watch group= version=v1 ns= resource=pods sub= name= parts=pods"),
            ("GET /api/v1/pods?watch", "watch group= version=v1 ns= resource=pods sub= name= parts=pods"),
            (
                "GET /api/v1/pods?watch=false",
                "list group= version=v1 ns= resource=pods sub= name= parts=pods",
            ),
            (
                "GET /api/v1/pods?fieldSelector=metadata.name%3Dfoo",
                "list group= version=v1 ns= resource=pods sub= name=foo parts=pods",
            ),
        ] {
            assert_eq!(info(line), want, "{line}");
        }
    }
}
