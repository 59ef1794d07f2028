//! `/healthz`, `/livez`, `/readyz`: named checks, in upstream's text.
//!
//! upstream: apiserver/pkg/server/healthz/healthz.go
//!
//! A check reads state that others keep; it does no work of its own and never waits, so that a probe costs nothing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::RwLock;

type CheckFn = dyn Fn() -> Result<(), String> + Send + Sync;

#[derive(Clone)]
struct Check {
    name: String,
    /// Until then the check passes for liveness whatever it says.
    grace_until: Option<Instant>,
    check: Arc<CheckFn>,
}

/// One health endpoint and its checks, in the order in which they were added.
#[derive(Clone)]
pub struct Health {
    /// `healthz`, `livez` or `readyz`.
    name: &'static str,
    checks: Arc<RwLock<Vec<Check>>>,
}

/// The answer to a probe.
#[derive(Debug, PartialEq, Eq)]
pub struct HealthAnswer {
    /// 200 or 500; 404 for a check that does not exist.
    pub code: StatusCode,
    /// `text/plain; charset=utf-8`, with `X-Content-Type-Options: nosniff`.
    pub text: String,
}

/// A condition that becomes true once, as a check: `Flag::new("not started")`.
#[derive(Clone, Debug)]
pub struct Flag {
    set: Arc<AtomicBool>,
    otherwise: &'static str,
}

impl Flag {
    /// Not yet set; a check on it fails with `otherwise`.
    pub fn new(otherwise: &'static str) -> Flag {
        Flag { set: Arc::default(), otherwise }
    }
    /// From now on the check passes.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
    }
    /// Whether it has been set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }
    /// The check.
    pub fn check(&self) -> Result<(), String> {
        if self.is_set() { Ok(()) } else { Err(self.otherwise.into()) }
    }
}

impl Health {
    /// An endpoint without checks: it always passes.
    pub fn new(name: &'static str) -> Health {
        Health { name, checks: Arc::default() }
    }

    /// Adds a check.
    pub fn add(&self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.push(name, None, Arc::new(check));
    }

    /// Adds a check that cannot fail within `grace` from now. For liveness while the process starts.
    pub fn add_after(
        &self,
        name: &str,
        grace: Duration,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let until = (!grace.is_zero()).then(|| Instant::now() + grace);
        self.push(name, until, Arc::new(check));
    }

    fn push(&self, name: &str, grace_until: Option<Instant>, check: Arc<CheckFn>) {
        self.checks.write().push(Check { name: name.into(), grace_until, check });
    }

    /// Whether every check passes.
    pub fn passes(&self) -> bool {
        self.checks.read().iter().all(|c| c.run().is_ok())
    }

    /// The answer to `/<name>?<query>`.
    pub fn answer(&self, query: &str) -> HealthAnswer {
        let mut verbose = false;
        let mut excluded: Vec<String> = Vec::new();
        for (key, value) in copepod_meta::url::query_pairs(query) {
            match key.as_str() {
                "verbose" => verbose = true,
                "exclude" => excluded.push(value),
                _ => {}
            }
        }
        excluded.sort();
        excluded.dedup();
        let mut unknown = excluded.clone();
        let (mut text, mut failed) = (String::new(), Vec::new());
        for check in self.checks.read().iter() {
            if excluded.contains(&check.name) {
                unknown.retain(|n| *n != check.name);
                line(&mut text, format_args!("[+]{} excluded: ok", check.name));
            } else if let Err(why) = check.run() {
                // Probes are public: the reason goes to the log only.
                line(&mut text, format_args!("[-]{} failed: reason withheld", check.name));
                failed.push(format!("{}: {why}", check.name));
            } else {
                line(&mut text, format_args!("[+]{} ok", check.name));
            }
        }
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|n| format!("{n:?}")).collect();
            let names = names.join(",");
            line(
                &mut text,
                format_args!("warn: some health checks cannot be excluded: no matches for {names}"),
            );
        }
        if !failed.is_empty() {
            tracing::info!(endpoint = self.name, failed = failed.join("; "), "health check failed");
            line(&mut text, format_args!("{} check failed", self.name));
            return HealthAnswer { code: StatusCode::INTERNAL_SERVER_ERROR, text };
        }
        if !verbose {
            return HealthAnswer { code: StatusCode::OK, text: "ok".into() };
        }
        line(&mut text, format_args!("{} check passed", self.name));
        HealthAnswer { code: StatusCode::OK, text }
    }

    /// The answer to `/<name>/<check>`; `None` when there is no such check.
    pub fn answer_one(&self, check: &str) -> Option<HealthAnswer> {
        let found = self.checks.read().iter().find(|c| c.name == check).cloned()?;
        Some(match found.run() {
            Ok(()) => HealthAnswer { code: StatusCode::OK, text: "ok".into() },
            Err(why) => HealthAnswer {
                code: StatusCode::INTERNAL_SERVER_ERROR,
                text: format!("internal server error: {why}\n"),
            },
        })
    }

    /// `healthz`, `livez` or `readyz`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The names of the checks, in order.
    pub fn names(&self) -> Vec<String> {
        self.checks.read().iter().map(|c| c.name.clone()).collect()
    }
}

impl Check {
    fn run(&self) -> Result<(), String> {
        if self.grace_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        (self.check)()
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_upstreams() {
        let health = Health::new("readyz");
        let flag = Flag::new("not finished");
        let check = flag.clone();
        health.add("ping", || Ok(()));
        health.add("poststarthook/x", move || check.check());
        for (query, code, text) in [
            ("", 500, "[+]ping ok\n[-]poststarthook/x failed: reason withheld\nreadyz check failed\n"),
            ("exclude=poststarthook/x", 200, "ok"),
            (
                "exclude=poststarthook%2Fx&verbose",
                200,
                "[+]ping ok\n[+]poststarthook/x excluded: ok\nreadyz check passed\n",
            ),
        ] {
            let answer = health.answer(query);
            assert_eq!((answer.code.as_u16(), answer.text.as_str()), (code, text), "{query}");
        }
        assert_eq!(
            health.answer_one("poststarthook/x").map(|a| a.text),
            Some("internal server error: not finished\n".into())
        );
        flag.set();
        assert_eq!(health.answer("").text, "ok");
        assert_eq!(
            health.answer("verbose=1&exclude=b&exclude=a").text,
            "[+]ping ok\n[+]poststarthook/x ok\nwarn: some health checks cannot be excluded: no matches for \
             \"a\",\"b\"\nreadyz check passed\n"
        );
        assert_eq!(health.answer_one("none"), None);
    }
}
