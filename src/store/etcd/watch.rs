//! All watches of the store over a few streams to etcd.
//!
//! A stream is one task. It creates its watches on etcd, joins fragments, notices cancellations, and after a disconnect
//! creates all watches anew from where each of them was. Its readers have a bounded queue each; a reader that lets its
//! queue fill up is cancelled on etcd and created anew when it has caught up, so that it holds up neither the stream nor
//! etcd.
//!
//! etcd tells progress for a stream as a whole. Such an answer may have been on its way while a watch was created; it is
//! passed on to a watch only if it must have been given after that (see [`Watch::believes`]).

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::proto::{PbEvent, PbWatchResponse};
use etcd_client::{WatchClient, WatchOptions, WatchRequestSender, WatchResponseStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::queue::{Command, Queue, Source};
use super::{errors::read_error, key_value, revision_in, revision_out};
use crate::store::{Event, StoreError, WatchItem, prefix_end};

/// Streams to etcd. More than one, so that one that catches up does not hold up the progress of all.
const STREAMS: usize = 4;
/// Commands to a stream's task that may wait.
const COMMANDS_MAX: usize = 256;
/// A quiet stream asks for progress so often: a watch that is created anew must not start before the last compaction.
const IDLE_PROGRESS: Duration = Duration::from_secs(60);
/// A progress request that was not answered by then never will be: some watch was catching up.
const PROGRESS_LOST: Duration = Duration::from_secs(1);
/// The opening of a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts to open it.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The id under which etcd tells progress of all watches of a stream.
const ALL_WATCHES: i64 = -1;
const EVENT_DELETE: i32 = 1;

/// The handle to all streams.
pub(super) struct Watches {
    streams: Vec<StreamHandle>,
}

struct StreamHandle {
    commands: mpsc::Sender<Command>,
    progress: Arc<Notify>,
    task: AbortHandle,
}

impl Watches {
    pub(super) fn new(client: WatchClient) -> Self {
        let stream = |_| {
            let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
            let progress = Arc::new(Notify::new());
            let stream = Stream::new(client.clone(), receiver, progress.clone());
            StreamHandle { commands, progress, task: tokio::spawn(stream.run()).abort_handle() }
        };
        Self { streams: (0..STREAMS).map(stream).collect() }
    }

    fn stream(&self, prefix: &[u8]) -> &StreamHandle {
        let mut hasher = DefaultHasher::new();
        prefix.hash(&mut hasher);
        &self.streams[(hasher.finish() % STREAMS as u64) as usize]
    }

    pub(super) async fn open(&self, prefix: &[u8], after: u64) -> Result<Source, StoreError> {
        let commands = self.stream(prefix).commands.clone();
        let queue = Arc::new(Queue::default());
        let open =
            Command::Open { prefix: Bytes::copy_from_slice(prefix), after, queue: Arc::downgrade(&queue) };
        commands.send(open).await.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        Ok(Source::new(queue, commands))
    }

    /// Asks etcd soon; requests that come at the same time are one.
    pub(super) fn request_progress(&self, prefix: &[u8]) {
        self.stream(prefix).progress.notify_one();
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.streams.iter().for_each(|stream| stream.task.abort());
    }
}

/// How far a watch has come with etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not on etcd: new, disconnected, or its reader stays behind.
    Idle,
    /// Its creation was sent under this id.
    Creating { id: i64 },
    /// etcd has it.
    Live { id: i64, created_at: u64, asked_before: u64 },
}

impl Phase {
    fn id(self) -> Option<i64> {
        match self {
            Self::Idle => None,
            Self::Creating { id } | Self::Live { id, .. } => Some(id),
        }
    }
}

/// One watch as its stream knows it.
struct Watch {
    prefix: Bytes,
    /// The first revision that has not been queued.
    next: u64,
    /// `next` when it was created on etcd.
    started: u64,
    queue: Weak<Queue>,
    phase: Phase,
    /// Events of an answer whose last part has not come yet.
    fragments: Vec<PbEvent>,
}

impl Watch {
    /// Whether progress that etcd told for the whole stream holds for this watch, that is, whether etcd told it after it
    /// had created the watch. `answered` counts the answers of the stream, this one included.
    fn believes(&self, revision: u64, answered: u64) -> bool {
        let Phase::Live { created_at, asked_before, .. } = self.phase else { return false };
        // It had nothing to catch up with;
        self.started > created_at
            // etcd has moved on since;
            || revision > created_at
            // or more answers have come than had been asked for by then.
            || answered > asked_before
    }
}

