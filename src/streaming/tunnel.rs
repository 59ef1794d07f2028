//! Copies between an upgraded client and an upgraded backend.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    StreamError,
    websocket::{next_message, normal_close, server},
};

/// Bytes read from the backend at once; one WebSocket message.
const CHUNK_BYTES: usize = 32 * 1024;

/// Copies bytes both ways until both sides are done. Only for a backend that answered 101.
pub async fn splice<A, B>(mut client: A, mut backend: B) -> Result<(), StreamError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
    Ok(())
}

/// SPDY in WebSocket: the messages of `client` carry the bytes of `backend`, message boundaries mean nothing.
///
/// `client` is the stream after the 101 for [`crate::TUNNEL_PROTOCOL`]; `backend` is the runtime's stream after its 101
/// for SPDY/3.1.
// upstream: client-go/tools/portforward/tunneling_connection.go, apiserver/pkg/util/proxy/streamtunnel.go
pub async fn tunnel<C, B>(client: C, backend: B) -> Result<(), StreamError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = server(client).await.split();
    let (mut backend_read, mut backend_write) = tokio::io::split(backend);
    let to_backend = async {
        while let Some(data) = next_message(&mut source).await? {
            backend_write.write_all(&data).await?;
            backend_write.flush().await?;
        }
        backend_write.shutdown().await?;
        Ok::<(), StreamError>(())
    };
    let to_client = async {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            buffer.reserve(CHUNK_BYTES);
            if backend_read.read_buf(&mut buffer).await? == 0 {
                sink.send(normal_close()).await?;
                return Ok::<(), StreamError>(());
            }
            let chunk: Bytes = buffer.split().freeze();
            sink.send(Message::Binary(chunk)).await?;
        }
    };
    // Either end is the end: SPDY has no half-closed connections.
    tokio::select! {
        result = to_backend => result,
        result = to_client => result,
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

    use super::*;

    /// Bytes arrive whatever the message boundaries, and the backend's end closes the WebSocket.
    #[tokio::test]
    async fn bytes_pass_the_tunnel() {
        let (client, near) = tokio::io::duplex(4096);
        let (far, mut backend) = tokio::io::duplex(4096);
        let tunnelled = tokio::spawn(tunnel(near, far));
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        for part in ["he", "l", "lo"] {
            client.send(Message::Binary(Bytes::from(part))).await.expect("sent");
        }
        let mut seen = [0; 5];
        backend.read_exact(&mut seen).await.expect("read");
        assert_eq!(&seen, b"hello");
        backend.write_all(b"world").await.expect("written");
        assert_eq!(client.next().await.expect("a message").expect("good").into_data(), "world");
        drop(backend);
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
        tunnelled.await.expect("joined").expect("an orderly end");
    }
}
