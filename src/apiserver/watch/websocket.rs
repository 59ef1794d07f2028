//! A watch over WebSocket: an event is a message, text where the form is text and binary where it is not.
//!
//! The client sends nothing that counts; when it closes, the watch ends. A refusal of the handshake has no Status, as upstream's
//! (its library answers by itself): 403 without an origin, because a WebSocket carries a browser's cookies and certificates
//! across sites, 400 else.
//!
//! upstream: apiserver/pkg/endpoints/handlers/watch.go HandleWS; golang.org/x/net/websocket hybiServerHandshaker

use std::time::Duration;

use axum::body::Body;
use copepod_registry::Watch;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};

use super::Framer;
use crate::answer::Answer;
use crate::negotiate::{Accepted, Media};

/// Clients have nothing to say.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// An event that the client does not read yet; a second one waits, and the watch falls behind and is closed.
const WRITE_BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A client that reads nothing any more is not waited for.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// The four bytes of length before a protobuf event in a stream: a message has its own.
const STREAM_LENGTH_BYTES: usize = 4;

/// Whether the client wants its watch so. upstream: httpstream/wsstream IsWebSocketRequest
pub fn is_asked(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("");
    text(header::UPGRADE).eq_ignore_ascii_case("websocket")
        && text(header::CONNECTION).split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"))
}

/// Switches protocols and sends the watch, or refuses.
pub fn response(
    watch: Watch,
    accepted: Accepted,
    timeout: Duration,
    guard: impl Send + 'static,
    headers: &HeaderMap,
    client: Option<OnUpgrade>,
) -> Answer {
    let switched = match handshake(headers) {
        Ok(switched) => switched,
        Err(refusal) => return refusal,
    };
    let Some(client) = client else { return refusal(StatusCode::BAD_REQUEST, "not websocket protocol") };
    let text = accepted.media != Media::Protobuf;
    let framer = Framer { accepted, columns_sent: false };
    tokio::spawn(async move {
        let _guard = guard;
        match client.await {
            Ok(client) => send(watch, framer, text, timeout, TokioIo::new(client)).await,
            Err(error) => tracing::debug!(%error, "the client went before its upgrade was done"),
        }
    });
    switched
}

async fn send<S>(mut watch: Watch, mut framer: Framer, text: bool, timeout: Duration, client: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
    let (mut out, mut received) = socket.split();
    let events = async {
        while let Some(event) = watch.next().await {
            let Some(message) = message(&mut framer, &event, &watch, text) else { break };
            if let Err(error) = out.send(message).await {
                tracing::debug!(%error, "a watcher went");
                break;
            }
        }
    };
    // Until the client closes; pings are answered by the reading.
    let closed = async { while let Some(Ok(_)) = received.next().await {} };
    tokio::select! {
        () = tokio::time::sleep(timeout) => {}
        () = closed => {}
        () = events => {}
    }
    let mut socket = match received.reunite(out) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "two halves of different sockets"),
    };
    let orderly = async {
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        socket.close(Some(close)).await?;
        socket.get_mut().shutdown().await?;
        Ok::<(), tokio_tungstenite::tungstenite::Error>(())
    };
    match tokio::time::timeout(CLOSE_TIME_MAX, orderly).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a watcher went"),
        Err(_) => tracing::debug!("a watcher does not read"),
    }
}

/// An event as a message; `None`: it cannot be written, and the watch ends.
fn message(
    framer: &mut Framer,
    event: &copepod_registry::WatchEvent,
    watch: &Watch,
    text: bool,
) -> Option<Message> {
    let mut out = bytes::BytesMut::new();
    if let Err(error) = framer.write(event, watch, &mut out) {
        tracing::error!(%error, resource = ?watch.served(), "a watch ends: an event cannot be encoded");
        return None;
    }
    if !text {
        return Some(Message::Binary(out.split_off(STREAM_LENGTH_BYTES.min(out.len())).freeze()));
    }
    match tokio_tungstenite::tungstenite::Utf8Bytes::try_from(out.freeze()) {
        Ok(text) => Some(Message::Text(text)),
        Err(error) => {
            tracing::error!(%error, resource = ?watch.served(), "a watch ends: an event is no text");
            None
        }
    }
}

/// The 101, or why not.
fn handshake(headers: &HeaderMap) -> Result<Answer, Answer> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("").trim();
    let key = text(header::SEC_WEBSOCKET_KEY);
    if key.is_empty() {
        return Err(refusal(StatusCode::BAD_REQUEST, "mismatch challenge/response"));
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        let mut refusal = refusal(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
        refusal.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(refusal);
    }
    if !is_origin(text(header::ORIGIN)) {
        return Err(refusal(StatusCode::FORBIDDEN, ""));
    }
    // The first of several would be a guess.
    let protocol = text(header::SEC_WEBSOCKET_PROTOCOL);
    if protocol.contains(',') {
        return Err(refusal(StatusCode::BAD_REQUEST, ""));
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = answer.headers_mut();
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if !protocol.is_empty()
        && let Ok(protocol) = HeaderValue::from_str(protocol)
    {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(answer)
}

/// An absolute URL or path. upstream: net/url ParseRequestURI, as far as an Origin header goes
fn is_origin(origin: &str) -> bool {
    let scheme = origin.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    origin.starts_with('/') || is_scheme
}

fn refusal(code: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = code;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header lines and what an upstream server answered them with.
    #[test]
    fn handshakes_are_answered_as_upstream() {
        let good = [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13")];
        let origin = ("origin", "http://x");
        for (name, lines, want) in [
            ("no origin", vec![good[0], good[1]], "403 "),
            ("no URL", vec![good[0], good[1], ("origin", "%zz://::")], "403 "),
            ("no protocol", vec![good[0], good[1], origin], "101 s3pPLMBiTxaQ9kYGzzhZRbK+xOo= -"),
            (
                "a protocol",
                vec![good[0], good[1], origin, ("sec-websocket-protocol", "foo")],
                "101 s3pPLMBiTxaQ9kYGzzhZRbK+xOo= foo",
            ),
            ("two", vec![good[0], good[1], origin, ("sec-websocket-protocol", "foo, bar")], "400 "),
            ("an old version", vec![good[0], ("sec-websocket-version", "8"), origin], "400 13"),
            ("no key", vec![good[1], origin], "400 "),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(name, HeaderValue::from_static(value));
            }
            let answer = match handshake(&headers) {
                Ok(answer) | Err(answer) => answer,
            };
            let header =
                |name: &str| answer.headers().get(name).map(|v| v.to_str().expect("text").to_string());
            let got = match header("sec-websocket-accept") {
                Some(accept) => {
                    format!("101 {accept} {}", header("sec-websocket-protocol").unwrap_or("-".into()))
                }
                None => format!(
                    "{} {}",
                    answer.status().as_u16(),
                    header("sec-websocket-version").unwrap_or_default()
                ),
            };
            assert_eq!(got, want, "{name}");
        }
    }
}
