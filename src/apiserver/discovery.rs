//! What is served, as documents: the legacy tree (`/api`, `/apis`, `/apis/<group>/<version>`) and the aggregated one.
//!
//! upstream: apiserver/pkg/endpoints/discovery
//!
//! Documents are made of the registry's table when first asked for after a change, once a form, and shared.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use bytes::Bytes;
use copepod_meta::{Gvk, Value};
use copepod_registry::{Served, Table};
use copepod_schema::Universe;
use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use sha2::{Digest, Sha512};

use crate::answer::{self, Answer, Style};
use crate::negotiate::{self, Media, Offers, Routable};
use crate::routes::{exchange, server as running};
use crate::server::Server;

/// The documents of one generation of the table.
#[derive(Default)]
pub struct Discovery {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    generation: u64,
    documents: HashMap<(Document, Media), Arc<Encoded>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Document {
    /// `APIVersions` of `/api`
    Versions,
    /// `APIGroupList` of `/apis`
    Groups,
    /// `APIGroup`
    Group(String),
    /// `APIResourceList`
    Resources(String, String),
    /// `APIGroupDiscoveryList`; whether of the core group, and its version
    Aggregated { core: bool, version: String },
}

struct Encoded {
    bytes: Bytes,
    etag: String,
}

/// `/api`, `/apis` and all below that names no resource.
pub async fn root(state: State<std::sync::Weak<Server>>, request: Request) -> Result<Answer, Answer> {
    let server = running(state)?;
    let exchange = exchange(&request);
    let parts: Vec<&str> = exchange.info.path.trim_matches('/').split('/').collect();
    let top = parts.len() == 1;
    // Only lists of resources are routes of upstream's router; the aggregator answers before it.
    let routed = matches!(parts.as_slice(), ["api", _] | ["apis", _, _]);
    if routed && let Err(refusal) = negotiate::ensure_routable(exchange.headers(), Routable::Objects) {
        return Ok(exchange.refuse(&refusal));
    }
    let offers = if top { Offers::Discovery } else { Offers::Plain };
    let accepted = match negotiate::accept(exchange.headers(), &exchange.query.0, offers) {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(exchange.refuse(&refusal)),
    };
    let document = match (&accepted.convert, parts.as_slice()) {
        (Some(gvk), [api]) => Document::Aggregated { core: *api == "api", version: gvk.version.clone() },
        (None, ["api"]) => Document::Versions,
        (None, ["apis"]) => Document::Groups,
        (None, ["api", version]) => Document::Resources(String::new(), (*version).to_string()),
        (None, ["apis", group]) => Document::Group((*group).to_string()),
        (None, ["apis", group, version]) => Document::Resources((*group).to_string(), (*version).to_string()),
        _ => return Ok(crate::routes::not_found()),
    };
    let style = exchange.style(accepted);
    let Some(encoded) = server.discovery.document(&server, &document, style.accepted.media) else {
        // Within a group that is served, upstream's router answers; outside of all, nobody.
        let known = groups(&server.registry.table()).iter().any(|(g, _)| match parts.as_slice() {
            ["apis", group, _] => g == group,
            ["api", _] => true,
            _ => false,
        });
        return Ok(if known {
            exchange.refuse(&copepod_meta::Status::no_such_path())
        } else {
            crate::routes::not_found()
        });
    };
    let etag = exchange.header(IF_NONE_MATCH);
    Ok(respond(&encoded, &document, etag, &style))
}

fn respond(encoded: &Encoded, document: &Document, if_none_match: &str, style: &Style) -> Answer {
    let Document::Aggregated { version, .. } = document else {
        return answer::whole(StatusCode::OK, encoded.bytes.clone(), style);
    };
    let mut answer = if if_none_match == encoded.etag {
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        let mut answer = answer::whole(StatusCode::OK, encoded.bytes.clone(), style);
        let mime = format!(
            "{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList",
            style.accepted.media.mime()
        );
        if let Ok(mime) = HeaderValue::from_str(&mime) {
            answer.headers_mut().insert(http::header::CONTENT_TYPE, mime);
        }
        answer
    };
    let headers = answer.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&encoded.etag) {
        headers.insert(ETAG, etag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answer
}

impl Discovery {
    /// The document, made now or before; `None`: no such group or version.
    fn document(&self, server: &Server, document: &Document, media: Media) -> Option<Arc<Encoded>> {
        let table = server.registry.table();
        // YAML is made of JSON.
        let media = if media == Media::Protobuf { Media::Protobuf } else { Media::Json };
        let mut made = self.made.lock();
        if made.generation != table.generation {
            *made = Made { generation: table.generation, documents: HashMap::new() };
        }
        let key = (document.clone(), media);
        if let Some(found) = made.documents.get(&key) {
            return Some(Arc::clone(found));
        }
        let encoded = Arc::new(encode(document, &table, media, &server.config.external_host)?);
        made.documents.insert(key, Arc::clone(&encoded));
        Some(encoded)
    }

    /// Every path of the legacy tree.
    pub fn paths(&self, server: &Server) -> Vec<String> {
        let table = server.registry.table();
        let mut out = vec!["/api".to_string(), "/apis".to_string(), "/apis/".to_string()];
        for (group, versions) in groups(&table) {
            match group.as_str() {
                "" => out.extend(versions.iter().map(|v| format!("/api/{v}"))),
                group => {
                    out.push(format!("/apis/{group}"));
                    out.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
                }
            }
        }
        out
    }
}

/// Groups in discovery's order with their versions, preferred ones first.
pub fn groups(table: &Table) -> Vec<(String, Vec<String>)> {
    let mut out: Vec<(String, Vec<String>)> = copepod_schema::groups()
        .iter()
        .map(|g| (g.name.to_string(), g.versions.iter().map(ToString::to_string).collect()))
        .collect();
    for row in table.rows() {
        let (group, version) = (&row.resource.group, &row.version().version);
        match out.iter_mut().find(|(g, _)| g == group) {
            None => out.push((group.to_string(), vec![version.to_string()])),
            Some((_, versions)) if !versions.iter().any(|v| v == version) => {
                versions.push(version.to_string())
            }
            Some(_) => {}
        }
    }
    // A version without any resource is not served (switched off by `--runtime-config`).
    for (group, versions) in &mut out {
        versions.retain(|v| rows(table, group, v).next().is_some());
    }
    out.retain(|(_, versions)| !versions.is_empty());
    out
}

fn rows<'a>(table: &'a Table, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Served>> {
    table.rows().iter().filter(move |r| r.resource.group == group && r.version().version == version)
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

fn encode(document: &Document, table: &Table, media: Media, host: &str) -> Option<Encoded> {
    let groups = groups(table);
    let versions_of = |group: &str| groups.iter().find(|(g, _)| g == group).map(|(_, v)| v.clone());
    let (value, name, gvk) = match document {
        Document::Versions => {
            (versions(&versions_of("")?, host), format!("{META}APIVersions"), Gvk::new("", "", "APIVersions"))
        }
        Document::Groups => {
            let listed = groups.iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group(g, v)).collect();
            let mut value = Value::map();
            value.set(&["groups"], Value::List(listed));
            (value, format!("{META}APIGroupList"), Gvk::new("", "v1", "APIGroupList"))
        }
        Document::Group(name) => {
            let value = group(name, &versions_of(name).filter(|_| !name.is_empty())?);
            (value, format!("{META}APIGroup"), Gvk::new("", "v1", "APIGroup"))
        }
        Document::Resources(group, version) => {
            versions_of(group)?.contains(version).then_some(())?;
            // The legacy group is older than type meta.
            let resources_version = if group.is_empty() { "" } else { "v1" };
            (
                resources(table, group, version),
                format!("{META}APIResourceList"),
                Gvk::new("", resources_version, "APIResourceList"),
            )
        }
        Document::Aggregated { core, version } => {
            let listed = groups.iter().filter(|(g, _)| g.is_empty() == *core);
            let items = listed.map(|(g, versions)| aggregated(table, g, versions)).collect();
            let mut value = Value::map();
            value.set(&["metadata"], Value::map());
            value.set(&["items"], Value::List(items));
            let name = format!("io.k8s.api.apidiscovery.{version}.APIGroupDiscoveryList");
            (value, name, Gvk::new("apidiscovery.k8s.io", version, "APIGroupDiscoveryList"))
        }
    };
    let ty = answer::builtin(&name);
    let Some(ty) = ty else {
        tracing::error!(name, "a type of discovery is not among the facts");
        return None;
    };
    let bytes = copepod_codec::encode(&value, Universe::builtin(), ty, Some(&gvk), media.codec());
    match bytes {
        Ok(bytes) => {
            // Of the JSON without type meta, whatever the form. upstream: discovery/aggregated/etag.go
            let hashed =
                copepod_codec::encode(&value, Universe::builtin(), ty, None, copepod_codec::Media::Json);
            let hashed = hashed.unwrap_or_else(|_| bytes.clone());
            let hashed = hashed.strip_suffix(b"\n").unwrap_or(&hashed);
            let digest: Vec<String> = Sha512::digest(hashed).iter().map(|b| format!("{b:02X}")).collect();
            Some(Encoded { etag: format!("\"{}\"", digest.concat()), bytes })
        }
        Err(error) => {
            tracing::error!(name, %error, "a document of discovery cannot be encoded");
            None
        }
    }
}

fn texts<'a>(items: impl Iterator<Item = &'a str>) -> Value {
    Value::List(items.map(Value::string).collect())
}

fn versions(versions: &[String], host: &str) -> Value {
    let mut address = Value::map();
    address.set(&["clientCIDR"], "0.0.0.0/0");
    address.set(&["serverAddress"], host);
    let mut value = Value::map();
    value.set(&["versions"], texts(versions.iter().map(String::as_str)));
    value.set(&["serverAddressByClientCIDRs"], vec![address]);
    value
}

fn group(name: &str, versions: &[String]) -> Value {
    let version = |v: &String| {
        let mut value = Value::map();
        value.set(&["groupVersion"], format!("{name}/{v}"));
        value.set(&["version"], v.as_str());
        value
    };
    let mut value = Value::map();
    value.set(&["name"], name);
    value.set(&["versions"], versions.iter().map(version).collect::<Vec<_>>());
    value.set(&["preferredVersion"], versions.first().map(version).unwrap_or_default());
    value
}

fn resources(table: &Table, group: &str, version: &str) -> Value {
    let mut items: Vec<(String, Value)> = Vec::new();
    for row in rows(table, group, version) {
        let (facts, own) = (&row.resource, row.version());
        let mut value = Value::map();
        value.set(&["name"], facts.plural.as_ref());
        value.set(&["singularName"], facts.singular.as_ref());
        value.set(&["namespaced"], facts.namespaced);
        value.set(&["kind"], facts.kind.as_ref());
        value.set(&["verbs"], texts(own.verbs.iter().map(AsRef::as_ref)));
        set_texts(&mut value, "shortNames", &facts.short_names);
        set_texts(&mut value, "categories", &facts.categories);
        if !own.storage_version_hash.is_empty() {
            value.set(&["storageVersionHash"], own.storage_version_hash.as_ref());
        }
        items.push((facts.plural.to_string(), value));
        for sub in &own.subresources {
            let name = format!("{}/{}", facts.plural, sub.name);
            let mut value = Value::map();
            value.set(&["name"], name.as_str());
            value.set(&["singularName"], "");
            value.set(&["namespaced"], facts.namespaced);
            if sub.states_group_version {
                value.set(&["group"], sub.group.as_ref());
                value.set(&["version"], sub.version.as_ref());
            }
            value.set(&["kind"], sub.kind.as_ref());
            value.set(&["verbs"], texts(sub.verbs.iter().map(AsRef::as_ref)));
            items.push((name, value));
        }
    }
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let mut value = Value::map();
    let group_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    value.set(&["groupVersion"], group_version);
    value.set(&["resources"], items.into_iter().map(|(_, v)| v).collect::<Vec<_>>());
    value
}

fn set_texts(value: &mut Value, name: &str, items: &[copepod_schema::Name]) {
    if !items.is_empty() {
        value.set(&[name], texts(items.iter().map(AsRef::as_ref)));
    }
}

/// upstream: endpoints/discovery/aggregated, endpoints/installer.go ConvertGroupVersionIntoToDiscovery
fn aggregated(table: &Table, group: &str, versions: &[String]) -> Value {
    let version = |v: &String| {
        let mut resources: Vec<&Arc<Served>> = rows(table, group, v).collect();
        resources.sort_by(|a, b| a.resource.plural.cmp(&b.resource.plural));
        let mut value = Value::map();
        value.set(&["version"], v.as_str());
        value.set(&["resources"], resources.iter().map(|r| aggregated_resource(r)).collect::<Vec<_>>());
        value.set(&["freshness"], "Current");
        value
    };
    let mut value = Value::map();
    value.set(&["metadata"], Value::map());
    if !group.is_empty() {
        value.set(&["metadata", "name"], group);
    }
    value.set(&["versions"], versions.iter().map(version).collect::<Vec<_>>());
    value
}

fn aggregated_resource(row: &Served) -> Value {
    let (facts, own) = (&row.resource, row.version());
    let kind = |group: &str, version: &str, kind: &str| {
        let mut value = Value::map();
        value.set(&["group"], group);
        value.set(&["version"], version);
        value.set(&["kind"], kind);
        value
    };
    let mut value = Value::map();
    value.set(&["resource"], facts.plural.as_ref());
    // Group and version are left out where they are the surrounding ones.
    value.set(&["responseKind"], kind("", "", &facts.kind));
    value.set(&["scope"], if facts.namespaced { "Namespaced" } else { "Cluster" });
    value.set(&["singularResource"], facts.singular.as_ref());
    value.set(&["verbs"], texts(own.verbs.iter().map(AsRef::as_ref)));
    set_texts(&mut value, "shortNames", &facts.short_names);
    set_texts(&mut value, "categories", &facts.categories);
    let subresource = |sub: &copepod_schema::Subresource| {
        let mut value = Value::map();
        value.set(&["subresource"], sub.name.as_ref());
        let (group, version) = if sub.states_group_version { (&*sub.group, &*sub.version) } else { ("", "") };
        value.set(&["responseKind"], kind(group, version, &sub.kind));
        value.set(&["verbs"], texts(sub.verbs.iter().map(AsRef::as_ref)));
        value
    };
    if !own.subresources.is_empty() {
        value.set(&["subresources"], own.subresources.iter().map(subresource).collect::<Vec<_>>());
    }
    value
}
