//! The work queue of a controller: keys to look at, each once, with back-off for those that fail.
//!
//! Invariants (client-go's, relied on by every controller):
//! * a key is in the queue at most once, however often it is added;
//! * a key is worked on by at most one worker: added meanwhile, it comes again after `done`;
//! * a key that failed `n` times waits `5 ms * 2^n`, at most 1000 s, and all failing keys together get 10 tries a second
//!   after a first burst of 100.
//!
//! upstream: client-go/util/workqueue/{queue,delaying_queue,rate_limiting_queue,default_rate_limiters}.go

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Shutdown;

/// First wait of a failing key.
const BACKOFF_BASE: Duration = Duration::from_millis(5);
/// Longest wait of a failing key.
const BACKOFF_MAX: Duration = Duration::from_secs(1000);
/// Tries a second that all failing keys share, and how many may come at once before that.
const RETRIES_PER_SECOND: f64 = 10.0;
const RETRIES_BURST: f64 = 100.0;

/// How long a failing key waits.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Wait after the first failure.
    pub base: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: BACKOFF_BASE, max: BACKOFF_MAX }
    }
}

/// The queue; clones share it.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    wake: Notify,
    backoff: Backoff,
}

struct State<K> {
    order: VecDeque<K>,
    dirty: HashSet<K>,
    processing: HashSet<K>,
    delayed: BinaryHeap<Reverse<Delayed<K>>>,
    /// When a delayed key is due; the heap may hold later entries of the same key, which are void.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    tokens: f64,
    tokens_at: Instant,
    closed: bool,
}

struct Delayed<K> {
    at: Instant,
    key: K,
}

impl<K> PartialEq for Delayed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl<K> Eq for Delayed<K> {}
impl<K> PartialOrd for Delayed<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Delayed<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new(Backoff::default())
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue.
    pub fn new(backoff: Backoff) -> Self {
        let state = State {
            order: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            tokens: RETRIES_BURST,
            tokens_at: Instant::now(),
            closed: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new(), backoff }) }
    }

    /// Asks for `key` to be looked at.
    pub fn add(&self, key: K) {
        if self.shared.state.lock().add(key) {
            self.shared.wake.notify_one();
        }
    }

    /// Asks for `key` to be looked at after `delay`; of several such wishes the earliest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.shared.state.lock().delay(key, Instant::now() + delay);
        self.shared.wake.notify_one();
    }

    /// Asks for `key` again after it failed, with its back-off.
    pub fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let exponent = (*failures).min(63);
            *failures += 1;
            let own = self.shared.backoff.base.as_secs_f64() * 2f64.powi(exponent as i32);
            Duration::from_secs_f64(own.min(self.shared.backoff.max.as_secs_f64())).max(state.reserve_token())
        };
        self.add_after(key, delay);
    }

    /// Forgets the failures of `key`: it succeeded, or nobody cares any more.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often `key` failed since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Keys that wait for a worker now (delayed ones do not count).
    pub fn len(&self) -> usize {
        self.shared.state.lock().order.len()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key; `None` once the queue is closed and empty. The worker owes [`WorkQueue::done`].
    pub async fn get(&self) -> Option<K> {
        loop {
            let woken = self.shared.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let due = {
                let mut state = self.shared.state.lock();
                let due = state.release_due(Instant::now());
                if let Some(key) = state.order.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    if !state.order.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                if state.closed {
                    self.shared.wake.notify_one();
                    return None;
                }
                due
            };
            match due {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, woken).await;
                }
                None => woken.await,
            }
        }
    }

    /// The worker is done with `key`.
    pub fn done(&self, key: &K) {
        let mut state = self.shared.state.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.order.push_back(key.clone());
            self.shared.wake.notify_one();
        }
    }

    /// No key is accepted any more; workers end when the queue is empty.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) {
            return false;
        }
        if self.processing.contains(&key) {
            return false;
        }
        self.order.push_back(key);
        true
    }

    fn delay(&mut self, key: K, at: Instant) {
        if self.closed || self.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        self.due.insert(key.clone(), at);
        self.delayed.push(Reverse(Delayed { at, key }));
    }

    /// Moves what is due into the queue; returns when the next key is due.
    fn release_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse(next)) = self.delayed.peek() {
            if next.at > now {
                return Some(next.at);
            }
            if let Some(Reverse(Delayed { at, key })) = self.delayed.pop()
                && self.due.get(&key) == Some(&at)
            {
                self.due.remove(&key);
                self.add(key);
            }
        }
        None
    }

    /// Takes one token of the shared bucket, going into debt if need be; returns how long to wait for it.
    fn reserve_token(&mut self) -> Duration {
        let now = Instant::now();
        let refilled = now.duration_since(self.tokens_at).as_secs_f64() * RETRIES_PER_SECOND;
        self.tokens = (self.tokens + refilled).min(RETRIES_BURST) - 1.0;
        self.tokens_at = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) / RETRIES_PER_SECOND)
    }
}

/// Why a turn failed, as the log tells it.
pub trait Failure: Send + 'static {
    /// What happened, in one line.
    fn message(&self) -> String;
    /// Whether this is part of normal work: another writer was faster.
    fn is_expected(&self) -> bool;
}

impl Failure for kube::Error {
    fn message(&self) -> String {
        crate::rest::message(self)
    }
    fn is_expected(&self) -> bool {
        crate::rest::is_conflict(self)
    }
}

