//! Exec and attach: WebSocket channels on the client's side, SPDY streams on the runtime's.
//!
//! upstream: apiserver/pkg/util/proxy/streamtranslator.go, client-go/tools/remotecommand/v4.go

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{
    ChannelProtocol, StreamError,
    spdy::{Connection, ReadHalf, Role, Stream, WriteHalf},
    websocket::{self, Frame},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Output chunks that wait for the client, over all channels.
const OUTPUT_CHUNKS_MAX: usize = 16;

/// Longest status taken from the runtime.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// Which streams an exec or attach has. Query parameters `input`/`stdin`, `output`/`stdout`, `error`/`stderr`, `tty`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoteCommandOptions {
    /// The client writes standard input.
    pub stdin: bool,
    /// The client reads standard output.
    pub stdout: bool,
    /// The client reads standard error. Never together with `tty`.
    pub stderr: bool,
    /// The command has a terminal: there is a resize stream.
    pub tty: bool,
}

/// The SPDY streams of one command.
struct CommandStreams {
    error: ReadHalf,
    stdin: Option<WriteHalf>,
    stdout: Option<ReadHalf>,
    stderr: Option<ReadHalf>,
    resize: Option<WriteHalf>,
}

/// Runs the copy between `client` (the stream after the 101 for a channel protocol) and `backend` (the runtime's stream
/// after its 101 for SPDY/3.1 with `v4.channel.k8s.io`) until the command ends or the client goes.
pub async fn remote_command<C, B>(
    client: C,
    protocol: ChannelProtocol,
    backend: B,
    options: RemoteCommandOptions,
) -> Result<(), StreamError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Connection::new(backend, Role::Client)?;
    let CommandStreams { error, stdin, stdout, stderr, resize } = open_streams(&connection, options).await?;
    let (mut sink, mut source) = websocket::server(client).await.split();

    let input = async {
        while let Some(frame) = websocket::next_frame(protocol, &mut source).await? {
            match frame {
                Frame::Data { channel: STDIN, data } => write(stdin.as_ref(), data).await,
                Frame::Data { channel: RESIZE, data } => write(resize.as_ref(), data).await,
                // Data on a channel that the client does not write is dropped, as upstream does.
                Frame::Data { .. } => {}
                Frame::CloseSignal { channel: STDIN } => close(stdin.as_ref()).await,
                Frame::CloseSignal { channel: RESIZE } => close(resize.as_ref()).await,
                Frame::CloseSignal { channel } => {
                    return Err(StreamError::Protocol(format!("close signal for channel {channel}")));
                }
            }
        }
        Ok(())
    };
    let output = copy_output(&mut sink, protocol, options, error, stdout, stderr);
    // The client's end is the end, whatever the command does; the command's end is not waited for by its input.
    tokio::select! {
        result = input => result?,
        result = output => result?,
    }
    connection.close().await;
    Ok(())
}

async fn open_streams(
    connection: &Connection,
    options: RemoteCommandOptions,
) -> Result<CommandStreams, StreamError> {
    let open = async |wanted: bool, kind: &str| -> Result<Option<Stream>, StreamError> {
        if !wanted {
            return Ok(None);
        }
        connection.open(&[("streamType", kind)]).await.map(Some)
    };
    let reading = |stream: Stream| stream.split().0;
    let writing = |stream: Stream| stream.split().1;
    let error = connection.open(&[("streamType", "error")]).await?.split().0;
    Ok(CommandStreams {
        error,
        stdin: open(options.stdin, "stdin").await?.map(writing),
        stdout: open(options.stdout, "stdout").await?.map(reading),
        stderr: open(options.stderr && !options.tty, "stderr").await?.map(reading),
        resize: open(options.tty, "resize").await?.map(writing),
    })
}

