//! A watch over WebSocket: an event is a message, text where the form is text and binary where it is not.
//!
//! Its handshake needs an origin (403 without), because a WebSocket carries a browser's cookies and certificates across sites.
//!
//! upstream: apiserver/pkg/endpoints/handlers/watch.go HandleWS; golang.org/x/net/websocket checkOrigin

use std::time::Duration;

use copepod_registry::Watch;
use http::{HeaderMap, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::Message;

use super::Framer;
use crate::answer::Answer;
use crate::negotiate::{Accepted, Media};
use crate::websocket::{self, refusal};

/// The four bytes of length before a protobuf event in a stream: a message has its own.
const STREAM_LENGTH_BYTES: usize = 4;

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
    let Some(client) = client else { return websocket::not_websocket() };
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

async fn send<S>(watch: Watch, framer: Framer, text: bool, timeout: Duration, client: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let messages = futures::stream::unfold((watch, framer), move |(mut watch, mut framer)| async move {
        let event = watch.next().await?;
        let message = message(&mut framer, &event, &watch, text)?;
        Some((message, (watch, framer)))
    });
    websocket::send(messages, Some(timeout), client).await;
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
    let key = websocket::key(headers)?;
    if !is_origin(websocket::text(headers, header::ORIGIN)) {
        return Err(refusal(StatusCode::FORBIDDEN, ""));
    }
    // The first of several would be a guess.
    let protocol = websocket::text(headers, header::SEC_WEBSOCKET_PROTOCOL);
    if protocol.contains(',') {
        return Err(refusal(StatusCode::BAD_REQUEST, ""));
    }
    Ok(websocket::switching(key, protocol))
}

/// An absolute URL or path. upstream: net/url ParseRequestURI, as far as an Origin header goes
fn is_origin(origin: &str) -> bool {
    let scheme = origin.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    origin.starts_with('/') || is_scheme
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