/// What a worker wants for its key after a turn that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until it is added again.
    Done,
    /// Another look after this time, even if nothing changes.
    After(Duration),
}

/// A turn as the workers see it. Boxed, so that they are one piece of code whatever the controllers do: with a copy of
/// them for each controller, task and all, a tenth of that program was workers.
type Turn = Pin<Box<dyn Future<Output = Result<Next, Failed>> + Send>>;

/// A [`Failure`] without its type.
struct Failed {
    message: String,
    is_expected: bool,
}

/// Runs `workers` workers until `shutdown`: each takes a key, calls `work`, and gives a failing key its back-off.
/// Ends when the turns that were under way are over.
pub fn run_workers<K, E, F, W>(
    name: &'static str,
    queue: WorkQueue<K>,
    workers: usize,
    shutdown: Shutdown,
    work: W,
) -> impl Future<Output = ()> + Send
where
    K: Clone + Eq + Hash + std::fmt::Debug + Send + Sync + 'static,
    E: Failure,
    F: Future<Output = Result<Next, E>> + Send + 'static,
    W: Fn(K) -> F + Send + Sync + 'static,
{
    let turn = move |key: K| -> Turn {
        let turn = work(key);
        Box::pin(async move {
            let failed = |error: E| Failed { message: error.message(), is_expected: error.is_expected() };
            turn.await.map_err(failed)
        })
    };
    run_turns(name, queue, workers, shutdown, Arc::new(turn))
}

async fn run_turns<K>(
    name: &'static str,
    queue: WorkQueue<K>,
    workers: usize,
    shutdown: Shutdown,
    turn: Arc<dyn Fn(K) -> Turn + Send + Sync>,
) where
    K: Clone + Eq + Hash + std::fmt::Debug + Send + Sync + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (queue, turn) = (queue.clone(), turn.clone());
        tasks.spawn(async move {
            while let Some(key) = queue.get().await {
                match turn(key.clone()).await {
                    Ok(next) => {
                        queue.forget(&key);
                        if let Next::After(delay) = next {
                            queue.add_after(key.clone(), delay);
                        }
                    }
                    Err(Failed { message: error, is_expected }) => {
                        let failures = queue.failures(&key) + 1;
                        if is_expected {
                            tracing::debug!(controller = name, ?key, failures, error, "will try again");
                        } else {
                            tracing::warn!(controller = name, ?key, failures, error, "will try again");
                        }
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    shutdown.cancelled().await;
    queue.close();
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(controller = name, %error, "a worker ended badly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Failure for &'static str {
        fn message(&self) -> String {
            (*self).to_owned()
        }
        fn is_expected(&self) -> bool {
            false
        }
    }

    async fn take(queue: &WorkQueue<&'static str>) -> Option<&'static str> {
        tokio::time::timeout(Duration::from_millis(1), queue.get()).await.ok().flatten()
    }

    /// A script over one queue: `+a` add, `<a` expect a, `<` expect nothing, `.a` done.
    async fn check(script: &str) {
        let queue = WorkQueue::default();
        for (at, step) in script.split_whitespace().enumerate() {
            let key: &'static str = step[1..].to_owned().leak();
            match &step[..1] {
                "+" => queue.add(key),
                "." => queue.done(&key),
                _ => assert_eq!(take(&queue).await.unwrap_or(""), key, "step {at} of {script}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_worked_on_once() {
        for script in [
            "+a +b <a <b <",         // in order
            "+a +a <a <",            // added twice, taken once
            "+a <a +a < .a <a .a <", // added while worked on: again after done
            "+a <a +a +b <b .a <a",  // other keys go on meanwhile
        ] {
            check(script).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_come_when_due_and_the_earliest_wish_counts() {
        let queue = WorkQueue::default();
        queue.add_after("late", Duration::from_secs(5));
        queue.add_after("late", Duration::from_secs(1));
        queue.add_after("late", Duration::from_secs(3));
        let start = Instant::now();
        assert_eq!(queue.get().await, Some("late"));
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.done(&"late");
        assert!(
            tokio::time::timeout(Duration::from_secs(10), queue.get()).await.is_err(),
            "the others are void"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_wait_until_forgotten() {
        let queue = WorkQueue::default();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            queue.add_rate_limited("a");
            queue.get().await;
            queue.done(&"a");
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 40]);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn many_failing_keys_share_ten_tries_a_second() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        for n in 0..120 {
            queue.add_rate_limited(n);
        }
        for _ in 0..120 {
            queue.get().await;
        }
        assert_eq!(start.elapsed().as_millis(), 2000, "20 beyond the burst of 100");
    }

    #[tokio::test(start_paused = true)]
    async fn workers_retry_and_end_with_the_token() {
        let queue = WorkQueue::default();
        let shutdown = Shutdown::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        queue.add("a");
        let (log, token) = (seen.clone(), shutdown.clone());
        run_workers("test", queue.clone(), 2, shutdown, move |key| {
            let (log, token) = (log.clone(), token.clone());
            async move {
                log.lock().push(key);
                if log.lock().len() < 3 {
                    return Err("not yet");
                }
                token.cancel();
                Ok(Next::Done)
            }
        })
        .await;
        assert_eq!(*seen.lock(), ["a", "a", "a"]);
        assert_eq!(queue.failures(&"a"), 0);
    }
}
