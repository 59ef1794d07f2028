//! The accept loop.
//!
//! Owns a listener and its connections. Each connection: TLS handshake, then the protocol that ALPN chose, then hyper with
//! the bounds of [`Limits`]. Does not route: every request goes to one `tower` service, with [`ConnectionInfo`] as an
//! extension.
//!
//! Invariants:
//! * nothing waits without a bound: handshake and first byte share one timeout, heads have one, HTTP/2 peers are pinged;
//! * HTTP/2 is never guessed from the first bytes of a TLS connection; without TLS the client's preface decides;
//! * after the shutdown signal no connection is accepted, each one is told (`GOAWAY`, `Connection: close`), those still open
//!   after [`Limits::drain_timeout`] are cut. Endless answers (watches) have to end themselves at the same signal.
//!
//! When it breaks: a failed handshake or connection ends that connection only; a failed accept is tried again.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::limits::Limits;
use crate::tls::TlsSettings;

/// How a client reached us; an extension of every request.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The client's certificate and intermediates as sent, leaf first. The client has proved to hold the leaf's key; nothing
    /// else about them has been checked.
    pub peer_certificates: Arc<[CertificateDer<'static>]>,
    /// A place for the authenticator to keep what it found out about the certificates, so that it verifies a chain once a
    /// connection and not once a request.
    pub memo: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
    goaway: Arc<Notify>,
}

impl ConnectionInfo {
    /// Asks the client to open another connection for what comes next; requests under way are finished.
    pub fn close_gracefully(&self) {
        self.goaway.notify_one();
    }

    /// A connection that never was: for requests made inside the process.
    pub fn in_process() -> ConnectionInfo {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        ConnectionInfo {
            peer: address,
            local: address,
            tls: true,
            peer_certificates: Arc::from([]),
            memo: Arc::default(),
            goaway: Arc::default(),
        }
    }
}

/// What lies between TCP and HTTP.
#[derive(Clone)]
pub enum Transport {
    /// Nothing. For loopback health endpoints only.
    Plain,
    /// TLS, with settings that may be exchanged while running.
    Tls(Arc<TlsSettings>),
}

/// Why a server stopped. All of them are final: the process has to end or to bind anew.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener has no address.
    #[error("the listener is gone")]
    Listener(#[source] io::Error),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Accepts until `shutdown`, then drains. Returns how many connections had to be cut.
pub async fn serve<S, B>(
    listener: TcpListener,
    transport: Transport,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<usize, ServeError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let local = listener.local_addr().map_err(ServeError::Listener)?;
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let limits = Arc::new(limits);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: others will be closed soon. A client that vanished costs a moment too.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = Connection {
            info: ConnectionInfo { peer, local, tls: false, ..ConnectionInfo::in_process() },
            transport: transport.clone(),
            service: service.clone(),
            limits: Arc::clone(&limits),
            shutdown: shutdown.clone(),
        };
        let cut = cut.clone();
        connections.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = cut.cancelled() => {}
                ended = connection.run(stream) => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, error, "connection ended");
                    }
                }
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain_timeout, connections.wait()).await.is_ok() {
        return Ok(0);
    }
    let left = connections.len();
    cut.cancel();
    connections.wait().await;
    Ok(left)
}

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The first read of a connection takes at most so much; the rest is hyper's.
const FIRST_READ_BYTES_MAX: usize = 4096;

/// What every HTTP/2 client sends first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are written whole; waiting for more only delays them. Not fatal on exotic sockets.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    Ok((stream, peer, slot))
}

struct Connection<S> {
    info: ConnectionInfo,
    transport: Transport,
    service: S,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
}

