//! The client side of an HTTP/1.1 upgrade on a connection that is already open.
//!
//! Small on purpose: one request without body, one response head, then raw bytes. A full HTTP client would have to be
//! made to give its connection back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::StreamError;

/// Longest response head taken (Go's default for its server is 1 MiB; streaming servers send a few hundred bytes).
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most of a refusal's body that is read to be handed to the client.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What to ask the backend for.
#[derive(Debug, Clone)]
pub struct UpgradeRequest {
    /// Request method: `POST` for SPDY as kubectl sends it, `GET` for WebSocket.
    pub method: http::Method,
    /// Path and query.
    pub target: String,
    /// Value of `Host`.
    pub host: String,
    /// The other headers, `Connection` and `Upgrade` among them.
    pub headers: HeaderMap,
}

impl UpgradeRequest {
    /// An upgrade to SPDY/3.1 that offers these stream protocols, best first.
    pub fn spdy(host: &str, target: &str, protocols: &[&str]) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        for protocol in protocols {
            if let Ok(value) = HeaderValue::from_str(protocol) {
                headers.append("x-stream-protocol-version", value);
            }
        }
        UpgradeRequest { method: http::Method::POST, target: target.into(), host: host.into(), headers }
    }

    /// The same upgrade that a client asked for, sent on to another server. Hop-by-hop headers other than the
    /// upgrade's own and the client's credentials stay behind.
    pub fn forward(method: http::Method, host: &str, target: &str, client: &HeaderMap) -> Self {
        let mut headers = client.clone();
        for name in [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        UpgradeRequest { method, target: target.into(), host: host.into(), headers }
    }
}

/// The backend's answer.
#[derive(Debug)]
pub enum Upgrade<S> {
    /// 101: the connection is a raw stream now.
    Switched {
        /// Headers of the 101, to be shown to the client.
        headers: HeaderMap,
        /// The stream, with what came right behind the head.
        stream: Prefixed<S>,
    },
    /// Anything else: an ordinary answer, which the client gets as it is.
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
        /// Its body, cut after 64 KiB.
        body: Bytes,
    },
}

/// Sends an upgrade request on `stream` and reads the answer.
pub async fn upgrade<S>(mut stream: S, request: &UpgradeRequest) -> Result<Upgrade<S>, StreamError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if request.target.contains(['\r', '\n', ' ']) || request.host.contains(['\r', '\n', ' ']) {
        return Err(StreamError::Protocol("target or host contains white space".into()));
    }
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.target, request.host);
    let mut bytes = Vec::with_capacity(head.len() + 256);
    bytes.append(&mut std::mem::take(&mut head).into_bytes());
    for (name, value) in &request.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    stream.write_all(&bytes).await?;
    stream.flush().await?;

    let mut buffer = BytesMut::with_capacity(1024);
    let end = loop {
        if let Some(at) = find(&buffer, b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(StreamError::Protocol("response head too long".into()));
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(StreamError::Closed);
        }
    };
    let (status, headers) = parse_head(&buffer[..end])?;
    buffer.advance(end + 4);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Upgrade::Switched {
            headers,
            stream: Prefixed { prefix: buffer.freeze(), inner: stream },
        });
    }
    let body = read_refusal(&mut stream, buffer, &headers).await;
    Ok(Upgrade::Refused { status, headers, body })
}

/// The body of a refusal, as far as it comes: a broken body must not hide the status.
async fn read_refusal(
    stream: &mut (impl AsyncRead + Unpin),
    mut body: BytesMut,
    headers: &HeaderMap,
) -> Bytes {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0)
        .min(REFUSAL_BYTES_MAX);
    while body.len() < announced {
        match stream.read_buf(&mut body).await {
            Ok(read) if read > 0 => {}
            _ => break,
        }
    }
    body.truncate(announced);
    body.freeze()
}

fn parse_head(head: &[u8]) -> Result<(StatusCode, HeaderMap), StreamError> {
    let bad = |what: &str| StreamError::Protocol(format!("response head: {what}"));
    let text = std::str::from_utf8(head).map_err(|_| bad("not text"))?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Err(bad("not HTTP/1"));
    }
    let status = words.next().and_then(|code| code.parse().ok()).ok_or_else(|| bad("no status"))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("line without colon"))?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("header name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| bad("header value"))?;
        headers.append(name, value);
    }
    Ok((status, headers))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A stream of which some bytes were read already.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// A stream that gives `prefix` first.
    pub fn new(prefix: Bytes, inner: S) -> Self {
        Prefixed { prefix, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, out);
        }
        let take = self.prefix.len().min(out.remaining());
        out.put_slice(&self.prefix[..take]);
        self.prefix.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::panic)] // A test's way to fail.
mod tests {
    use super::*;

    async fn answer(response: &'static [u8]) -> Result<Upgrade<tokio::io::DuplexStream>, StreamError> {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut request = vec![0; 4096];
            assert!(far.read(&mut request).await.expect("a request") > 0);
            far.write_all(response).await.expect("written");
            far.shutdown().await.expect("closed");
        });
        upgrade(near, &UpgradeRequest::spdy("h", "/exec/x", &["v4.channel.k8s.io"])).await
    }

    /// Only a 101 makes a stream, and bytes behind the head are not lost.
    #[tokio::test]
    async fn only_101_switches() {
        let switched =
            answer(b"HTTP/1.1 101 Switching Protocols\r\nX-Stream-Protocol-Version: v4\r\n\r\nearly").await;
        let Ok(Upgrade::Switched { headers, mut stream }) = switched else { panic!("not switched") };
        assert_eq!(headers["x-stream-protocol-version"], "v4");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("text");
        assert_eq!(rest, "early");

        let refused = answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngoneXX").await;
        let Ok(Upgrade::Refused { status, body, .. }) = refused else { panic!("not refused") };
        assert_eq!((status.as_u16(), &body[..]), (404, &b"gone"[..]));

        assert!(matches!(answer(b"SSH-2.0\r\n\r\n").await, Err(StreamError::Protocol(_))));
        assert!(matches!(answer(b"HTTP/1.1 101").await, Err(StreamError::Closed)));
    }
}
