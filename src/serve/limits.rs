//! Every bound of a listening socket and its connections.

use std::time::Duration;

/// Bounds of one listener. The defaults are upstream's where upstream has one.
/// upstream: apiserver/pkg/server/secure_serving.go Serve
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; the next one waits in the kernel's backlog.
    pub connections_max: usize,
    /// From accept to the first byte of HTTP: TLS handshake included. Closes slow-loris clients.
    pub first_byte_timeout: Duration,
    /// HTTP/1.1: until the whole head has come. It also runs between requests, so it is the idle timeout as well
    /// (upstream: 90 s idle, 32 s head; hyper has one timer for both, and clients reuse connections for 90 s).
    pub head_timeout: Duration,
    /// Bytes of a request's head. Bearer tokens and long selectors need more than hyper's 16 KiB for HTTP/2.
    pub head_bytes_max: usize,
    /// HTTP/1.1: header lines.
    pub headers_max: usize,
    /// HTTP/2: streams at a time on a connection.
    pub streams_max: u32,
    /// HTTP/2: what the connection buffers of one response before the writer has to wait. hyper's 400 KiB times ten thousand
    /// slow watches would be 4 GB.
    pub send_buffer_bytes_max: usize,
    /// HTTP/2: unread body bytes of one stream. 99 % of objects are smaller.
    pub stream_window_bytes: u32,
    /// HTTP/2: a peer is pinged so often ...
    pub ping_interval: Duration,
    /// ... and is gone when it does not answer for so long.
    pub ping_timeout: Duration,
    /// From the shutdown signal until connections are cut.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 20_000,
            first_byte_timeout: Duration::from_secs(32),
            head_timeout: Duration::from_secs(95),
            head_bytes_max: 256 * 1024,
            headers_max: 256,
            streams_max: 100,
            send_buffer_bytes_max: 64 * 1024,
            stream_window_bytes: 256 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(60),
        }
    }
}
