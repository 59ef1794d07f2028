//! client-go's correlation of Events: similar ones are combined, equal ones counted, floods cut off. Pure.
//!
//! upstream: client-go/tools/record/events_cache.go EventCorrelator

use std::collections::{BTreeSet, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// Entries of each cache.
const CACHE_MAX: usize = 4096;
/// So many events that differ in their message only, within [`AGGREGATE_INTERVAL`], are combined.
const AGGREGATE_MAX: usize = 10;
const AGGREGATE_INTERVAL: SignedDuration = SignedDuration::from_mins(10);
/// Events of one source about one object: a burst, then one in five minutes.
const SPAM_BURST: f64 = 25.0;
const SPAM_PER_SECOND: f64 = 1.0 / 300.0;

/// An event ready to be written: created if its count is 1, else patched.
pub(super) struct Correlated {
    pub event: Event,
    pub key: String,
}

#[derive(Default)]
pub(super) struct Correlator {
    aggregates: Cache<Aggregate>,
    seen: Cache<Seen>,
    spam: Cache<Bucket>,
}

struct Aggregate {
    messages: BTreeSet<String>,
    last: Timestamp,
}

/// What the server has of an event.
#[derive(Clone)]
struct Seen {
    count: i32,
    first: Option<Time>,
    name: Option<String>,
    resource_version: Option<String>,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Correlator {
    /// The event to write for `event`, or nothing if its source says too much about its object.
    pub(super) fn correlate(&mut self, event: Event, now: Timestamp) -> Option<Correlated> {
        let (mut event, key) = self.aggregate(event, now);
        if let Some(seen) = self.seen.get(&key) {
            event.metadata.name = seen.name.clone();
            event.metadata.resource_version = seen.resource_version.clone();
            event.first_timestamp = seen.first.clone();
            event.count = Some(seen.count + 1);
        }
        self.remember(&key, &event);
        self.accept(&event, now).then_some(Correlated { event, key })
    }

    /// Notes what the server answered.
    pub(super) fn written(&mut self, key: &str, event: &Event) {
        self.remember(key, event);
    }

    fn remember(&mut self, key: &str, event: &Event) {
        let seen = Seen {
            count: event.count.unwrap_or(1),
            first: event.first_timestamp.clone(),
            name: event.metadata.name.clone(),
            resource_version: event.metadata.resource_version.clone(),
        };
        self.seen.put(key.to_owned(), seen);
    }

    fn aggregate(&mut self, event: Event, now: Timestamp) -> (Event, String) {
        let message = event.message.clone().unwrap_or_default();
        let reason = event.reason.as_deref().unwrap_or_default();
        let base = source_and_object(&event);
        let aggregate_key = format!("{base}/{reason}");
        let event_key = format!("{base}/{}/{reason}/{message}", field_path(&event));

        let mut aggregate = self
            .aggregates
            .take(&aggregate_key)
            .filter(|aggregate| now.duration_since(aggregate.last) <= AGGREGATE_INTERVAL)
            .unwrap_or(Aggregate { messages: BTreeSet::new(), last: now });
        aggregate.messages.insert(message.clone());
        aggregate.last = now;
        let combine = aggregate.messages.len() >= AGGREGATE_MAX;
        if combine {
            aggregate.messages.pop_first();
        }
        self.aggregates.put(aggregate_key.clone(), aggregate);
        if !combine {
            return (event, event_key);
        }
        let combined = Event {
            metadata: ObjectMeta {
                name: Some(super::event_name(event.involved_object.name.as_deref().unwrap_or_default(), now)),
                namespace: event.metadata.namespace,
                ..Default::default()
            },
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            message: Some(format!("(combined from similar events): {message}")),
            involved_object: event.involved_object,
            type_: event.type_,
            reason: event.reason,
            source: event.source,
            ..Default::default()
        };
        (combined, aggregate_key)
    }

    fn accept(&mut self, event: &Event, now: Timestamp) -> bool {
        let key = source_and_object(event);
        let mut bucket = self.spam.take(&key).unwrap_or(Bucket { tokens: SPAM_BURST, at: now });
        let refilled = now.duration_since(bucket.at).as_secs_f64() * SPAM_PER_SECOND;
        bucket.tokens = (bucket.tokens + refilled).min(SPAM_BURST);
        bucket.at = now;
        let accept = bucket.tokens >= 1.0;
        if accept {
            bucket.tokens -= 1.0;
        }
        self.spam.put(key, bucket);
        accept
    }
}

fn field_path(event: &Event) -> &str {
    event.involved_object.field_path.as_deref().unwrap_or_default()
}

fn source_and_object(event: &Event) -> String {
    let source = event.source.as_ref();
    let object = &event.involved_object;
    [
        source.and_then(|s| s.component.as_deref()),
        source.and_then(|s| s.host.as_deref()),
        object.kind.as_deref(),
        object.namespace.as_deref(),
        object.name.as_deref(),
        object.uid.as_deref(),
        object.api_version.as_deref(),
        event.type_.as_deref(),
    ]
    .map(Option::unwrap_or_default)
    .join("/")
}

/// A map of at most [`CACHE_MAX`] entries: the one written longest ago goes first.
struct Cache<V> {
    entries: HashMap<String, (u64, V)>,
    order: VecDeque<(u64, String)>,
    clock: u64,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), clock: 0 }
    }
}

