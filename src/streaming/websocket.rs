//! Which protocol a client asks for, and the channel frames of the WebSocket ones.
//!
//! A message of the channel protocols is one byte of channel number and the data (`channel.k8s.io` and its versions), or
//! one ASCII digit and the data in base64 (`base64.channel.k8s.io`). Version 5 adds the close signal: channel 255 with
//! one byte, the channel that the client will not write to any more.
//!
//! upstream: streaming/pkg/httpstream/wsstream/conn.go, apiserver/pkg/util/proxy/websocket.go

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::StreamError;

/// Sub-protocols of exec and attach, best first.
pub const REMOTE_COMMAND_PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];

/// Sub-protocol of a port-forward whose SPDY bytes travel in WebSocket messages.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// SPDY stream protocol of port-forward.
pub const PORT_FORWARD_PROTOCOL: &str = "portforward.k8s.io";

/// Largest message taken from a client. kubectl writes 32 KiB at most; upstream's limit is 32 KiB buffers too, but other
/// clients send whole files.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Output kept back when the client does not read, before the writer has to wait.
const WRITE_BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// Channel number that carries the close signal.
const CLOSE_SIGNAL: u8 = 255;

/// What an upgrade request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientProtocol {
    /// No upgrade at all: an ordinary request.
    None,
    /// SPDY/3.1.
    Spdy,
    /// WebSocket with these offered sub-protocols (none at all means the oldest channel protocol).
    WebSocket {
        /// Value of `Sec-WebSocket-Key`.
        key: String,
        /// Sub-protocols in the client's order.
        offered: Vec<String>,
    },
}

impl ClientProtocol {
    /// Reads the upgrade headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let values = |name: header::HeaderName| {
            headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .map(|word| word.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let says = |name, word: &str| values(name).iter().any(|value| value.eq_ignore_ascii_case(word));
        if !says(header::CONNECTION, "upgrade") {
            return ClientProtocol::None;
        }
        if says(header::UPGRADE, "spdy/3.1") {
            return ClientProtocol::Spdy;
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
        match key {
            Some(key) if says(header::UPGRADE, "websocket") => ClientProtocol::WebSocket {
                key: key.to_owned(),
                offered: values(header::SEC_WEBSOCKET_PROTOCOL),
            },
            _ => ClientProtocol::None,
        }
    }

    /// Chooses the best of `supported` that the client offers. `None`: the client must get 400.
    ///
    /// A WebSocket client without any sub-protocol is served the oldest, unless only the tunnel would do.
    pub fn negotiate(&self, supported: &[&'static str]) -> Option<Negotiated> {
        let ClientProtocol::WebSocket { key, offered } = self else { return None };
        let protocol = if offered.is_empty() {
            supported.contains(&"channel.k8s.io").then_some("")?
        } else {
            supported.iter().find(|name| offered.iter().any(|offer| offer == *name)).copied()?
        };
        Some(Negotiated { key: key.clone(), protocol })
    }
}

/// A chosen WebSocket sub-protocol.
#[derive(Debug, Clone)]
pub struct Negotiated {
    key: String,
    /// Name of the sub-protocol; empty when the client offered none.
    pub protocol: &'static str,
}

impl Negotiated {
    /// Headers of the 101 answer.
    pub fn response_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(self.key.as_bytes())) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if !self.protocol.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        }
        headers
    }

    /// How channels are framed.
    pub fn channels(&self) -> ChannelProtocol {
        ChannelProtocol {
            base64: self.protocol.ends_with("base64.channel.k8s.io"),
            version: match self.protocol.split_once('.') {
                Some(("v5", _)) => 5,
                Some(("v4", _)) => 4,
                _ => 1,
            },
        }
    }
}

/// How channels are framed in a channel protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelProtocol {
    /// Data in base64 text messages.
    pub base64: bool,
    /// 5: close signal and structured status. 4: structured status. 1: status as text, none on success.
    pub version: u8,
}

/// One message of a channel protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Data for a channel.
    Data { channel: u8, data: Bytes },
    /// The peer will not write to this channel any more.
    CloseSignal { channel: u8 },
}

impl ChannelProtocol {
    fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(1 + data.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + channel));
            BASE64.encode_string(data, &mut text);
            return Message::text(text);
        }
        let mut bytes = BytesMut::with_capacity(1 + data.len());
        bytes.put_u8(channel);
        bytes.put_slice(data);
        Message::Binary(bytes.freeze())
    }

    fn decode(self, message: Bytes) -> Result<Option<Frame>, StreamError> {
        // upstream ignores empty messages, and takes text and binary messages alike.
        let Some(&first) = message.first() else { return Ok(None) };
        let data = message.slice(1..);
        if self.base64 {
            let channel =
                first.checked_sub(b'0').ok_or_else(|| StreamError::Protocol("channel digit".into()))?;
            let data =
                BASE64.decode(&data).map_err(|error| StreamError::Protocol(format!("base64: {error}")))?;
            return Ok(Some(Frame::Data { channel, data: data.into() }));
        }
        if first == CLOSE_SIGNAL && self.version >= 5 {
            return match data.as_ref() {
                [channel] => Ok(Some(Frame::CloseSignal { channel: *channel })),
                _ => {
                    Err(StreamError::Protocol("single channel byte should follow stream close signal".into()))
                }
            };
        }
        Ok(Some(Frame::Data { channel: first, data }))
    }
}