/// One stream and its task.
struct Stream {
    client: WatchClient,
    commands: mpsc::Receiver<Command>,
    progress: Arc<Notify>,
    watches: HashMap<u64, Watch>,
    /// Ids on the present connection.
    ids: HashMap<i64, u64>,
    last_watch: u64,
    last_id: i64,
    outgoing: VecDeque<Outgoing>,
    asked: u64,
    answered: u64,
    last_asked: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outgoing {
    Create { watch: u64, id: i64 },
    Cancel { id: i64 },
    Progress,
}

/// Why a connection ended.
struct Disconnected(StoreError);

impl Stream {
    fn new(client: WatchClient, commands: mpsc::Receiver<Command>, progress: Arc<Notify>) -> Self {
        Self {
            client,
            commands,
            progress,
            watches: HashMap::new(),
            ids: HashMap::new(),
            last_watch: 0,
            last_id: 0,
            outgoing: VecDeque::new(),
            asked: 0,
            answered: 0,
            last_asked: Instant::now(),
        }
    }

    /// Runs until the store is dropped.
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            while self.watches.is_empty() {
                match self.commands.recv().await {
                    Some(command) => self.command(command),
                    None => return,
                }
            }
            let opened = Instant::now();
            let Disconnected(error) = self.connection().await;
            if opened.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            tracing::debug!(%error, watches = self.watches.len(), "a watch stream to etcd has ended, opening another");
            self.reset();
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Nothing is on etcd any more.
    fn reset(&mut self) {
        self.ids.clear();
        self.outgoing.clear();
        (self.asked, self.answered) = (0, 0);
        for watch in self.watches.values_mut() {
            watch.phase = Phase::Idle;
            watch.fragments.clear();
        }
    }

    /// One connection from its opening to its end.
    async fn connection(&mut self) -> Disconnected {
        self.look();
        let Some(Outgoing::Create { watch, id }) = self.outgoing.pop_front() else {
            return Disconnected(StoreError::Unavailable("no reader is left".into()));
        };
        let Some((prefix, options)) = self.create(watch, id) else {
            return Disconnected(StoreError::Unavailable("no reader is left".into()));
        };
        let mut client = self.client.clone();
        let opening = tokio::time::timeout(OPEN_TIMEOUT, client.watch(prefix, Some(options))).await;
        let (mut sender, mut receiver) = match opening {
            Ok(Ok(stream)) => stream.split(),
            Ok(Err(error)) => return Disconnected(read_error(error, 0)),
            Err(_) => {
                return Disconnected(StoreError::Unavailable("etcd did not open the stream in time".into()));
            }
        };
        loop {
            if let Err(ended) = self.step(&mut sender, &mut receiver).await {
                return ended;
            }
        }
    }

    /// Does one thing: takes an answer, sends a request, or hears a command.
    async fn step(
        &mut self,
        sender: &mut WatchRequestSender,
        receiver: &mut WatchResponseStream,
    ) -> Result<(), Disconnected> {
        // Sending waits for room; an answer that comes meanwhile goes first, or both sides would wait for each other.
        let request = self.outgoing.front().cloned();
        let create = match &request {
            Some(Outgoing::Create { watch, id }) => self.create(*watch, *id),
            _ => None,
        };
        let progress = self.progress.clone();
        let idle = self.last_asked + IDLE_PROGRESS;
        tokio::select! {
            answer = receiver.message() => match answer {
                Ok(Some(answer)) => self.answer(answer.0),
                Ok(None) => Err(Disconnected(StoreError::Unavailable("etcd closed the stream".into()))),
                Err(error) => Err(Disconnected(read_error(error, 0))),
            },
            sent = send(sender, request.as_ref(), create), if request.is_some() => {
                self.outgoing.pop_front();
                sent.map_err(|error| Disconnected(read_error(error, 0)))
            }
            command = self.commands.recv() => match command {
                Some(command) => {
                    self.command(command);
                    Ok(())
                }
                None => Err(Disconnected(StoreError::Unavailable("the store is closed".into()))),
            },
            () = progress.notified() => {
                self.ask_progress();
                Ok(())
            }
            () = tokio::time::sleep_until(idle) => {
                self.ask_progress();
                self.look();
                Ok(())
            }
        }
    }

    fn ask_progress(&mut self) {
        if self.outgoing.contains(&Outgoing::Progress) {
            return;
        }
        if self.last_asked.elapsed() > PROGRESS_LOST {
            self.answered = self.asked;
        }
        self.asked += 1;
        self.last_asked = Instant::now();
        self.outgoing.push_back(Outgoing::Progress);
    }

