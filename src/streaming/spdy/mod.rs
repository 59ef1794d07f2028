//! SPDY/3.1 as the streaming servers of container runtimes speak it.
//!
//! [`Connection`] multiplexes [`Stream`]s over one upgraded byte stream. Either side may open streams: the client side
//! (odd ids) is used towards runtimes, the server side (even ids) exists so that tests can play the runtime.
//!
//! Flow control: SPDY/3.1 has windows, but the library that all these servers use (moby/spdystream) neither keeps a
//! window nor sends WINDOW_UPDATE. A sender that waited for updates would stop for ever after 64 KiB. So windows are
//! not kept here either: back-pressure is TCP's, and a stream whose reader is slow holds up its connection. One
//! connection carries one exec or one attach, so nobody else waits.
//!
//! upstream: moby/spdystream connection.go, spdy/{read,write}.go

mod connection;
mod frame;

pub use connection::{Connection, ReadHalf, Role, Stream, WriteHalf};
