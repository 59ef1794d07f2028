//! One request on its way through the filters and into the handlers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use copepod_meta::{Status, User};
use copepod_registry::{Caller, Warnings};
use copepod_serve::ConnectionInfo;
use http::HeaderMap;
use http::request::Parts;

use crate::answer::{self, Answer, Style};
use crate::negotiate::{self, Accepted};
use crate::query::Query;
use crate::request_info::RequestInfo;

/// A request with everything that was found out about it.
pub struct Exchange {
    /// Method, URI, headers, extensions.
    pub parts: Parts,
    /// What it is about.
    pub info: RequestInfo,
    /// The decoded query.
    pub query: Query,
    /// Who asks; `system:anonymous` until authenticated.
    pub user: Arc<User>,
    /// How the client is connected.
    pub connection: ConnectionInfo,
    /// When it came.
    pub received: Instant,
    /// When the client will have given up; `None`: never.
    pub deadline: Option<Instant>,
    /// What the client is to be warned of.
    pub warnings: Warnings,
}

impl Exchange {
    /// From a request without its body.
    pub fn new(mut parts: Parts) -> Exchange {
        let connection = parts.extensions.remove().unwrap_or_else(ConnectionInfo::in_process);
        let query = Query::new(parts.uri.query().unwrap_or(""));
        Exchange {
            parts,
            info: RequestInfo::default(),
            query,
            user: Arc::default(),
            connection,
            received: Instant::now(),
            deadline: None,
            warnings: Warnings::default(),
        }
    }

    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A header as text, "" if absent or no text.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// Time until the deadline.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|d| d.saturating_duration_since(Instant::now()))
    }

    /// What the registry wants to know of the client.
    pub fn caller(&self) -> Caller {
        Caller {
            user: Arc::clone(&self.user),
            user_agent: self.header(http::header::USER_AGENT).to_string(),
            path: self.info.path.clone(),
            warnings: self.warnings.clone(),
            deadline: self.deadline,
        }
    }

    /// The style of an answer whose form has been negotiated.
    pub fn style(&self, accepted: Accepted) -> Style {
        Style { accepted, gzip: negotiate::accepts_gzip(self.headers()) }
    }

    /// A refusal in whatever form the client understands, JSON if it understands none.
    pub fn refuse(&self, refusal: &Status) -> Answer {
        let accepted = negotiate::accept(self.headers(), &self.query.0, negotiate::Offers::Plain);
        let accepted = accepted.unwrap_or_else(|_| Accepted::json(true));
        answer::status(refusal, &self.style(accepted))
    }
}
