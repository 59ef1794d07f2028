//! Container events: CRI's own stream where the runtime has a good one, containerd's events service elsewhere.
//!
//! containerd before 1.7 has no `GetContainerEvents`; 1.7 has one whose subscribers take events from each other, so that a
//! subscriber that died swallows one that another needs. From 2.0 on every subscriber gets every event. All of them have an
//! events service of their own, on the same socket, that publishes `/tasks/start`, `/tasks/exit`, `/tasks/oom` and
//! `/containers/delete` for the namespace `k8s.io`. Exits of exec processes come on the same topic and are told apart by
//! their id. The four messages needed are declared here by hand: their field numbers are containerd's stable API.

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use prost::Message;
use tonic::transport::Channel;

use crate::{CriError, api};

/// What happened to a container or to the process that holds a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Created,
    /// It runs.
    Started,
    /// It exited.
    Stopped,
    /// It was removed.
    Deleted,
    /// The kernel killed a process of it for memory.
    OutOfMemory,
}

/// One event. The id is a container's or a sandbox's: both are containers to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// Container or sandbox id.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
}

type EventStream = BoxStream<'static, Result<RuntimeEvent, CriError>>;

/// Namespace in which containerd's CRI plugin keeps its containers.
const CONTAINERD_NAMESPACE: &str = "k8s.io";

#[derive(Clone, PartialEq, Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The fields that TaskStart, TaskExit, TaskOOM and ContainerDelete share (`container_id`, in ContainerDelete `id`),
/// plus the process id by which TaskExit names an exec.
#[derive(Clone, PartialEq, Message)]
struct Subject {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    process_id: String,
}

/// Subscribes to whichever stream the runtime has, at the first poll. Servers answer a subscription only with its first
/// event, so to wait for the answer would be to wait for an event.
pub(crate) fn subscribe(
    mut runtime: api::runtime_service_client::RuntimeServiceClient<Channel>,
    containerd: Channel,
) -> EventStream {
    let subscription = async move {
        let version = runtime.version(api::VersionRequest { version: "0.1.0".into() }).await?.into_inner();
        if !broadcasts(&version.runtime_name, &version.runtime_version) {
            return from_containerd(containerd).await;
        }
        match from_cri(runtime).await {
            Err(CriError::Unimplemented(_)) => from_containerd(containerd).await,
            answer => answer,
        }
    };
    futures::stream::once(subscription).try_flatten().boxed()
}

/// Whether every subscriber of the runtime's CRI events gets every event.
fn broadcasts(name: &str, version: &str) -> bool {
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    name != "containerd" || major.is_some_and(|major| major >= 2)
}

/// Subscribes to CRI's stream.
async fn from_cri(
    mut runtime: api::runtime_service_client::RuntimeServiceClient<Channel>,
) -> Result<EventStream, CriError> {
    let stream = runtime.get_container_events(api::GetEventsRequest {}).await?.into_inner();
    Ok(stream
        .map(|item| {
            let event = item.map_err(CriError::from)?;
            let kind = match event.container_event_type() {
                api::ContainerEventType::ContainerCreatedEvent => EventKind::Created,
                api::ContainerEventType::ContainerStartedEvent => EventKind::Started,
                api::ContainerEventType::ContainerStoppedEvent => EventKind::Stopped,
                api::ContainerEventType::ContainerDeletedEvent => EventKind::Deleted,
            };
            Ok(RuntimeEvent { id: event.container_id, kind })
        })
        .boxed())
}

/// Subscribes to containerd's events service.
async fn from_containerd(channel: Channel) -> Result<EventStream, CriError> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| CriError::Unavailable(error.to_string()))?;
    let filters = ["/tasks/start", "/tasks/exit", "/tasks/oom", "/containers/delete"]
        .iter()
        .map(|topic| format!("namespace==\"{CONTAINERD_NAMESPACE}\",topic==\"{topic}\""))
        .collect();
    let path = http::uri::PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    let codec = tonic_prost::ProstCodec::<SubscribeRequest, Envelope>::default();
    let stream = grpc
        .server_streaming(tonic::Request::new(SubscribeRequest { filters }), path, codec)
        .await?
        .into_inner();
    Ok(stream
        .filter_map(|item| async move {
            match item {
                Ok(envelope) => decode(&envelope).transpose(),
                Err(status) => Some(Err(status.into())),
            }
        })
        .boxed())
}

/// Reads one envelope; `None` for what is not about a container (an exec's exit).
fn decode(envelope: &Envelope) -> Result<Option<RuntimeEvent>, CriError> {
    let Some(event) = &envelope.event else { return Ok(None) };
    let broken = |error: prost::DecodeError| CriError::Failed {
        code: "Internal",
        message: format!("containerd event {}: {error}", envelope.topic),
    };
    let kind = match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(event.value.as_slice()).map_err(broken)?;
            if exit.process_id != exit.container_id {
                return Ok(None);
            }
            EventKind::Stopped
        }
        "/tasks/start" => EventKind::Started,
        "/tasks/oom" => EventKind::OutOfMemory,
        "/containers/delete" => EventKind::Deleted,
        _ => return Ok(None),
    };
    let subject = Subject::decode(event.value.as_slice()).map_err(broken)?;
    Ok(Some(RuntimeEvent { id: subject.container_id, kind }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str, event: impl Message) -> Envelope {
        Envelope { topic: topic.into(), event: Some(Any { value: event.encode_to_vec() }) }
    }

    #[test]
    fn old_containerds_are_asked_for_their_own_events() {
        for (name, version, want) in [
            ("containerd", "1.6.20~ds1", false),
            ("containerd", "v1.7.27", false),
            ("containerd", "v2.0.0-rc.1", true),
            ("containerd", "2.1.9+unknown", true),
            ("containerd", "?", false),
            ("cri-o", "1.30.0", true),
        ] {
            assert_eq!(broadcasts(name, version), want, "{name} {version}");
        }
    }

    /// An exec's exit is on the same topic as a container's and must not be taken for it.
    #[test]
    fn envelopes_become_events() {
        let exit = |id: &str, process: &str| TaskExit { container_id: id.into(), process_id: process.into() };
        let subject = |id: &str| Subject { container_id: id.into() };
        for (name, envelope, want) in [
            ("container exit", envelope("/tasks/exit", exit("c", "c")), Some(EventKind::Stopped)),
            ("exec exit", envelope("/tasks/exit", exit("c", "probe")), None),
            ("start", envelope("/tasks/start", subject("c")), Some(EventKind::Started)),
            ("oom", envelope("/tasks/oom", subject("c")), Some(EventKind::OutOfMemory)),
            ("delete", envelope("/containers/delete", subject("c")), Some(EventKind::Deleted)),
            ("other", envelope("/images/create", subject("c")), None),
        ] {
            let got = decode(&envelope).expect(name);
            assert_eq!(got, want.map(|kind| RuntimeEvent { id: "c".into(), kind }), "{name}");
        }
        let broken = Envelope { topic: "/tasks/start".into(), event: Some(Any { value: vec![0xff] }) };
        assert!(decode(&broken).is_err());
    }
}
