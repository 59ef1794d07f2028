//! The client stack: what every program of the cluster uses to talk to the API server, and nothing else.
//!
//! Owns: connections, informers, work queues, leader election, event recording, retries. Does not: know any kind in
//! particular, decide anything, serve anything.
//!
//! | module | what | the main call |
//! |---|---|---|
//! | [`connect`] | a [`kube::Client`] over one HTTP/2 connection (HTTP/1.1 for upgrades) | `connect::from_kubeconfig(path, "copepod-x/v1.36").await?` |
//! | [`connect::accounts`] | clients that act as service accounts, with tokens that are renewed | `accounts.client("job-controller")` |
//! | [`program`] | flags, health endpoint and election of a program that is a client | `flags.run(registry, shutdown, work).await` |
//! | [`rest`] | requests with raw JSON bodies, by resource; error predicates | `rest::patch(&client, &PODS, ns, name, "status", Patch::Strategic, &body)` |
//! | [`object`] | partial types for informers, keys, owner references | `resource!(Pod, "", "v1", "Pod", "pods", Namespaced)` |
//! | [`informer`] | an indexed store kept fresh by a streaming list; shared by a factory | `factory.informer::<Pod>()`, `informer.get(key)` |
//! | [`queue`] | the rate-limited work queue of client-go | `queue.add(key)`, `queue::run_workers(..)` |
//! | [`leader`] | leader election on a Lease | `leader::run(client, config, shutdown, \|token\| work)` |
//! | [`events`] | recorders of core/v1 and events.k8s.io/v1 Events | `recorder.event(&reference, EventType::Normal, "Started", "..")` |
//! | [`scheduling`] | tolerations and taints of the API's types in the words of `meta` | `scheduling::tolerates(&toleration, &taint)` |
//! | [`retry`] | retry on conflict | `retry::on_conflict(\|\| async { .. }).await` |
//!
//! Invariants:
//! * a program holds one TCP connection to one server, whatever the number of watches, and one more if it acts as service
//!   accounts;
//! * an informer never hands out a half-filled store: `synced` is reached after the first complete list;
//! * handlers of informers only note what changed (enqueue a key); they never wait;
//! * every queue is bounded or de-duplicated, so that memory follows the number of objects and not the rate of changes.
//!
//! When the server is away everything waits and retries with back-off; nothing ends but by its [`Shutdown`] token.

pub mod connect;
pub mod events;
pub mod informer;
pub mod leader;
pub mod object;
pub mod program;
pub mod queue;
pub mod rest;
pub mod retry;
pub mod scheduling;

pub use kube::Client;
/// Tells a task to end. Clone it freely; `child_token()` ends with its parent, `cancelled().await` waits.
pub use tokio_util::sync::CancellationToken as Shutdown;
