//! Events of events.k8s.io/v1 with series: the same thing happening again is a count, not another object.
//!
//! upstream: client-go/tools/events/event_broadcaster.go

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{EventType, QUEUED_MAX, RETRY_WAIT, TRIES_MAX};
use crate::Shutdown;
use crate::leader::micro_time;
use crate::rest::{self, PatchType, ResourceType};

const EVENTS: ResourceType = ResourceType::namespaced("events.k8s.io", "v1", "events");
/// A series that was silent so long is finished. upstream: event_broadcaster.go finishTime
const SERIES_END: Duration = Duration::from_secs(6 * 60);
/// A running series is written so often. upstream: event_broadcaster.go refreshTime
const SERIES_REFRESH: Duration = Duration::from_secs(30 * 60);
/// Series remembered; beyond it the oldest are finished early.
const SERIES_MAX: usize = 16 * 1024;

/// Records events.k8s.io/v1 Events. Clones share the queue.
#[derive(Clone)]
pub struct SchedulingRecorder {
    controller: String,
    instance: String,
    queue: mpsc::Sender<Occurrence>,
}

struct Occurrence {
    key: String,
    event: Value,
    at: Timestamp,
}

impl SchedulingRecorder {
    /// A recorder that reports as `controller`; its task ends with `shutdown`.
    pub fn new(client: Client, controller: &str, shutdown: Shutdown) -> Self {
        let (queue, occurrences) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(write_series(client, occurrences, shutdown));
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { controller: controller.to_owned(), instance: format!("{controller}-{}", host.trim()), queue }
    }

    /// Records that `action` on `regarding` had the outcome `reason`.
    pub fn event(
        &self,
        regarding: &ObjectReference,
        related: Option<&ObjectReference>,
        kind: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let now = Timestamp::now();
        let name = super::event_name(regarding.name.as_deref().unwrap_or_default(), now);
        let namespace = regarding.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": { "name": name, "namespace": namespace },
            "eventTime": micro_time(now),
            "reportingController": self.controller, "reportingInstance": self.instance,
            "action": action, "reason": reason, "regarding": regarding, "related": related,
            "note": note, "type": kind.as_str(),
        });
        let key = format!("{}/{action}/{reason}/{}/{}", kind.as_str(), event["regarding"], event["related"]);
        if let Err(error) = self.queue.try_send(Occurrence { key, event, at: now }) {
            tracing::warn!(%error, "event dropped");
        }
    }
}

/// An event that was written, and what happened of it since.
struct Series {
    namespace: String,
    name: String,
    /// 1 until it happens again.
    count: i64,
    last: Timestamp,
    /// Whether the server does not have the newest count.
    unwritten: bool,
}

impl Series {
    fn patch(&self) -> Value {
        json!({ "series": { "count": self.count, "lastObservedTime": micro_time(self.last) } })
    }
}

async fn write_series(client: Client, mut occurrences: mpsc::Receiver<Occurrence>, shutdown: Shutdown) {
    let mut known: HashMap<String, Series> = HashMap::new();
    let mut refreshed = tokio::time::Instant::now();
    let mut finish = tokio::time::interval(SERIES_END);
    loop {
        let occurrence = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = finish.tick(), if !known.is_empty() => {
                let refresh = refreshed.elapsed() >= SERIES_REFRESH;
                if refresh {
                    refreshed = tokio::time::Instant::now();
                }
                sweep(&client, &mut known, refresh).await;
                continue;
            }
            occurrence = occurrences.recv() => occurrence,
        };
        let Some(Occurrence { key, event, at }) = occurrence else { return };
        match known.get_mut(&key) {
            // The second occurrence is written at once, later ones only counted.
            Some(series) => {
                series.count += 1;
                series.last = at;
                series.unwritten = true;
                if series.count == 2 && patch(&client, series).await {
                    series.unwritten = false;
                }
            }
            None => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let series = Series {
                    namespace: text(&event["metadata"]["namespace"]),
                    name: text(&event["metadata"]["name"]),
                    count: 1,
                    last: at,
                    unwritten: false,
                };
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = create(&client, &series.namespace, &event) => {}
                }
                if known.len() >= SERIES_MAX {
                    sweep(&client, &mut known, true).await;
                    known.clear();
                }
                known.insert(key, series);
            }
        }
    }
}

async fn create(client: &Client, namespace: &str, event: &Value) {
    for _ in 0..TRIES_MAX {
        match rest::create::<serde::de::IgnoredAny>(client, &EVENTS, namespace, event).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) => {
                tracing::warn!(message = %status.message, "the server refused an event");
                return;
            }
            Err(error) => tracing::debug!(%error, "event not written, will try again"),
        }
        tokio::time::sleep(RETRY_WAIT.mul_f64(1.0 + 0.25 * rand::random::<f64>())).await;
    }
    tracing::warn!("event not written: retry limit exceeded");
}

/// Writes the count of a series; an event that has expired meanwhile stays gone.
async fn patch(client: &Client, series: &Series) -> bool {
    let (namespace, name) = (&series.namespace, &series.name);
    let written: Result<serde::de::IgnoredAny, _> =
        rest::patch(client, &EVENTS, namespace, name, "", PatchType::Strategic, &series.patch()).await;
    match written {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, "series not written");
            rest::is_not_found(&error)
        }
    }
}

/// Finishes silent series, and writes the counts of all when `refresh`.
async fn sweep(client: &Client, known: &mut HashMap<String, Series>, refresh: bool) {
    let now = Timestamp::now();
    let silent = |series: &Series| now.duration_since(series.last).as_secs_f64() > SERIES_END.as_secs_f64();
    for series in known.values_mut() {
        if series.unwritten && (refresh || silent(series)) && patch(client, series).await {
            series.unwritten = false;
        }
    }
    known.retain(|_, series| series.unwritten || !silent(series));
}
