//! What `/metrics` shows of requests, under upstream's names.
//!
//! upstream: apiserver/pkg/endpoints/metrics/metrics.go

use copepod_schema::Stage;
use copepod_serve::metrics::{Counter, Family, Gauge, Histogram, REQUEST_SECONDS, Registry};

use crate::exchange::Exchange;
use crate::request_info::RequestInfo;

/// Instruments of the request road.
pub struct Metrics {
    /// Everything that is shown.
    pub registry: Registry,
    requests: Family<Counter>,
    seconds: Family<Histogram>,
    /// By kind: `readOnly`, `mutating`.
    pub inflight: Family<Gauge>,
    long_running: Family<Gauge>,
    /// Requests by user, as authentication counts them.
    pub authenticated: Family<Counter>,
    /// Outcomes: `success`, `failure`, `error`.
    pub authentications: Family<Counter>,
    /// Requests cut short: by code.
    terminations: Family<Counter>,
    /// Events sent to watchers.
    pub watch_events: Family<Counter>,
}

const LABELS: &[&str] =
    &["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];

impl Metrics {
    /// Declares them.
    pub fn new(version: &'static str, enabled: impl Fn(&str) -> bool) -> Metrics {
        let registry = Registry::new();
        registry.process();
        let features = registry.gauges(
            "kubernetes_feature_enabled",
            "[BETA] This metric records the data about the stage and enablement of a k8s feature.",
            &["name", "stage"],
        );
        for gate in copepod_schema::feature_gates() {
            let stage = match gate.stage {
                Stage::Alpha => "ALPHA",
                Stage::Beta => "BETA",
                Stage::Stable => "",
                Stage::Deprecated => "DEPRECATED",
            };
            let on = enabled(&gate.name);
            features.with(&[&gate.name, stage]).set(if on { 1.0 } else { 0.0 });
        }
        let build = registry.gauges(
            "kubernetes_build_info",
            "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
            &["build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor", "platform"],
        );
        let (date, compiler, state) =
            (crate::version::BUILD_DATE, crate::version::COMPILER, crate::version::TREE_STATE);
        build
            .with(&[date, compiler, "", state, version, compiler, "1", "36", crate::version::PLATFORM])
            .set(1.0);
        Metrics {
            requests: registry.counters(
                "apiserver_request_total",
                "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"],
            ),
            seconds: registry.histograms(
                "apiserver_request_duration_seconds",
                "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                LABELS,
                REQUEST_SECONDS,
            ),
            inflight: registry.gauges(
                "apiserver_current_inflight_requests",
                "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
                &["request_kind"],
            ),
            long_running: registry.gauges(
                "apiserver_longrunning_requests",
                "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                &["component", "group", "resource", "scope", "subresource", "verb", "version"],
            ),
            authenticated: registry.counters(
                "authenticated_user_requests",
                "[ALPHA] Counter of authenticated requests broken out by username.",
                &["username"],
            ),
            authentications: registry.counters(
                "authentication_attempts",
                "[ALPHA] Counter of authenticated attempts.",
                &["result"],
            ),
            watch_events: registry.counters(
                "apiserver_watch_events_total",
                "[ALPHA] Number of events sent in watch clients",
                &["group", "resource", "version"],
            ),
            terminations: registry.counters(
                "apiserver_request_terminations_total",
                "[ALPHA] Number of requests which apiserver terminated in self-defense.",
                &["code", "component", "group", "resource", "scope", "subresource", "verb", "version"],
            ),
            registry,
        }
    }

    /// Counts a finished request.
    pub fn finished(&self, labels: &Labels, code: u16, seconds: f64) {
        let (mut digits, code) = ([0u8; 3], code.min(999));
        for (i, digit) in digits.iter_mut().enumerate() {
            *digit = b'0' + ((code / [100, 10, 1][i]) % 10) as u8;
        }
        let code = std::str::from_utf8(&digits).unwrap_or("0");
        let l = labels.values();
        self.requests.with(&[code, l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7]]).inc();
        // Watches last as long as they last.
        if labels.verb != "WATCH" {
            self.seconds.with(&l).observe(seconds);
        }
    }

    /// Counts a request that was ended by the server itself.
    pub fn terminated(&self, labels: &Labels, code: &str) {
        let l = labels.values();
        self.terminations.with(&[code, l[0], l[2], l[3], l[4], l[5], l[6], l[7]]).inc();
    }

    /// One more long-running request, until the guard is dropped.
    pub fn long_running(&self, labels: &Labels) -> Guard {
        let l = labels.values();
        Guard::new(self.long_running.with(&[l[0], l[2], l[3], l[4], l[5], l[6], l[7]]))
    }
}

/// Takes back what it added.
pub struct Guard(std::sync::Arc<Gauge>);

impl Guard {
    /// Adds one now.
    pub fn new(gauge: std::sync::Arc<Gauge>) -> Guard {
        gauge.add(1.0);
        Guard(gauge)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// The labels of one request. Only what the server knows becomes a label: a path that nothing serves does not.
#[derive(Clone, Debug)]
pub struct Labels {
    component: &'static str,
    dry_run: &'static str,
    group: String,
    resource: String,
    scope: &'static str,
    subresource: String,
    verb: &'static str,
    version: String,
}

impl Labels {
    /// From the request; `known`: whether the resource is served.
    pub fn new(exchange: &Exchange, known: bool) -> Labels {
        let info = &exchange.info;
        let text = |s: &str| if known { s.to_string() } else { String::new() };
        Labels {
            component: if info.is_resource { "apiserver" } else { "" },
            dry_run: exchange
                .query
                .first("dryRun")
                .map_or("", |v| if v == "All" { "All" } else { "invalid" }),
            group: text(&info.group),
            resource: text(&info.resource),
            scope: info.scope(),
            subresource: if info.is_resource {
                text(&info.subresource)
            } else {
                fixed_path(&info.path).to_string()
            },
            verb: verb(info, exchange),
            version: text(&info.version),
        }
    }

    fn values(&self) -> [&str; 8] {
        [
            self.component,
            self.dry_run,
            &self.group,
            &self.resource,
            self.scope,
            &self.subresource,
            self.verb,
            &self.version,
        ]
    }
}

/// upstream: endpoints/metrics/metrics.go CleanVerb, CanonicalVerb
fn verb(info: &RequestInfo, exchange: &Exchange) -> &'static str {
    match info.verb.as_str() {
        _ if info.is_resource && info.subresource == "proxy" => "PROXY",
        "list" => "LIST",
        "watch" => "WATCH",
        "deletecollection" => "DELETECOLLECTION",
        "patch" if exchange.header(http::header::CONTENT_TYPE) == "application/apply-patch+yaml" => "APPLY",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "get" if matches!(info.subresource.as_str(), "exec" | "attach" | "portforward") => "CONNECT",
        "get" | "head" => "GET",
        _ => "other",
    }
}

/// Paths that are a label of their own.
fn fixed_path(path: &str) -> &str {
    match path {
        "/healthz" | "/livez" | "/readyz" | "/metrics" | "/version" => path,
        _ => "",
    }
}
