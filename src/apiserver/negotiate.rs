//! Which form an answer takes and which form a body has.
//!
//! upstream: apiserver/pkg/endpoints/handlers/negotiation/negotiate.go

use copepod_meta::{Gvk, Status};
use copepod_registry::{BodyMedia, Include, PatchType};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

/// A wire form of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// In the order in which a wildcard chooses.
const SERVED: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];
/// YAML documents cannot be told apart in a stream.
const STREAMED: [Media; 2] = [Media::Json, Media::Protobuf];

/// Clauses of an `Accept` header that are looked at; browsers send ten.
const CLAUSES_MAX: usize = 64;

impl Media {
    /// The media type.
    pub fn mime(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
    /// What objects are kept in to be sent so.
    pub fn stored(self) -> copepod_schema::Media {
        match self {
            Media::Json | Media::Yaml => copepod_schema::Media::Json,
            Media::Protobuf => copepod_schema::Media::Protobuf,
        }
    }
    /// The codec's word for it.
    pub fn codec(self) -> copepod_codec::Media {
        match self {
            Media::Json => copepod_codec::Media::Json,
            Media::Yaml => copepod_codec::Media::Yaml,
            Media::Protobuf => copepod_codec::Media::Protobuf,
        }
    }
}

/// What a client wants to see instead of the object itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transform {
    /// `as=Table`
    Table {
        /// `v1` or `v1beta1`
        version: String,
        /// `includeObject`
        include: Include,
    },
    /// `as=PartialObjectMetadata`, or `...List`
    Partial {
        /// `v1` or `v1beta1`
        version: String,
    },
}

/// The outcome of negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How to encode.
    pub media: Media,
    /// For people.
    pub pretty: bool,
    /// What to show.
    pub transform: Option<Transform>,
    /// `as`, `g`, `v` as sent, for endpoints with types of their own (discovery).
    pub convert: Option<Gvk>,
}

impl Accepted {
    /// JSON, as errors are written when nothing was negotiated.
    pub fn json(pretty: bool) -> Accepted {
        Accepted { media: Media::Json, pretty, transform: None, convert: None }
    }
}

/// What an endpoint can do beyond plain objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offers {
    /// Nothing.
    Plain,
    /// Tables and metadata.
    Transforms,
    /// Metadata only.
    Metadata,
    /// Aggregated discovery documents.
    Discovery,
}

/// Chooses by `Accept`; `Err` is the 406.
pub fn accept(headers: &HeaderMap, query: &[(String, String)], offers: Offers) -> Result<Accepted, Status> {
    choose(headers, query, offers, &SERVED).ok_or_else(|| {
        let supported: Vec<&str> = SERVED.iter().map(|m| m.mime()).collect();
        Status::not_acceptable(&supported)
    })
}

/// What a route says that it can produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routable {
    /// JSON only.
    Json,
    /// All forms.
    Objects,
    /// All forms, and those that stream.
    Streams,
}

/// What upstream's router says to clients that accept none of a route's media types, whatever their parameters.
pub fn ensure_routable(headers: &HeaderMap, routable: Routable) -> Result<(), Status> {
    let header = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let produced = if routable == Routable::Json { &SERVED[..1] } else { &SERVED[..] };
    // A lone star is a wildcard to the handlers behind, but not to the router.
    let covers = |c: &Clause| !c.is_star && produced.iter().any(|m| c.covers(*m));
    if header.is_empty() || clauses(header).iter().any(covers) {
        return Ok(());
    }
    let mut served: Vec<String> = produced.iter().map(|m| m.mime().to_string()).collect();
    if routable == Routable::Streams {
        served.extend(STREAMED.iter().map(|m| format!("{};stream=watch", m.mime())));
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", served.join(", "));
    let mut status = Status::new(406, copepod_meta::Reason::NotAcceptable, message);
    status.details = Some(Box::default());
    Err(status)
}

/// Chooses the form of a watch.
pub fn accept_stream(headers: &HeaderMap, query: &[(String, String)]) -> Result<Accepted, Status> {
    match accept(headers, query, Offers::Transforms)? {
        accepted if STREAMED.contains(&accepted.media) => Ok(accepted),
        _ => {
            let supported: Vec<String> =
                STREAMED.iter().map(|m| format!("{};stream=watch", m.mime())).collect();
            let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
            Err(Status::not_acceptable(&supported))
        }
    }
}

fn choose(
    headers: &HeaderMap,
    query: &[(String, String)],
    offers: Offers,
    served: &[Media],
) -> Option<Accepted> {
    let pretty = is_pretty(headers, query);
    let header = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    if header.is_empty() {
        return Some(Accepted::json(pretty));
    }
    for clause in clauses(header) {
        for &media in served {
            if !clause.covers(media) {
                continue;
            }
            if let Some((mut accepted, own_pretty)) = clause.accepted(media, offers, query) {
                accepted.pretty = own_pretty || pretty;
                return Some(accepted);
            }
        }
    }
    None
}

struct Clause<'a> {
    ty: &'a str,
    subtype: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
    /// `*` alone.
    is_star: bool,
}