impl<S, B> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn run(self, stream: TcpStream) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + self.limits.first_byte_timeout;
        match self.transport.clone() {
            Transport::Plain => {
                let Some(stream) = first(stream, deadline, &self.shutdown).await? else { return Ok(()) };
                let version2 = stream.first.starts_with(HTTP2_PREFACE);
                self.http(stream, version2).await
            }
            Transport::Tls(settings) => self.tls(stream, &settings, deadline).await,
        }
    }

    async fn tls(
        mut self,
        stream: TcpStream,
        settings: &TlsSettings,
        deadline: tokio::time::Instant,
    ) -> Result<(), String> {
        let acceptor = tokio_rustls::TlsAcceptor::from(settings.current());
        let stream = tokio::time::timeout_at(deadline, acceptor.accept(stream))
            .await
            .map_err(|_| "TLS handshake took too long".to_string())?
            .map_err(|e| format!("TLS handshake: {e}"))?;
        let session = stream.get_ref().1;
        let version2 = session.alpn_protocol() == Some(b"h2");
        self.info.tls = true;
        if let Some(chain) = session.peer_certificates() {
            self.info.peer_certificates = chain.iter().map(|c| c.clone().into_owned()).collect();
        }
        let Some(stream) = first(stream, deadline, &self.shutdown).await? else { return Ok(()) };
        self.http(stream, version2).await
    }

    async fn http<I>(self, stream: I, version2: bool) -> Result<(), String>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (info, service) = (self.info.clone(), self.service.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(info.clone());
            service.clone().oneshot(request)
        });
        let io = TokioIo::new(stream);
        if version2 {
            let mut connection = pin!(self.http2().serve_connection(io, service));
            drive(connection.as_mut(), |c| c.graceful_shutdown(), &self.shutdown, &self.info.goaway).await
        } else {
            let mut connection = pin!(self.http1().serve_connection(io, service).with_upgrades());
            drive(connection.as_mut(), |c| c.graceful_shutdown(), &self.shutdown, &self.info.goaway).await
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            // Without a timer hyper silently ignores the timeout.
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_headers(self.limits.headers_max)
            .max_header_size(self.limits.head_bytes_max)
            .max_buf_size(self.limits.head_bytes_max.max(HTTP1_BUFFER_BYTES_MIN))
            .half_close(false)
            .pipeline_flush(true);
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let limits = &self.limits;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.stream_window_bytes.saturating_mul(CONNECTION_WINDOWS))
            .max_frame_size(limits.stream_window_bytes.min(HTTP2_FRAME_BYTES_MAX))
            .max_send_buf_size(limits.send_buffer_bytes_max)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout);
        builder
    }
}

/// The stream with its first bytes; `None` when the server ends while the client, which may keep a connection in reserve, has not
/// said anything.
async fn first<I>(
    stream: I,
    deadline: tokio::time::Instant,
    shutdown: &CancellationToken,
) -> Result<Option<First<I>>, String>
where
    I: AsyncRead + Unpin,
{
    tokio::select! {
        () = shutdown.cancelled() => Ok(None),
        first = First::read(stream, deadline) => first.map(Some),
    }
}

/// Polls a connection to its end; tells it once to finish when asked to.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    finish: impl Fn(Pin<&mut C>),
    shutdown: &CancellationToken,
    goaway: &Notify,
) -> Result<(), String>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(|e| chain(&e)),
        () = shutdown.cancelled() => {}
        () = goaway.notified() => {}
    }
    finish(connection.as_mut());
    connection.await.map_err(|e| chain(&e))
}

/// hyper refuses smaller buffers.
const HTTP1_BUFFER_BYTES_MIN: usize = 64 * 1024;
/// How many streams may fill their window at once before the connection's own window stops them all.
const CONNECTION_WINDOWS: u32 = 16;
/// RFC 9113: frames of 2^24 - 1 bytes at most.
const HTTP2_FRAME_BYTES_MAX: u32 = (1 << 24) - 1;

fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        out.push_str(": ");
        out.push_str(&inner.to_string());
        source = inner.source();
    }
    out
}

/// A stream whose first bytes have been read already: so that the wait for them has a timeout of its own.
struct First<I> {
    first: Bytes,
    inner: I,
}

impl<I: AsyncRead + Unpin> First<I> {
    async fn read(mut inner: I, deadline: tokio::time::Instant) -> Result<First<I>, String> {
        let mut first = BytesMut::with_capacity(FIRST_READ_BYTES_MAX);
        let mut limited = (&mut inner).take(FIRST_READ_BYTES_MAX as u64);
        match tokio::time::timeout_at(deadline, limited.read_buf(&mut first)).await {
            Err(_) => Err("no request came in time".to_string()),
            Ok(Err(error)) => Err(format!("before the first request: {error}")),
            // The end of the stream: hyper sees it again and ends the connection.
            Ok(Ok(_)) => Ok(First { first: first.freeze(), inner }),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for First<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, out);
        }
        let take = self.first.len().min(out.remaining());
        out.put_slice(&self.first[..take]);
        self.first.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for First<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