/// The server's end of a WebSocket, after the 101.
pub(crate) async fn server<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    config.max_write_buffer_size = WRITE_BUFFER_BYTES_MAX;
    config.write_buffer_size = 0;
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

/// Reads messages; `None` when the client closed.
pub(crate) async fn next_message<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut SplitStream<WebSocketStream<S>>,
) -> Result<Option<Bytes>, StreamError> {
    while let Some(message) = source.next().await {
        match message.map_err(StreamError::from) {
            Ok(Message::Binary(data)) => return Ok(Some(data)),
            Ok(Message::Text(text)) => return Ok(Some(Bytes::from(text))),
            Ok(Message::Close(_)) | Err(StreamError::Closed) => return Ok(None),
            // Pings are answered by the WebSocket layer.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Reads channel frames.
pub(crate) async fn next_frame<S: AsyncRead + AsyncWrite + Unpin>(
    protocol: ChannelProtocol,
    source: &mut SplitStream<WebSocketStream<S>>,
) -> Result<Option<Frame>, StreamError> {
    while let Some(message) = next_message(source).await? {
        if let Some(frame) = protocol.decode(message)? {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

/// Writes one channel frame.
pub(crate) async fn send_frame<S: AsyncRead + AsyncWrite + Unpin>(
    protocol: ChannelProtocol,
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    channel: u8,
    data: &[u8],
) -> Result<(), StreamError> {
    use futures::SinkExt;
    Ok(sink.send(protocol.encode(channel, data)).await?)
}

/// The closing message of an orderly end.
pub(crate) fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_best_offer_wins() {
        let websocket = |offer: &'static str| {
            let mut all = vec![
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-key", "k"),
            ];
            if !offer.is_empty() {
                all.push(("sec-websocket-protocol", offer));
            }
            ClientProtocol::of(&headers(&all))
        };
        for (offer, want) in [
            ("v4.channel.k8s.io, v5.channel.k8s.io", Some("v5.channel.k8s.io")),
            ("base64.channel.k8s.io,channel.k8s.io", Some("channel.k8s.io")),
            ("v4.base64.channel.k8s.io", Some("v4.base64.channel.k8s.io")),
            ("", Some("")),
            ("v9.channel.k8s.io", None),
        ] {
            let chosen = websocket(offer).negotiate(REMOTE_COMMAND_PROTOCOLS);
            assert_eq!(chosen.map(|chosen| chosen.protocol), want, "{offer:?}");
        }
        assert_eq!(websocket("").negotiate(&[TUNNEL_PROTOCOL]).map(|chosen| chosen.protocol), None);
        let spdy = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert_eq!(ClientProtocol::of(&spdy), ClientProtocol::Spdy);
        assert_eq!(ClientProtocol::of(&headers(&[("upgrade", "SPDY/3.1")])), ClientProtocol::None);
    }

    /// RFC 6455's own example.
    #[test]
    fn the_key_is_accepted() {
        let negotiated = Negotiated { key: "dGhlIHNhbXBsZSBub25jZQ==".into(), protocol: "v5.channel.k8s.io" };
        assert_eq!(negotiated.response_headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_there_and_back() {
        let v5 = ChannelProtocol { base64: false, version: 5 };
        let v4 = ChannelProtocol { base64: false, version: 4 };
        let text = ChannelProtocol { base64: true, version: 1 };
        assert_eq!(v5.encode(1, b"hi"), Message::Binary(Bytes::from_static(b"\x01hi")));
        assert_eq!(text.encode(1, b"hi"), Message::text("1aGk="));
        let data =
            |channel, data: &'static [u8]| Some(Frame::Data { channel, data: Bytes::from_static(data) });
        for (protocol, message, want) in [
            (v5, &b"\x00in"[..], data(0, b"in")),
            (v5, b"\xff\x00", Some(Frame::CloseSignal { channel: 0 })),
            (v4, b"\xff\x00", data(255, b"\0")),
            (text, b"0aW4=", data(0, b"in")),
            (v5, b"", None),
        ] {
            assert_eq!(
                protocol.decode(Bytes::copy_from_slice(message)).expect("a frame"),
                want,
                "{message:?}"
            );
        }
        assert!(v5.decode(Bytes::from_static(b"\xff\x00\x01")).is_err());
        assert!(text.decode(Bytes::from_static(b"0!")).is_err());
    }
}
