//! Recording Events: what happened to an object, for `kubectl describe` and `kubectl events`.
//!
//! Two recorders, because upstream has two: [`Recorder`] writes core/v1 Events with client-go's correlation (kubelet,
//! controllers), [`SchedulingRecorder`] writes events.k8s.io/v1 Events with series (scheduler).
//!
//! Invariants: recording never waits and never fails a caller; at most [`QUEUED_MAX`] events wait, later ones are dropped
//! with a warning; one task writes them in order.

mod correlate;
mod series;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use serde_json::json;
use tokio::sync::mpsc;

use crate::Shutdown;
use crate::rest::{self, PatchType, ResourceType};
use correlate::{Correlated, Correlator};
pub use series::SchedulingRecorder;

const EVENTS: ResourceType = ResourceType::namespaced("", "v1", "events");
/// Events that may wait for the server. upstream: client-go/tools/record/event.go maxQueuedEvents
const QUEUED_MAX: usize = 1000;
/// Tries for one event when the server is away. upstream: client-go/tools/record/event.go maxTriesPerEvent
const TRIES_MAX: u32 = 12;
/// Wait between them. upstream: client-go/tools/record/event.go defaultSleepDuration
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// Whether users should worry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Information only.
    Normal,
    /// Something may be wrong.
    Warning,
}

impl EventType {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records core/v1 Events. Clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    source: EventSource,
    queue: mpsc::Sender<Event>,
}

impl Recorder {
    /// A recorder that speaks as `component` (on node `host`, or "" for cluster programs); its task ends with `shutdown`.
    pub fn new(client: Client, component: &str, host: &str, shutdown: Shutdown) -> Self {
        let (queue, events) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(write_events(client, events, shutdown));
        Self { source: source(component, host), queue }
    }

    /// The same queue under another component's name.
    pub fn with_component(&self, component: &str) -> Self {
        let host = self.source.host.clone().unwrap_or_default();
        Self { source: source(component, &host), queue: self.queue.clone() }
    }

    /// A recorder whose events are read from the returned queue instead of being written: for tests.
    pub fn for_test() -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(QUEUED_MAX);
        (Self { source: source("test", ""), queue }, events)
    }

    /// Records that `reason` happened to `object`. The message is for people.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        self.annotated(object, None, kind, reason, message.into());
    }

    /// The same with annotations on the Event.
    pub fn annotated(
        &self,
        object: &ObjectReference,
        annotations: Option<std::collections::BTreeMap<String, String>>,
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        let now = Timestamp::now();
        let name = object.name.as_deref().unwrap_or_default();
        let namespace =
            object.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(name, now)),
                namespace: Some(namespace),
                annotations,
                ..Default::default()
            },
            involved_object: object.clone(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            type_: Some(kind.as_str().to_owned()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            ..Default::default()
        };
        if let Err(error) = self.queue.try_send(event) {
            tracing::warn!(%error, "event dropped");
        }
    }
}

fn source(component: &str, host: &str) -> EventSource {
    EventSource {
        component: Some(component.to_owned()),
        host: Some(host.to_owned()).filter(|host| !host.is_empty()),
    }
}

/// A name that is unique by time. upstream: client-go/tools/record/util/util.go GenerateEventName
fn event_name(object: &str, at: Timestamp) -> String {
    format!("{object}.{:x}", at.as_nanosecond())
}

async fn write_events(client: Client, mut events: mpsc::Receiver<Event>, shutdown: Shutdown) {
    let mut correlator = Correlator::default();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.recv() => event,
        };
        let Some(event) = event else { return };
        let Some(correlated) = correlator.correlate(event, Timestamp::now()) else { continue };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = write_with_retries(&client, &mut correlator, correlated) => {}
        }
    }
}

async fn write_with_retries(client: &Client, correlator: &mut Correlator, mut correlated: Correlated) {
    for attempt in 1..=TRIES_MAX {
        match write(client, &mut correlated).await {
            Ok(written) => return correlator.written(&correlated.key, &written),
            Err(kube::Error::Api(status)) => {
                tracing::warn!(message = %status.message, "the server refused an event, it is lost");
                return;
            }
            Err(error) => tracing::debug!(%error, "event not written, will try again"),
        }
        let wait = if attempt == 1 { RETRY_WAIT.mul_f64(rand::random()) } else { RETRY_WAIT };
        tokio::time::sleep(wait).await;
    }
    tracing::warn!("event not written: retry limit exceeded");
}

/// Counts an event of the series up, or creates it if it is new or has expired meanwhile.
async fn write(client: &Client, correlated: &mut Correlated) -> Result<Event, kube::Error> {
    let event = &mut correlated.event;
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    if event.count.unwrap_or(1) > 1 {
        let name = event.metadata.name.clone().unwrap_or_default();
        let patch = json!({
            "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message,
        });
        match rest::patch(client, &EVENTS, &namespace, &name, "", PatchType::Strategic, &patch).await {
            Err(error) if rest::is_not_found(&error) => {}
            other => return other,
        }
    }
    event.metadata.resource_version = None;
    rest::create(client, &EVENTS, &namespace, event).await
}
