//! How fast nodes may be given up: the state of each zone, and how many `NoExecute` taints it gets a second.
//!
//! A zone where most nodes fall silent at once says more about the network than about the nodes, so that taints come
//! slower there. When no node of the whole cluster is heard, it is this program that hears nothing: then nobody is
//! evicted at all. Owns counts, states and token buckets; does not read a clock or write a node. Counting is done as
//! nodes change, so that a look costs as much as there are zones, not nodes.
//!
//! upstream: node_lifecycle_controller.go handleDisruption, ComputeZoneState, ReducedQPSFunc

use std::collections::HashMap;
use std::time::Duration;

use copepod_client::object::Key;
use tokio::time::Instant;

/// The flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Nodes a second in a zone that is well.
    pub(super) normal: f64,
    /// Nodes a second in a large zone that is not.
    pub(super) secondary: f64,
    /// A zone of more nodes is large; a small one that is not well loses no node at all.
    pub(super) large_zone: usize,
    /// The share of silent nodes from which a zone is not well.
    pub(super) unhealthy_share: f64,
}

/// A node as its zone counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Ready,
    NotReady,
    /// Carries the label that leaves it out.
    Excluded,
}

/// What has changed for all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    None,
    /// No node is ready any more: taints are taken away, and none is set until [`Turn::Resume`].
    Stop,
    /// Some node is ready again: all get their whole grace period anew.
    Resume,
    /// The rate of some zone.
    Rates,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Initial,
    Normal,
    Partial,
    Full,
}

struct Zone {
    ready: usize,
    not_ready: usize,
    state: State,
    bucket: Bucket,
}

impl Zone {
    fn state_now(&self, rates: &Rates) -> State {
        #[expect(clippy::cast_precision_loss, reason = "nodes are counted in thousands")]
        let share = self.not_ready as f64 / (self.not_ready + self.ready) as f64;
        match (self.ready, self.not_ready) {
            (0, 1..) => State::Full,
            (_, 3..) if share >= rates.unhealthy_share => State::Partial,
            _ => State::Normal,
        }
    }

    /// Nodes a second.
    fn rate(&self, state: State, rates: &Rates) -> f64 {
        match state {
            State::Partial if self.ready + self.not_ready > rates.large_zone => rates.secondary,
            State::Partial => 0.0,
            State::Initial | State::Normal | State::Full => rates.normal,
        }
    }
}