/// The clauses of an `Accept` header, best first; equally good ones as sent.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause> = header.split(',').take(CLAUSES_MAX).filter_map(clause).collect();
    let specific = |c: &Clause| (c.ty != "*", c.subtype != "*");
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality).then_with(|| specific(b).cmp(&specific(a))));
    out
}

/// The types and subtypes of an `Accept` header, best first.
pub fn types_by_quality(header: &str) -> Vec<(&str, &str)> {
    clauses(header).iter().map(|clause| (clause.ty, clause.subtype)).collect()
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';');
    let media = parts.next()?.trim();
    let (ty, subtype) = if media == "*" { ("*", "*") } else { media.split_once('/')? };
    let mut clause = Clause { ty, subtype, params: Vec::new(), quality: 1.0, is_star: media == "*" };
    for param in parts {
        let Some((key, value)) = param.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if key == "q" {
            clause.quality = value.parse().unwrap_or(1.0);
        } else {
            clause.params.push((key, value));
        }
    }
    Some(clause)
}

impl Clause<'_> {
    fn covers(&self, media: Media) -> bool {
        let (ty, subtype) = media.mime().split_once('/').unwrap_or_default();
        (self.ty == "*" && self.subtype == "*")
            || (self.ty == ty && (self.subtype == "*" || self.subtype == subtype))
    }

    /// Whether this clause's parameters can be met in `media`, and whether they ask for prettiness.
    fn accepted(&self, media: Media, offers: Offers, query: &[(String, String)]) -> Option<(Accepted, bool)> {
        let mut convert: Option<Gvk> = None;
        let mut pretty = false;
        for &(key, value) in &self.params {
            match key {
                "as" => convert.get_or_insert_default().kind = value.into(),
                "g" => convert.get_or_insert_default().group = value.into(),
                "v" => convert.get_or_insert_default().version = value.into(),
                "stream" if !value.is_empty() && (media == Media::Yaml || value != "watch") => return None,
                "sv" if !value.is_empty() => return None,
                "pretty" => pretty = value == "1",
                _ => {}
            }
        }
        let transform = match &convert {
            None => None,
            Some(gvk) => match offers {
                Offers::Plain => return None,
                Offers::Discovery => {
                    let served = gvk.group == "apidiscovery.k8s.io"
                        && gvk.kind == "APIGroupDiscoveryList"
                        && gvk.version == "v2";
                    if !served {
                        return None;
                    }
                    None
                }
                Offers::Metadata if gvk.kind == "Table" => return None,
                Offers::Transforms | Offers::Metadata => Some(transform(gvk, media, query)?),
            },
        };
        Some((Accepted { media, pretty: false, transform, convert }, pretty))
    }
}

/// upstream: apiserver/pkg/endpoints/handlers/rest.go RequestScope.AllowsMediaTypeTransform
fn transform(gvk: &Gvk, media: Media, query: &[(String, String)]) -> Option<Transform> {
    if gvk.group != "meta.k8s.io" || !matches!(gvk.version.as_str(), "v1" | "v1beta1") {
        return None;
    }
    let version = gvk.version.clone();
    match gvk.kind.as_str() {
        // A Table has no protobuf form.
        "Table" if media != Media::Protobuf => {
            let asked = query.iter().find(|(k, _)| k == "includeObject").map(|(_, v)| v.as_str());
            let include = match asked.unwrap_or("") {
                "None" => Include::None,
                "Object" => Include::Object,
                _ => Include::Metadata,
            };
            Some(Transform::Table { version, include })
        }
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Transform::Partial { version }),
        _ => None,
    }
}

