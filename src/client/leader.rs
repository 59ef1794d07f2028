//! Leader election on a coordination.k8s.io/v1 Lease, as client-go does it.
//!
//! Invariants:
//! * the lease is taken and renewed by PUT with the resourceVersion that was read: of two candidates one wins;
//! * a lease counts as expired only when *this* program has seen it unchanged for its whole duration on the local
//!   monotonic clock: the other side's clock does not matter;
//! * work is told to end when the lease could not be renewed for the renew deadline, which is shorter than the duration
//!   after which another candidate may take it.
//!
//! upstream: client-go/tools/leaderelection/leaderelection.go LeaderElector

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Shutdown;
use crate::rest::{self, ResourceType};

const LEASES: ResourceType = ResourceType::namespaced("coordination.k8s.io", "v1", "leases");
/// Candidates spread their tries by so much of the retry period. upstream: leaderelection.go JitterFactor
const JITTER_FACTOR: f64 = 1.2;

/// What is elected and how fast.
#[derive(Debug, Clone)]
pub struct Config {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// This candidate; unique among all.
    pub identity: String,
    /// How long a silent leader keeps the lease.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Wait between two tries.
    pub retry_period: Duration,
    /// Give the lease back when told to end, so that another candidate need not wait.
    pub release_on_cancel: bool,
}

impl Config {
    /// Upstream's durations: 15 s, 10 s, 2 s. The lease is released on shutdown.
    pub fn new(namespace: &str, name: &str, identity: String) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity,
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            release_on_cancel: true,
        }
    }
}

/// An identity as upstream's programs make it: host name and a random part.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:032x}", host.trim(), rand::random::<u128>())
}

/// How an election ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The shutdown token was cancelled, or the work ended by itself.
    Ended,
    /// The lease was lost: another program may lead now, so this one should exit.
    Lost,
}

/// Waits to become leader, then runs `work` until `shutdown` or until the lease is lost; `work`'s token tells it to end.
pub async fn run<F, W>(client: Client, config: Config, shutdown: Shutdown, work: W) -> Outcome
where
    F: Future<Output = ()>,
    W: FnOnce(Shutdown) -> F,
{
    let mut elector = Elector { client, config, observed: None };
    tracing::info!(lease = %elector.describe(), "attempting to acquire leader lease");
    loop {
        if shutdown.is_cancelled() {
            return Outcome::Ended;
        }
        if elector.try_acquire_or_renew().await {
            break;
        }
        let wait = elector.config.retry_period.mul_f64(1.0 + JITTER_FACTOR * rand::random::<f64>());
        tokio::select! {
            () = shutdown.cancelled() => return Outcome::Ended,
            () = tokio::time::sleep(wait) => {}
        }
    }
    tracing::info!(lease = %elector.describe(), "acquired leader lease");

    let token = shutdown.child_token();
    let outcome = {
        let working = work(token.clone());
        tokio::pin!(working);
        let outcome = tokio::select! {
            () = &mut working => Some(Outcome::Ended),
            () = shutdown.cancelled() => None,
            () = elector.renew() => {
                tracing::error!(lease = %elector.describe(), "leader lease lost");
                token.cancel();
                return Outcome::Lost;
            }
        };
        // The lease is kept while the last turns end.
        match outcome {
            Some(outcome) => outcome,
            None => {
                tokio::select! {
                    () = &mut working => {}
                    () = elector.renew() => return Outcome::Lost,
                }
                Outcome::Ended
            }
        }
    };
    if elector.config.release_on_cancel {
        elector.release().await;
    }
    outcome
}

struct Elector {
    client: Client,
    config: Config,
    observed: Option<Observed>,
}

/// The lease as it was last seen to change, and when that was on the local clock.
struct Observed {
    lease: Value,
    at: Instant,
}

impl Elector {
    fn describe(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    /// Renews until it fails for the whole renew deadline.
    async fn renew(&mut self) {
        let mut deadline = Instant::now() + self.config.renew_deadline;
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            match tokio::time::timeout_at(deadline, self.try_acquire_or_renew()).await {
                Ok(true) => deadline = Instant::now() + self.config.renew_deadline,
                Ok(false) if Instant::now() < deadline => {}
                _ => return,
            }
        }
    }

    async fn try_acquire_or_renew(&mut self) -> bool {
        // The leader's fast path: nobody else writes a valid lease, so the version seen last is the newest.
        if let Some(observed) = &self.observed
            && holder(&observed.lease) == self.config.identity
            && self.is_valid(observed)
        {
            match self.write(renewed(&observed.lease, &self.config, Timestamp::now())).await {
                Ok(()) => return true,
                Err(error) => tracing::debug!(%error, "lease not renewed at once, reading it again"),
            }
        }
        match self.acquire_from_server().await {
            Ok(acquired) => acquired,
            Err(error) => {
                let error = rest::message(&error);
                tracing::warn!(lease = %self.describe(), error, "could not read or write the leader lease");
                false
            }
        }
    }

