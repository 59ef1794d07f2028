//! The streaming protocols of exec, attach and port-forward.
//!
//! A client (kubectl) opens `exec`, `attach` and `port-forward` as an HTTP/1.1 upgrade of one of four kinds; the
//! runtime's streaming server speaks SPDY/3.1 only (and old WebSocket forms). This crate owns what lies between:
//!
//! | client offers | [`ClientProtocol`] | what the node does |
//! |---|---|---|
//! | `Upgrade: SPDY/3.1` | `Spdy` | hands the upgrade on and copies bytes: [`upgrade`] + [`splice`] |
//! | WebSocket `v5.channel.k8s.io`, `v4...`, base64 forms | `Channels` | [`remote_command`]: channels to SPDY streams |
//! | WebSocket `SPDY/3.1+portforward.k8s.io` | `Tunnel` | [`tunnel`]: the messages carry SPDY bytes |
//! | WebSocket port-forward channels (`v4.channel.k8s.io`, `portforward.k8s.io`) | `Channels` | hands the upgrade on |
//!
//! A server uses it in this order: [`ClientProtocol::of`] reads the request's headers; [`Negotiated::response_headers`]
//! (or the backend's own answer) makes the 101; [`upgrade`] opens the backend; then one of the three copies runs until
//! both sides are done. An API server in front of a node that declares `ExtendWebSocketsToKubelet` needs no translation:
//! it hands the client's upgrade on to the node ([`upgrade`] with the client's headers, then [`splice`]). For older nodes
//! it calls [`remote_command`] or [`tunnel`] itself, exactly as the node does.
//!
//! Does not: authenticate, route, speak TLS (any `AsyncRead + AsyncWrite` will do), pool connections.
//!
//! Invariants:
//! * bytes are spliced only after the backend said 101: anything else is an ordinary HTTP answer for the client
//!   (otherwise a client could talk past the authorization of its first request);
//! * all of a command's output is delivered before its status, and its status before the close;
//! * closing the client's standard input (v5 close signal) closes the command's standard input and nothing else;
//! * every buffer is bounded; a slow reader slows the writer down.
//!
//! When it breaks: either side's end closes both; the other side sees the connection end.

mod error;
mod remote;
pub mod spdy;
mod tunnel;
mod upgrade;
mod websocket;

pub use error::StreamError;
pub use remote::{RemoteCommandOptions, remote_command};
pub use tunnel::{splice, tunnel};
pub use upgrade::{Prefixed, Upgrade, UpgradeRequest, upgrade};
pub use websocket::{
    ChannelProtocol, ClientProtocol, Negotiated, PORT_FORWARD_PROTOCOL, REMOTE_COMMAND_PROTOCOLS,
    TUNNEL_PROTOCOL,
};