    fn command(&mut self, command: Command) {
        if let Command::Open { prefix, after, queue } = command {
            self.last_watch += 1;
            let next = after + 1;
            let watch =
                Watch { prefix, next, started: next, queue, phase: Phase::Idle, fragments: Vec::new() };
            self.watches.insert(self.last_watch, watch);
        }
        self.look();
    }

    /// Cancels what nobody reads any more and creates what somebody waits for.
    fn look(&mut self) {
        let mut gone = Vec::new();
        let mut wanted = Vec::new();
        for (&key, watch) in &mut self.watches {
            let Some(queue) = watch.queue.upgrade() else {
                gone.push(key);
                continue;
            };
            if watch.phase == Phase::Idle && queue.take_room() {
                wanted.push(key);
            }
        }
        for key in gone {
            self.cancel(key);
            self.watches.remove(&key);
        }
        for key in wanted {
            self.last_id += 1;
            self.outgoing.push_back(Outgoing::Create { watch: key, id: self.last_id });
            self.ids.insert(self.last_id, key);
            if let Some(watch) = self.watches.get_mut(&key) {
                watch.phase = Phase::Creating { id: self.last_id };
                watch.started = watch.next;
            }
        }
    }

    /// Takes a watch off etcd.
    fn cancel(&mut self, key: u64) {
        let Some(watch) = self.watches.get_mut(&key) else { return };
        watch.fragments.clear();
        let Some(id) = watch.phase.id() else { return };
        watch.phase = Phase::Idle;
        self.ids.remove(&id);
        let unsent = self.outgoing.iter().position(|out| *out == Outgoing::Create { watch: key, id });
        match unsent {
            // The first one may be on its way already; cancelling what etcd does not know does no harm.
            Some(at) if at > 0 => drop(self.outgoing.remove(at)),
            _ => self.outgoing.push_back(Outgoing::Cancel { id }),
        }
    }

    fn create(&self, watch: u64, id: i64) -> Option<(Bytes, WatchOptions)> {
        let watch = self.watches.get(&watch)?;
        let options = WatchOptions::new()
            .with_watch_id(id)
            .with_start_revision(revision_out(watch.next))
            .with_prev_key()
            .with_fragment()
            .with_progress_notify();
        Some((
            watch.prefix.clone(),
            match prefix_end(&watch.prefix) {
                Some(end) => options.with_range(end),
                None => options.with_from_key(),
            },
        ))
    }

    /// Takes an answer of etcd.
    fn answer(&mut self, answer: PbWatchResponse) -> Result<(), Disconnected> {
        let revision = answer.header.as_ref().map_or(0, |header| revision_in(header.revision));
        if answer.watch_id == ALL_WATCHES {
            if answer.canceled {
                // etcd refuses a watch without saying which.
                return Err(Disconnected(StoreError::Unavailable(answer.cancel_reason.into())));
            }
            self.progress_of_all(revision);
            return Ok(());
        }
        // Answers to what has been cancelled meanwhile are of no interest.
        let Some(&key) = self.ids.get(&answer.watch_id) else { return Ok(()) };
        if answer.canceled {
            return self.cancelled(key, answer);
        }
        let Some(watch) = self.watches.get_mut(&key) else { return Ok(()) };
        if answer.created {
            watch.phase = Phase::Live { id: answer.watch_id, created_at: revision, asked_before: self.asked };
            return Ok(());
        }
        if answer.events.is_empty() && watch.fragments.is_empty() {
            self.progress_of(key, revision);
            return Ok(());
        }
        watch.fragments.extend(answer.events);
        if !answer.fragment {
            let events = std::mem::take(&mut watch.fragments);
            self.events(key, events);
        }
        Ok(())
    }

    fn cancelled(&mut self, key: u64, answer: PbWatchResponse) -> Result<(), Disconnected> {
        self.ids.remove(&answer.watch_id);
        let reason = answer.cancel_reason;
        let Some(watch) = self.watches.get_mut(&key) else { return Ok(()) };
        if answer.compact_revision > 0 {
            let compacted = revision_in(answer.compact_revision);
            self.end(key, |watch| StoreError::Compacted { requested: watch.next, compacted });
        } else if reason.contains("has been compacted") {
            self.end(key, |watch| StoreError::Compacted { requested: watch.next, compacted: 0 });
        } else if reason.contains("permission denied") {
            self.end(key, |_| StoreError::Rejected(reason.into()));
        } else {
            // No leader, or a member that shuts down: what befalls one watch befalls the stream.
            watch.phase = Phase::Idle;
            return Err(Disconnected(StoreError::Unavailable(reason.into())));
        }
        Ok(())
    }

