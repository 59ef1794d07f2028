//! Where the API meets HTTP: the server behind `copepod-apiserver`.
//!
//! | module | what |
//! |---|---|
//! | [`command`], [`options`], [`unsupported`] | upstream's flags, taken or refused by name |
//! | [`run`] | from flags to a running server |
//! | [`request_info`], [`query`], [`negotiate`] | what a request is about and which form the answer takes |
//! | [`filters`] | THE ordered chain that every request passes |
//! | [`routes`] | the fixed endpoints |
//! | [`verbs`], [`watch`], [`answer`] | the resource road over `copepod-registry` |
//! | [`websocket`] | the end of a WebSocket on which only the server speaks |
//! | [`discovery`], [`openapi`] | what is served, as documents |
//! | [`proxy`] | exec, attach, port-forward, log, proxies |
//! | [`bootstrap`] | objects that the server makes for itself |
//! | [`tokens`] | service account tokens between registry and access |
//!
//! It knows no kind by name: what is served is the registry's table. It keeps no objects: bytes of stored objects go through as they
//! are.

pub mod answer;
pub mod bootstrap;
pub mod command;
pub mod discovery;
pub mod exchange;
pub mod filters;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod options;
pub mod proxy;
pub mod query;
pub mod request_info;
pub mod routes;
pub mod run;
pub mod server;
pub mod tokens;
pub mod unsupported;
pub mod verbs;
pub mod version;
pub mod watch;
pub mod websocket;

pub use options::Options;
pub use run::{Running, StartError, run, start};