    async fn acquire_from_server(&mut self) -> Result<bool, kube::Error> {
        let (namespace, name) = (&self.config.namespace, &self.config.name);
        let lease: Value = match rest::get(&self.client, &LEASES, namespace, name).await {
            Ok(lease) => lease,
            Err(error) if rest::is_not_found(&error) => {
                let fresh = renewed(&new_lease(&self.config), &self.config, Timestamp::now());
                let lease = rest::create(&self.client, &LEASES, namespace, &fresh).await?;
                self.observe(lease);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if self.observed.as_ref().is_none_or(|seen| seen.lease["spec"] != lease["spec"]) {
            self.observe(lease.clone());
        }
        let holder = holder(&lease).to_owned();
        let valid = self.observed.as_ref().is_some_and(|observed| self.is_valid(observed));
        if !holder.is_empty() && holder != self.config.identity && valid {
            return Ok(false);
        }
        match self.write(renewed(&lease, &self.config, Timestamp::now())).await {
            Ok(()) => Ok(true),
            Err(error) if rest::is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, lease: Value) -> Result<(), kube::Error> {
        let (namespace, name) = (&self.config.namespace, &self.config.name);
        let lease = rest::update(&self.client, &LEASES, namespace, name, "", &lease).await?;
        self.observe(lease);
        Ok(())
    }

    fn observe(&mut self, lease: Value) {
        self.observed = Some(Observed { lease, at: Instant::now() });
    }

    fn is_valid(&self, observed: &Observed) -> bool {
        let seconds = observed.lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(0);
        observed.at + Duration::from_secs(seconds) > Instant::now()
    }

    /// Leaves an empty holder behind, so that the next candidate takes the lease at its next try.
    async fn release(&mut self) {
        let Some(observed) = &self.observed else { return };
        if holder(&observed.lease) != self.config.identity {
            return;
        }
        let lease = released(&observed.lease, Timestamp::now());
        let written = tokio::time::timeout(self.config.renew_deadline, self.write(lease)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!(lease = %self.describe(), ?written, "leader lease not released, it will expire");
        }
    }
}

fn new_lease(config: &Config) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": config.name, "namespace": config.namespace },
        "spec": {},
    })
}

fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

/// `lease` as this candidate writes it: its own if it holds it already, taken over otherwise.
fn renewed(lease: &Value, config: &Config, now: Timestamp) -> Value {
    let mut lease = lease.clone();
    let own = holder(&lease) == config.identity;
    let fresh = lease["spec"].as_object().is_none_or(serde_json::Map::is_empty);
    let now = micro_time(now);
    let spec = &mut lease["spec"];
    if !own {
        let transitions = spec["leaseTransitions"].as_i64().unwrap_or(0);
        spec["leaseTransitions"] = json!(if fresh { 0 } else { transitions + 1 });
        spec["acquireTime"] = json!(now);
        spec["holderIdentity"] = json!(config.identity);
    }
    spec["leaseDurationSeconds"] = json!(config.lease_duration.as_secs());
    spec["renewTime"] = json!(now);
    lease
}

fn released(lease: &Value, now: Timestamp) -> Value {
    let mut lease = lease.clone();
    let now = micro_time(now);
    let spec = &mut lease["spec"];
    spec["holderIdentity"] = json!("");
    spec["leaseDurationSeconds"] = json!(1);
    spec["renewTime"] = json!(now);
    spec["acquireTime"] = json!(now);
    lease
}

/// A MicroTime as the API writes it.
pub(crate) fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_written_as_client_go_writes_it() {
        let now = Timestamp::from_microsecond(1_767_225_600_000_001).expect("a time");
        let config = Config::new("kube-system", "x", "me".into());
        let spec = |lease: &Value| lease["spec"].clone();
        let taken = json!({"holderIdentity":"me","leaseDurationSeconds":15,"leaseTransitions":4,
            "acquireTime":"2026-01-01T00:00:00.000001Z","renewTime":"2026-01-01T00:00:00.000001Z"});
        for (name, before, want) in [
            ("fresh", json!({}), {
                let mut fresh = taken.clone();
                fresh["leaseTransitions"] = json!(0);
                fresh
            }),
            ("taken over", json!({"holderIdentity":"you","leaseTransitions":3}), taken.clone()),
            (
                "own, with a field of a newer server",
                json!({"holderIdentity":"me","leaseTransitions":3,"acquireTime":"then","strategy":"s"}),
                json!({"holderIdentity":"me","leaseTransitions":3,"acquireTime":"then","strategy":"s",
                    "leaseDurationSeconds":15,"renewTime":"2026-01-01T00:00:00.000001Z"}),
            ),
        ] {
            assert_eq!(spec(&renewed(&json!({"spec": before}), &config, now)), want, "{name}");
        }
        let mut given_back = taken.clone();
        given_back["holderIdentity"] = json!("");
        given_back["leaseDurationSeconds"] = json!(1);
        assert_eq!(spec(&released(&json!({"spec": taken}), now)), given_back);
    }
}