    fn end(&mut self, key: u64, error: impl FnOnce(&Watch) -> StoreError) {
        if let Some(watch) = self.watches.remove(&key)
            && let Some(queue) = watch.queue.upgrade()
        {
            queue.end(error(&watch));
        }
    }

    /// Queues events, one item a revision.
    fn events(&mut self, key: u64, events: Vec<PbEvent>) {
        let Some(watch) = self.watches.get_mut(&key) else { return };
        let Some(queue) = watch.queue.upgrade() else { return };
        let mut revision = 0;
        let mut group = Vec::new();
        for event in events {
            let Some((at, event)) = decode(event) else {
                return self.end(key, |watch| {
                    StoreError::Corrupt(
                        format!("an event behind revision {} cannot be read", watch.next).into(),
                    )
                });
            };
            if at != revision && !watch.queue_group(&queue, revision, &mut group) {
                return self.cancel(key);
            }
            revision = at;
            group.push(event);
        }
        if !watch.queue_group(&queue, revision, &mut group) {
            self.cancel(key);
        }
    }

    fn progress_of_all(&mut self, revision: u64) {
        self.answered += 1;
        let believers: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.believes(revision, self.answered))
            .map(|(&key, _)| key)
            .collect();
        for key in believers {
            self.progress_of(key, revision);
        }
    }

    fn progress_of(&mut self, key: u64, revision: u64) {
        let Some(watch) = self.watches.get_mut(&key) else { return };
        let Some(queue) = watch.queue.upgrade() else { return };
        // A watch of the future has made no progress yet.
        if revision + 1 < watch.next {
            return;
        }
        if queue.push(WatchItem::Progress { revision }) {
            watch.next = revision + 1;
        } else {
            self.cancel(key);
        }
    }
}

impl Watch {
    /// Queues the events of one revision. False: there is no room.
    fn queue_group(&mut self, queue: &Queue, revision: u64, group: &mut Vec<Event>) -> bool {
        // Below `next` are those that a former connection has shown.
        if group.is_empty() || revision < self.next {
            group.clear();
            return true;
        }
        let events = std::mem::take(group).into();
        let queued = queue.push(WatchItem::Events { revision, events });
        if queued {
            self.next = revision + 1;
        }
        queued
    }
}

async fn send(
    sender: &mut WatchRequestSender,
    request: Option<&Outgoing>,
    create: Option<(Bytes, WatchOptions)>,
) -> Result<(), etcd_client::Error> {
    match (request, create) {
        (Some(Outgoing::Create { .. }), Some((prefix, options))) => sender.watch(prefix, Some(options)).await,
        (Some(Outgoing::Cancel { id }), _) => sender.cancel(*id).await,
        (Some(Outgoing::Progress), _) => sender.request_progress().await,
        // Its reader has gone before it was created.
        _ => Ok(()),
    }
}

/// The revision of an event, and the event; `None`: it is of a kind that did not exist when this was written.
fn decode(event: PbEvent) -> Option<(u64, Event)> {
    let kv = event.kv?;
    let revision = revision_in(kv.mod_revision);
    let prev = event.prev_kv.map(key_value);
    let kv = key_value(kv);
    match event.r#type {
        0 => Some((revision, Event { key: kv.key.clone(), kv: Some(kv), prev })),
        EVENT_DELETE => Some((revision, Event { key: kv.key, kv: None, prev })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(started: u64, phase: Phase) -> Watch {
        Watch { prefix: "/".into(), next: started, started, queue: Weak::new(), phase, fragments: Vec::new() }
    }

    #[test]
    fn progress_of_before_its_creation_says_nothing_of_a_watch() {
        let live = Phase::Live { id: 1, created_at: 50, asked_before: 2 };
        for (name, started, phase, revision, answered, believed) in [
            ("not created", 51, Phase::Creating { id: 1 }, 90, 9, false),
            ("nothing to catch up with", 51, live, 50, 1, true),
            ("may have been on its way", 10, live, 50, 2, false),
            ("more answers than questions by then", 10, live, 50, 3, true),
            ("etcd has moved on since", 10, live, 51, 1, true),
        ] {
            assert_eq!(watch(started, phase).believes(revision, answered), believed, "{name}");
        }
    }
}
