//! Why a request failed, typed, on its way to the HTTP edge where it becomes a `Status`.
//!
//! A [`Status`] carries upstream's code, reason, message and details. It is built by the constructors below only, whose
//! texts are upstream's (apimachinery/pkg/api/errors/errors.go); nothing ever parses the message back.

use crate::field::{ErrorList, quote};
use crate::{GroupResource, Map, Value};

/// Machine-readable reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the wire's own words")]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The wire's word, "" for unknown.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::StoreReadError => "StorageReadError",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One cause within a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// `FieldValueInvalid`, `UnexpectedServerResponse`, ...
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field, if there is one.
    pub field: String,
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Object name.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource (upstream puts the plural here for most, the kind for Invalid).
    pub kind: String,
    /// Object uid.
    pub uid: String,
    /// The single causes.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again; also the Retry-After header.
    pub retry_after_seconds: u32,
    /// `metadata.continue` of an expired list: goes on at the newest state instead.
    pub continue_token: String,
}

/// A refusal or failure as the client will see it.
///
/// What the log should hold beyond it (the source error) is logged where it happens; this never carries secrets or
/// internals of the machine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
}

impl Status {
    /// A status with a message and no details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: None }
    }
    fn about(mut self, resource: &GroupResource, name: &str) -> Status {
        let kind = resource.resource.clone();
        let details =
            Details { name: name.into(), group: resource.group.clone(), kind, ..Details::default() };
        self.details = Some(Box::new(details));
        self
    }
    fn causes(mut self, causes: Vec<Cause>) -> Status {
        self.details.get_or_insert_default().causes = causes;
        self
    }
    /// Sets `retryAfterSeconds`.
    pub fn retry_after(mut self, seconds: u32) -> Status {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// 404: `pods "x" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Status {
        Status::new(404, Reason::NotFound, format!("{resource} {name} not found", name = quote(name)))
            .about(resource, name)
    }
    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Status {
        Status::new(404, Reason::NotFound, "the server could not find the requested resource")
            .about(&GroupResource::default(), "")
    }
    /// 409: `pods "x" already exists`.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Status {
        Status::new(
            409,
            Reason::AlreadyExists,
            format!("{resource} {name} already exists", name = quote(name)),
        )
        .about(resource, name)
    }
    /// 409 for generateName that found no free name.
    /// upstream: NewGenerateNameConflict
    pub fn generate_name_conflict(resource: &GroupResource, name: &str) -> Status {
        let message = format!(
            "{resource} {name} already exists, the server was not able to generate a unique name for the object",
            name = quote(name)
        );
        Status::new(409, Reason::AlreadyExists, message).about(resource, name).retry_after(1)
    }
    /// 409: `Operation cannot be fulfilled on pods "x": why`.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Status {
        let message =
            format!("Operation cannot be fulfilled on {resource} {name}: {why}", name = quote(name));
        Status::new(409, Reason::Conflict, message).about(resource, name)
    }
    /// 409 of server-side apply: the conflicting fields are causes.
    pub fn apply_conflict(causes: Vec<Cause>, message: String) -> Status {
        Status::new(409, Reason::Conflict, message).causes(causes)
    }
    /// 401.
    pub fn unauthorized() -> Status {
        Status::new(401, Reason::Unauthorized, "Unauthorized")
    }
    /// 403: `pods "x" is forbidden: why`.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Status {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {name} is forbidden: {why}", name = quote(name)),
        };
        Status::new(403, Reason::Forbidden, message).about(resource, name)
    }
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, Reason::BadRequest, message)
    }
    /// 405: verb not supported on the resource.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Status {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Status::new(405, Reason::MethodNotAllowed, message).about(resource, "")
    }
    /// 406: the Accept header names nothing that is served.
    pub fn not_acceptable(supported: &[&str]) -> Status {
        let message = format!("only the following media types are accepted: {}", supported.join(", "));
        Status::new(406, Reason::NotAcceptable, message)
    }
    /// 415: the body's media type is not understood.
    pub fn unsupported_media_type(supported: &[&str]) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            supported.join(", ")
        );
        Status::new(415, Reason::UnsupportedMediaType, message)
    }
    /// 413.
    pub fn request_entity_too_large(limit: usize) -> Status {
        Status::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }
    /// 422: `Pod "x" is invalid: ...` with a cause a field.
    /// upstream: NewInvalid
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Status {
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.as_str().into(), message: e.body(), field: e.field.clone() })
            .collect();
        let qualified = GroupResource::new(group, kind);
        let message = format!("{qualified} {} is invalid: {}", quote(name), aggregate(errors));
        Status::new(422, Reason::Invalid, message).about(&qualified, name).causes(causes)
    }
    /// 500: `Internal error occurred: why`.
    pub fn internal(why: impl std::fmt::Display) -> Status {
        let cause = Cause { reason: String::new(), message: why.to_string(), field: String::new() };
        Status::new(500, Reason::InternalError, format!("Internal error occurred: {why}")).causes(vec![cause])
    }
    /// 410: the resourceVersion or continue token is too old.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, Reason::Expired, message)
    }
    /// 504: gave up waiting.
    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let status = Status::new(504, Reason::Timeout, format!("Timeout: {}", message.into()));
        if retry_after_seconds > 0 { status.retry_after(retry_after_seconds) } else { status }
    }
    /// 504: asked for a revision that the server has not seen.
    /// upstream: apiserver/pkg/storage/errors.go NewTooLargeResourceVersionError
    pub fn too_large_resource_version(asked: u64, current: u64, retry_after_seconds: u32) -> Status {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let cause = Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        };
        Status::timeout(message, retry_after_seconds).causes(vec![cause])
    }
    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let message = message.into();
        Status::new(429, Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }
    /// 503.
    pub fn service_unavailable(why: impl Into<String>) -> Status {
        Status::new(503, Reason::ServiceUnavailable, why)
    }
    /// 501 by name: upstream does this, we do not yet.
    pub fn not_implemented(what: &str) -> Status {
        Status::new(501, Reason::Unknown, format!("{what} is not implemented by this server"))
    }

    /// The `Status` object (`v1`), without type meta.
    pub fn to_value(&self) -> Value {
        let mut out = Map::default();
        out.insert("metadata", Value::map());
        if let Some(details) = self.details.as_ref().filter(|d| !d.continue_token.is_empty()) {
            out.insert("metadata", Map::from_iter([("continue", details.continue_token.as_str())]));
        }
        out.insert("status", if self.code < 400 { "Success" } else { "Failure" });
        if !self.message.is_empty() {
            out.insert("message", self.message.as_str());
        }
        if self.reason != Reason::Unknown {
            out.insert("reason", self.reason.as_str());
        }
        // Details that only carry the token are none on the wire.
        let shown = |d: &&Details| d.continue_token.is_empty() || !d.to_value().is_empty();
        if let Some(details) = self.details.as_deref().filter(shown) {
            out.insert("details", details.to_value());
        }
        out.insert("code", i64::from(self.code));
        Value::Map(out)
    }
}

impl Details {
    fn to_value(&self) -> Map {
        let texts = [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)];
        let mut out: Map =
            texts.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, Value::string(v))).collect();
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self.causes.iter().map(|c| Value::Map(c.to_value())).collect();
            out.insert("causes", causes);
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds", i64::from(self.retry_after_seconds));
        }
        out
    }
}

impl Cause {
    fn to_value(&self) -> Map {
        let texts = [("reason", &self.reason), ("message", &self.message), ("field", &self.field)];
        texts.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, Value::string(v))).collect()
    }
}

/// One error as it is, several in brackets, equal messages once.
/// upstream: apimachinery/pkg/util/errors Aggregate
fn aggregate(errors: &ErrorList) -> String {
    let mut seen: Vec<String> = Vec::with_capacity(errors.len());
    for message in errors.iter().map(ToString::to_string) {
        if !seen.contains(&message) {
            seen.push(message);
        }
    }
    match seen.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
