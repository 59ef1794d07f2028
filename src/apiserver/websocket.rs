//! The server's end of a WebSocket on which only the server speaks: watches and logs.
//!
//! The client sends nothing that counts; when it closes, the sending ends. A refusal of the handshake has no Status, as upstream's
//! (its library answers by itself).
//!
//! upstream: golang.org/x/net/websocket hybiServerHandshaker

use std::time::Duration;

use axum::body::Body;
use futures::{SinkExt as _, Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};

use crate::answer::Answer;

/// Clients have nothing to say.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// A message that the client does not read yet; a second one waits, and a watch falls behind and is closed.
const WRITE_BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A client that reads nothing any more is not waited for.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Whether the client wants its answer so. upstream: httpstream/wsstream IsWebSocketRequest
pub fn is_asked(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("");
    text(header::UPGRADE).eq_ignore_ascii_case("websocket")
        && text(header::CONNECTION).split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"))
}

/// The key of a handshake, or why it is none.
pub fn key(headers: &HeaderMap) -> Result<&str, Answer> {
    let key = text(headers, header::SEC_WEBSOCKET_KEY);
    if key.is_empty() {
        return Err(refusal(StatusCode::BAD_REQUEST, "mismatch challenge/response"));
    }
    if text(headers, header::SEC_WEBSOCKET_VERSION) != "13" {
        let mut refusal = refusal(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
        refusal.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(refusal);
    }
    Ok(key)
}

/// A header of a handshake, "" if absent or no text.
pub fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").trim()
}

/// The 101 to a key, with the sub-protocol that was chosen.
pub fn switching(key: &str, protocol: &str) -> Answer {
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
    answer
}

/// A handshake is refused.
pub fn refusal(code: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = code;
    answer
}

/// The connection cannot be switched (HTTP/2), whatever the headers say.
pub fn not_websocket() -> Answer {
    refusal(StatusCode::BAD_REQUEST, "not websocket protocol")
}

/// Sends messages until there are no more, the client closes or the time is over; then closes.
pub async fn send<S>(messages: impl Stream<Item = Message> + Send, timeout: Option<Duration>, client: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
    let (mut out, mut received) = socket.split();
    let sent = async {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            if let Err(error) = out.send(message).await {
                tracing::debug!(%error, "a client went");
                break;
            }
        }
    };
    // Until the client closes; pings are answered by the reading.
    let closed = async { while let Some(Ok(_)) = received.next().await {} };
    let late = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = late => {}
        () = closed => {}
        () = sent => {}
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
        Ok(Err(error)) => tracing::debug!(%error, "a client went"),
        Err(_) => tracing::debug!("a client does not read"),
    }
}