/// `?pretty=`, or a client behind which a person sits.
pub fn is_pretty(headers: &HeaderMap, query: &[(String, String)]) -> bool {
    let asked = query.iter().find(|(k, _)| k == "pretty").map(|(_, v)| v.as_str()).unwrap_or("");
    if !asked.is_empty() {
        return copepod_serve::flags::go_bool(asked).unwrap_or(false);
    }
    let agent = headers.get(USER_AGENT).map_or(&b""[..], |v| v.as_bytes());
    [&b"curl"[..], b"Wget", b"Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

/// Whether a gzipped answer is welcome. upstream: handlers/responsewriters/writers.go negotiateContentEncoding
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let header = headers.get(http::header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("");
    header.split(',').any(|token| token.trim() == "gzip")
}

fn content_type(headers: &HeaderMap) -> &str {
    let header = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    header.split(';').next().unwrap_or("").trim()
}

/// Whether the header can be read: a type, and parameters that are pairs. upstream: mime.ParseMediaType
fn is_media_type(header: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    let mut parts = header.split(';').map(str::trim);
    let has_type = parts.next().is_some_and(|media| media.split('/').all(is_token));
    let mut rest = parts.peekable();
    has_type
        && std::iter::from_fn(|| rest.next().map(|part| (part, rest.peek().is_none()))).all(|(part, last)| {
            let is_pair = part.split_once('=').is_some_and(|(key, value)| {
                is_token(key.trim_end())
                    && (is_token(value)
                        || (value.len() > 1 && value.starts_with('"') && value.ends_with('"')))
            });
            is_pair || (last && part.is_empty())
        })
}

/// How a body is encoded; none said is JSON. `Err` is the 415.
pub fn body_media(headers: &HeaderMap) -> Result<BodyMedia, Status> {
    let header = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let media = content_type(headers).to_ascii_lowercase();
    match media.as_str() {
        _ if !header.is_empty() && !is_media_type(header) => Err(unsupported()),
        "" | "application/json" => Ok(BodyMedia::Json),
        "application/yaml" => Ok(BodyMedia::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyMedia::Protobuf),
        _ => Err(unsupported()),
    }
}

fn unsupported() -> Status {
    let supported: Vec<&str> = SERVED.iter().map(|m| m.mime()).collect();
    Status::unsupported_media_type(&supported)
}

/// How a patch is meant, and how it is encoded. upstream: handlers/patch.go PatchResource
pub fn patch_type(headers: &HeaderMap) -> Result<(PatchType, BodyMedia), Status> {
    match content_type(headers) {
        "application/json-patch+json" => Ok((PatchType::Json, BodyMedia::Json)),
        "application/merge-patch+json" => Ok((PatchType::Merge, BodyMedia::Json)),
        "application/strategic-merge-patch+json" => Ok((PatchType::Strategic, BodyMedia::Json)),
        "application/apply-patch+yaml" => Ok((PatchType::Apply, BodyMedia::Yaml)),
        _ => {
            // Upstream's router knows a patch route's types; no handler is asked.
            let message = "415: Unsupported Media Type";
            let mut status = Status::new(415, copepod_meta::Reason::UnsupportedMediaType, message);
            status.details = Some(Box::default());
            Err(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &str, query: &str, offers: Offers) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("header"));
        match super::accept(&headers, &copepod_meta::url::query_pairs(query), offers) {
            Err(status) => status.message,
            Ok(a) => {
                let transform = match a.transform {
                    None => String::new(),
                    Some(Transform::Table { version, include }) => format!(" table {version} {include:?}"),
                    Some(Transform::Partial { version }) => format!(" partial {version}"),
                };
                format!("{}{transform}{}", a.media.mime(), if a.pretty { " pretty" } else { "" })
            }
        }
    }

    #[test]
    fn accept_headers_choose_as_upstream() {
        let refused = "only the following media types are accepted: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf";
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, query, want) in [
            ("*/*", "", "application/json"),
            ("application/*", "", "application/json"),
            ("application/yaml", "", "application/yaml"),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                "",
                "application/vnd.kubernetes.protobuf",
            ),
            ("application/json;q=0.5, application/yaml", "", "application/yaml"),
            ("text/html,application/xhtml+xml,*/*;q=0.8", "", "application/json"),
            ("text/plain", "", refused),
            (table, "", "application/json table v1 Metadata"),
            (table, "includeObject=Object", "application/json table v1 Object"),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", "", refused),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", "", refused),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                "",
                "application/vnd.kubernetes.protobuf partial v1",
            ),
            ("application/json;pretty=1", "", "application/json pretty"),
            ("application/json", "pretty=true", "application/json pretty"),
            ("application/json;stream=watch", "", "application/json"),
            ("application/json;stream=foo", "", refused),
        ] {
            assert_eq!(ask(accept, query, Offers::Transforms), want, "{accept}?{query}");
        }
        assert_eq!(ask(table, "", Offers::Plain), "application/json");
        assert_eq!(ask(table, "", Offers::Metadata), "application/json");
    }
}