/// Output until both streams end, then the status, then the close.
async fn copy_output<C: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<C>, Message>,
    protocol: ChannelProtocol,
    options: RemoteCommandOptions,
    mut error: ReadHalf,
    stdout: Option<ReadHalf>,
    stderr: Option<ReadHalf>,
) -> Result<(), StreamError> {
    // An empty message tells old clients that the command is there.
    let first = match options {
        RemoteCommandOptions { stdout: true, .. } => STDOUT,
        RemoteCommandOptions { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    websocket::send_frame(protocol, sink, first, b"").await?;

    let (merged, mut chunks) = mpsc::channel::<(u8, Bytes)>(OUTPUT_CHUNKS_MAX);
    let pump = |channel: u8, stream: Option<ReadHalf>, merged: mpsc::Sender<(u8, Bytes)>| async move {
        let Some(mut stream) = stream else { return };
        while let Some(chunk) = stream.next().await {
            if merged.send((channel, chunk)).await.is_err() {
                return;
            }
        }
    };
    let pumps = async {
        let (out, err) = (merged.clone(), merged);
        futures::join!(pump(STDOUT, stdout, out), pump(STDERR, stderr, err));
    };
    let deliver = async {
        while let Some((channel, chunk)) = chunks.recv().await {
            websocket::send_frame(protocol, sink, channel, &chunk).await?;
        }
        Ok::<(), StreamError>(())
    };
    let ((), delivered) = futures::join!(pumps, deliver);
    delivered?;

    let status = error.read_to_end(STATUS_BYTES_MAX).await;
    if let Some(status) = status_for(protocol, status) {
        websocket::send_frame(protocol, sink, ERROR, &status).await?;
    }
    sink.send(websocket::normal_close()).await?;
    Ok(())
}

/// Versions before 4 know a status only as the text of a failure.
fn status_for(protocol: ChannelProtocol, status: Vec<u8>) -> Option<Vec<u8>> {
    if protocol.version >= 4 {
        return (!status.is_empty()).then_some(status);
    }
    let text = String::from_utf8_lossy(&status);
    if text.is_empty() || text.contains("\"status\":\"Success\"") {
        return None;
    }
    let message = text
        .split_once("\"message\":\"")
        .and_then(|(_, rest)| rest.split_once("\",\"").or_else(|| rest.split_once("\"}")))
        .map(|(message, _)| message.replace("\\\"", "\"").replace("\\\\", "\\"));
    Some(message.unwrap_or_else(|| text.into_owned()).into_bytes())
}

/// Input for a command that does not read any more is dropped: its status is on the way.
async fn write(stream: Option<&WriteHalf>, data: Bytes) {
    if let Some(stream) = stream
        && !data.is_empty()
        && let Err(error) = stream.write(data).await
    {
        tracing::trace!(%error, "input of a command that has ended");
    }
}

async fn close(stream: Option<&WriteHalf>) {
    if let Some(stream) = stream
        && let Err(error) = stream.close().await
    {
        tracing::trace!(%error, "end of input of a command that has ended");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

    use super::*;

    const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

    /// Plays a runtime that runs `cat`: copies standard input to standard output until its end, then says success.
    async fn cat(backend: tokio::io::DuplexStream) {
        let mut connection = Connection::new(backend, Role::Server).expect("a connection");
        let mut streams = std::collections::HashMap::new();
        while streams.len() < 3 {
            let stream = connection.accept().await.expect("a stream");
            let kind = stream.header("streamtype").expect("a type").to_owned();
            streams.insert(kind, stream.split());
        }
        let (mut stdin, _keep) = streams.remove("stdin").expect("stdin");
        let (_, stdout) = streams.remove("stdout").expect("stdout");
        let (_, error) = streams.remove("error").expect("error");
        while let Some(chunk) = stdin.next().await {
            stdout.write(chunk).await.expect("written");
        }
        stdout.close().await.expect("closed");
        error.write(SUCCESS.into()).await.expect("written");
        error.close().await.expect("closed");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// v5: input, close signal, all output, then the status, then the close.
    #[tokio::test(start_paused = true)]
    async fn cat_ends_when_its_input_does() {
        let (client, near) = tokio::io::duplex(4096);
        let (far, backend) = tokio::io::duplex(4096);
        tokio::spawn(cat(backend));
        let protocol = ChannelProtocol { base64: false, version: 5 };
        let options = RemoteCommandOptions { stdin: true, stdout: true, ..Default::default() };
        let running = tokio::spawn(remote_command(near, protocol, far, options));
        let mut client = WebSocketStream::from_raw_socket(client, WsRole::Client, None).await;
        client.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.expect("sent");
        client.send(Message::Binary(Bytes::from_static(b"\xff\0"))).await.expect("sent");
        let mut seen = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            match message {
                Message::Binary(data) => seen.push(String::from_utf8_lossy(&data).into_owned()),
                Message::Close(_) => break,
                _ => {}
            }
        }
        assert_eq!(seen, ["\u{1}".to_owned(), "\u{1}hello".to_owned(), format!("\u{3}{SUCCESS}")]);
        running.await.expect("joined").expect("an orderly end");
    }

    #[test]
    fn old_protocols_get_text() {
        let old = ChannelProtocol { base64: false, version: 1 };
        let failure = r#"{"metadata":{},"status":"Failure","message":"command \"x\" failed","reason":"NonZeroExitCode"}"#;
        for (status, want) in
            [(SUCCESS, None), (failure, Some(r#"command "x" failed"#)), ("no json", Some("no json"))]
        {
            assert_eq!(status_for(old, status.into()), want.map(|text| text.as_bytes().to_vec()), "{status}");
        }
        let v4 = ChannelProtocol { base64: false, version: 4 };
        assert_eq!(status_for(v4, failure.into()), Some(failure.into()));
    }
}