impl<V> Cache<V> {
    fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    fn take(&mut self, key: &str) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    fn put(&mut self, key: String, value: V) {
        self.clock += 1;
        self.order.push_back((self.clock, key.clone()));
        self.entries.insert(key, (self.clock, value));
        while self.entries.len() > CACHE_MAX || self.order.len() > 4 * CACHE_MAX {
            let Some((clock, key)) = self.order.pop_front() else { return };
            let newest = self.entries.get(&key).is_some_and(|(at, _)| *at == clock);
            if newest && self.entries.len() > CACHE_MAX {
                self.entries.remove(&key);
            } else if newest {
                self.order.push_back((clock, key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(object: &str, reason: &str, message: &str) -> Event {
        let mut event = Event::default();
        event.metadata.name = Some(format!("{object}.{reason}.{message}"));
        event.involved_object.name = Some(object.to_owned());
        event.reason = Some(reason.to_owned());
        event.message = Some(message.to_owned());
        event.count = Some(1);
        event
    }

    /// `(object, reason, message, seconds since the first)` in; `count message` out, `-` if nothing is written.
    #[test]
    fn events_are_counted_combined_and_cut_off() {
        let start = Timestamp::from_second(1_767_225_600).expect("a time");
        let run = |steps: Vec<(&str, &str, String, i64)>| {
            let mut correlator = Correlator::default();
            let mut out = Vec::new();
            for (object, reason, message, after) in steps {
                let now = start + SignedDuration::from_secs(after);
                out.push(match correlator.correlate(event(object, reason, &message), now) {
                    None => "-".to_owned(),
                    Some(c) => {
                        format!("{} {}", c.event.count.unwrap_or(0), c.event.message.unwrap_or_default())
                    }
                });
            }
            out
        };
        let again =
            run(vec![("p", "R", "m".into(), 0), ("p", "R", "m".into(), 1), ("q", "R", "m".into(), 2)]);
        assert_eq!(again, ["1 m", "2 m", "1 m"], "equal events are counted by object");

        let many = run((0..12).map(|n| ("p", "R", format!("m{n}"), n)).collect());
        assert_eq!(many[8], "1 m8");
        assert_eq!(many[9], "1 (combined from similar events): m9", "the tenth message is combined");
        assert_eq!(many[10], "2 (combined from similar events): m10");

        let flood = run((0..27).map(|_| ("p", "R", "m".to_owned(), 0)).collect());
        assert_eq!(flood[24], "25 m");
        assert_eq!(flood[25..], ["-", "-"], "the burst is over");
        let later = run((0..26).map(|n| ("p", "R", "m".to_owned(), if n == 25 { 300 } else { 0 })).collect());
        assert_eq!(later[25], "26 m", "one more after five minutes");
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut cache = Cache::default();
        for n in 0..CACHE_MAX * 3 {
            cache.put("hot".to_owned(), n);
            cache.put(n.to_string(), n);
        }
        assert_eq!(cache.entries.len(), CACHE_MAX);
        assert!(cache.order.len() <= 4 * CACHE_MAX);
        assert!(cache.get("hot").is_some() && cache.get("0").is_none());
    }
}