/// A token bucket that holds one.
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: f64, now: Instant) -> Self {
        Self { rate, tokens: 1.0, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens, self.at) = ((self.tokens + passed * self.rate).min(1.0), now);
    }

    /// Another rate; who waited goes on waiting. upstream: rate_limited_queue.go SwapLimiter
    fn change(&mut self, rate: f64, now: Instant) {
        if (rate - self.rate).abs() > f64::EPSILON {
            self.fill(now);
            let waited = self.tokens < 1.0 || self.rate <= 0.0;
            *self = Self { rate, tokens: if waited { 0.0 } else { 1.0 }, at: now };
        }
    }

    fn take(&mut self, now: Instant) -> Result<(), Option<Duration>> {
        if self.rate <= 0.0 {
            return Err(None);
        }
        self.fill(now);
        if self.tokens < 1.0 {
            return Err(Some(Duration::from_secs_f64((1.0 - self.tokens) / self.rate)));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// All zones.
pub(super) struct Zones {
    rates: Rates,
    zones: HashMap<String, Zone>,
    nodes: HashMap<Key, (String, Health)>,
    stopped: bool,
}

impl Zones {
    pub(super) fn new(rates: Rates) -> Self {
        Self { rates, zones: HashMap::new(), nodes: HashMap::new(), stopped: false }
    }

    /// Notes where a node is and how it does; `None` when it is gone.
    pub(super) fn set(&mut self, key: &Key, node: Option<(String, Health)>, now: Instant) {
        let before = match &node {
            Some(node) => self.nodes.insert(key.clone(), node.clone()),
            None => self.nodes.remove(key),
        };
        if let Some((zone, health)) = before
            && let Some(zone) = self.zones.get_mut(&zone)
            && let Some(count) = zone.count(health)
        {
            *count -= 1;
        }
        if let Some((zone, health)) = node {
            let rate = self.rates.normal;
            let fresh =
                || Zone { ready: 0, not_ready: 0, state: State::Initial, bucket: Bucket::full(rate, now) };
            if let Some(count) = self.zones.entry(zone).or_insert_with(fresh).count(health) {
                *count += 1;
            }
        }
    }

    /// Draws the conclusions from what was noted since the last call.
    pub(super) fn settle(&mut self, now: Instant) -> Turn {
        let rates = self.rates;
        let mut counted: Vec<_> =
            self.zones.values_mut().filter(|zone| zone.ready + zone.not_ready > 0).collect();
        if counted.is_empty() {
            return Turn::None;
        }
        let was_stopped = counted.iter().all(|zone| zone.state == State::Full);
        let stops = counted.iter().all(|zone| zone.state_now(&rates) == State::Full);
        if stops {
            for zone in &mut counted {
                zone.state = State::Full;
                zone.bucket.change(0.0, now);
            }
            let entered = !was_stopped || !self.stopped;
            self.stopped = true;
            return if entered { Turn::Stop } else { Turn::None };
        }
        let mut changed = false;
        for zone in counted {
            let state = zone.state_now(&rates);
            if self.stopped || zone.state != state {
                zone.state = state;
                zone.bucket.change(zone.rate(state, &rates), now);
                changed = true;
            }
        }
        match (std::mem::take(&mut self.stopped), changed) {
            (true, _) => Turn::Resume,
            (false, true) => Turn::Rates,
            (false, false) => Turn::None,
        }
    }

    /// Whether no node at all is heard.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a node of the zone may be tainted now. If not: when to ask again, or not before the next [`Turn`].
    pub(super) fn take(&mut self, key: &Key, now: Instant) -> Result<(), Option<Duration>> {
        let Some((zone, _)) = self.nodes.get(key) else { return Err(None) };
        self.zones.get_mut(zone).map_or(Err(None), |zone| zone.bucket.take(now))
    }
}

impl Zone {
    fn count(&mut self, health: Health) -> Option<&mut usize> {
        match health {
            Health::Ready => Some(&mut self.ready),
            Health::NotReady => Some(&mut self.not_ready),
            Health::Excluded => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { normal: 0.1, secondary: 0.01, large_zone: 5, unhealthy_share: 0.55 };

    /// Steps: `a+++--` sets the nodes of zone a (`+` ready, `-` not ready, `x` excluded), `a?` takes a token for its
    /// first node, `@N` lets N seconds pass, `!` settles.
    fn check(steps: &str, want: &str) {
        let (mut zones, mut now) = (Zones::new(RATES), Instant::now());
        let mut shown = Vec::new();
        for step in steps.split_whitespace() {
            let (zone, rest) = step.split_at(1);
            match (zone, rest) {
                ("@", seconds) => now += Duration::from_secs(seconds.parse().expect("seconds")),
                ("!", _) => shown.push(format!("{:?}", zones.settle(now))),
                (zone, "?") => shown.push(match zones.take(&Key::from(format!("{zone}0").as_str()), now) {
                    Ok(()) => "yes".into(),
                    Err(None) => "never".into(),
                    Err(Some(wait)) => format!("{}s", wait.as_secs_f64().round()),
                }),
                (zone, nodes) => {
                    for (i, sign) in nodes.chars().enumerate() {
                        let health = match sign {
                            '+' => Health::Ready,
                            '-' => Health::NotReady,
                            _ => Health::Excluded,
                        };
                        let key = Key::from(format!("{zone}{i}").as_str());
                        let node = (sign != '.').then(|| (zone.to_owned(), health));
                        zones.set(&key, node, now);
                    }
                }
            }
        }
        assert_eq!(shown.join(" "), want, "{steps}");
    }

    #[test]
    fn zones_slow_down_and_stop_as_upstreams_do() {
        for (steps, want) in [
            ("!", "None"),
            ("a++ !", "Rates"),
            ("a++ ! !", "Rates None"),
            // One node every ten seconds.
            ("a+++- ! a? a? @4 a? @6 a?", "Rates yes 10s 6s yes"),
            // The only node of a cluster is never given up.
            ("a+ ! a- ! a?", "Rates Stop never"),
            ("a- ! a- !", "Stop None"),
            ("a+ ! a- ! a+ ! a? @10 a?", "Rates Stop Resume 10s yes"),
            // Two silent nodes are not yet a bad zone; three of five are, and a small zone then loses nobody.
            ("a++-- ! a?", "Rates yes"),
            ("a++--- ! a?", "Rates never"),
            ("a++--- ! a+++-- ! a? @10 a?", "Rates Rates 10s yes"),
            // A large zone goes on slowly.
            ("a+++++++ ! a++----- ! @100 a? a?", "Rates Rates yes 100s"),
            // A silent zone beside one that is heard is given up at the normal rate.
            ("a++ b-- ! b? @10 b?", "Rates yes yes"),
            ("a++ b-- ! a-- ! b? b++ ! a?", "Rates Stop never Resume 10s"),
            // Excluded nodes count for nothing, nodes that are gone neither.
            ("axx !", "None"),
            ("a+-- ! a.-- !", "Rates Stop"),
        ] {
            check(steps, want);
        }
    }
}
