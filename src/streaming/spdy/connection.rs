//! One SPDY connection: a task that reads, a task that writes, and the streams between them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
};

use super::frame::{Decoder, Encoder, Frame, Headers};
use crate::StreamError;

/// Frames that wait for the writer; each holds at most one read's worth of data.
const OUTBOUND_FRAMES_MAX: usize = 16;

/// Chunks a stream may hold before the connection waits for its reader.
const INBOUND_CHUNKS_MAX: usize = 16;

/// Streams of one connection. An exec has five; a port-forward two per connection forwarded.
const STREAMS_MAX: usize = 1000;

/// How long the end of a connection waits for its goodbye to be written.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);

/// Which side of the connection this is; decides the ids of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that asked for the upgrade: odd ids.
    Client,
    /// The side that answered: even ids.
    Server,
}

type Streams = Arc<Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

/// One SPDY connection. Dropping it ends both its tasks and thereby all its streams.
pub struct Connection {
    next_id: AtomicU32,
    streams: Streams,
    outbound: mpsc::Sender<Frame>,
    incoming: mpsc::Receiver<Stream>,
    _tasks: JoinSet<()>,
}

/// One stream of a connection, open in both directions.
pub struct Stream {
    headers: Headers,
    read: ReadHalf,
    write: WriteHalf,
}

/// The direction from the peer.
pub struct ReadHalf {
    chunks: mpsc::Receiver<Bytes>,
}

/// The direction to the peer. Closing is by [`WriteHalf::close`]; a dropped half leaves the stream open, as the peer of
/// an exec whose standard input nobody holds must not take that for its end.
pub struct WriteHalf {
    id: u32,
    outbound: mpsc::Sender<Frame>,
}

impl Connection {
    /// Takes over an upgraded byte stream.
    pub fn new<S>(stream: S, role: Role) -> Result<Self, StreamError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (outbound, queue) = mpsc::channel(OUTBOUND_FRAMES_MAX);
        let (announce, incoming) = mpsc::channel(INBOUND_CHUNKS_MAX);
        let streams = Streams::default();
        let encoder = Encoder::new()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(write_frames(writer, encoder, queue));
        let reading = Reading { streams: streams.clone(), outbound: outbound.downgrade(), announce };
        tasks.spawn(async move { reading.run(reader).await });
        let first = if role == Role::Client { 1 } else { 2 };
        Ok(Connection { next_id: AtomicU32::new(first), streams, outbound, incoming, _tasks: tasks })
    }

    /// Opens a stream. The peer's reply is not awaited: it refuses by a reset, which ends the stream.
    pub async fn open(&self, headers: &[(&str, &str)]) -> Result<Stream, StreamError> {
        let headers: Headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let id = self.next_id.fetch_add(2, Ordering::Relaxed);
        let (sender, chunks) = mpsc::channel(INBOUND_CHUNKS_MAX);
        lock(&self.streams).insert(id, sender);
        let frame = Frame::Syn { id, headers: headers.clone(), fin: false };
        self.outbound.send(frame).await.map_err(|_| StreamError::Closed)?;
        Ok(Stream {
            headers,
            read: ReadHalf { chunks },
            write: WriteHalf { id, outbound: self.outbound.clone() },
        })
    }

    /// The next stream that the peer opens; `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Says goodbye and waits until everything written is on its way.
    pub async fn close(mut self) {
        if self.outbound.send(Frame::GoAway).await.is_ok() {
            drop(self.outbound);
            // The writer ends when the last sender is gone; streams still held by callers keep it, so do not wait for
            // more than the goodbye.
            let goodbye = tokio::time::timeout(GOODBYE_WAIT, self._tasks.join_next()).await;
            if goodbye.is_err() {
                tracing::debug!("a SPDY connection was closed before its goodbye was written");
            }
        }
    }
}

impl Stream {
    /// A header given at the opening.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The two directions.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }
}

impl ReadHalf {
    /// The next bytes; `None` when the peer closed its direction or the connection is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.chunks.recv().await
    }

    /// Everything until the end, cut after `limit` bytes.
    pub async fn read_to_end(&mut self, limit: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await {
            let room = limit.saturating_sub(all.len());
            all.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        all
    }
}

impl WriteHalf {
    /// Sends bytes, waiting while the connection is full.
    pub async fn write(&self, data: Bytes) -> Result<(), StreamError> {
        self.send(Frame::Data { id: self.id, data, fin: false }).await
    }

    /// Tells the peer that nothing more will come.
    pub async fn close(&self) -> Result<(), StreamError> {
        self.send(Frame::Data { id: self.id, data: Bytes::new(), fin: true }).await
    }

    async fn send(&self, frame: Frame) -> Result<(), StreamError> {
        self.outbound.send(frame).await.map_err(|_| StreamError::Closed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The map is whole after a panic: every change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_frames(
    mut writer: impl AsyncWrite + Unpin,
    mut encoder: Encoder,
    mut queue: mpsc::Receiver<Frame>,
) {
    let mut buffer = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        buffer.clear();
        let mut good = encoder.encode(&frame, &mut buffer).is_ok();
        while good && let Ok(frame) = queue.try_recv() {
            good = encoder.encode(&frame, &mut buffer).is_ok();
        }
        // A broken connection is seen by its readers; writers see the closed queue.
        if !good || writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "shutting a SPDY connection down");
    }
}

struct Reading {
    streams: Streams,
    /// Weak, so that the writer ends when the connection and its streams are gone.
    outbound: mpsc::WeakSender<Frame>,
    announce: mpsc::Sender<Stream>,
}

impl Reading {
    async fn run(self, mut reader: impl AsyncRead + Unpin) {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        'connection: loop {
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => {
                        if self.handle(frame).await.is_err() {
                            break 'connection;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a SPDY connection that cannot be read");
                        break 'connection;
                    }
                }
            }
            match reader.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a SPDY connection broke");
                    break;
                }
            }
        }
        // Ends every stream's reader.
        lock(&self.streams).clear();
    }

    async fn handle(&self, frame: Frame) -> Result<(), StreamError> {
        match frame {
            Frame::Syn { id, headers, fin } => self.opened(id, headers, fin).await?,
            Frame::Data { id, data, fin } => {
                let sender = lock(&self.streams).get(&id).cloned();
                if let Some(sender) = sender
                    && !data.is_empty()
                    && sender.send(data).await.is_err()
                {
                    tracing::trace!(id, "data for a stream that nobody reads any more is dropped");
                }
                if fin {
                    lock(&self.streams).remove(&id);
                }
            }
            Frame::Reset { id, .. } => {
                lock(&self.streams).remove(&id);
            }
            Frame::Reply { id, fin, .. } | Frame::Headers { id, fin, .. } => {
                if fin {
                    lock(&self.streams).remove(&id);
                }
            }
            Frame::Ping { id } => self.send(Frame::Ping { id }).await?,
            // The peer opens no more streams; those that are open run to their end.
            Frame::GoAway | Frame::Ignored => {}
        }
        Ok(())
    }

    async fn opened(&self, id: u32, headers: Headers, fin: bool) -> Result<(), StreamError> {
        let (sender, chunks) = mpsc::channel(INBOUND_CHUNKS_MAX);
        {
            let mut streams = lock(&self.streams);
            if streams.len() >= STREAMS_MAX {
                return Err(StreamError::Protocol("too many streams".into()));
            }
            if !fin {
                streams.insert(id, sender);
            }
        }
        self.send(Frame::Reply { id, headers: Headers::new(), fin: false }).await?;
        let outbound = self.outbound.upgrade().ok_or(StreamError::Closed)?;
        let stream = Stream { headers, read: ReadHalf { chunks }, write: WriteHalf { id, outbound } };
        self.announce.send(stream).await.map_err(|_| StreamError::Closed)
    }

    async fn send(&self, frame: Frame) -> Result<(), StreamError> {
        let outbound = self.outbound.upgrade().ok_or(StreamError::Closed)?;
        outbound.send(frame).await.map_err(|_| StreamError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two streams echo through one connection; ends are seen per stream.
    #[tokio::test]
    async fn streams_are_independent() {
        let (near, far) = tokio::io::duplex(1024);
        let client = Connection::new(near, Role::Client).expect("a connection");
        let mut server = Connection::new(far, Role::Server).expect("a connection");
        tokio::spawn(async move {
            while let Some(stream) = server.accept().await {
                tokio::spawn(async move {
                    let name = stream.header("streamType").unwrap_or_default().to_owned();
                    let (mut read, write) = stream.split();
                    let input = read.read_to_end(1 << 20).await;
                    let answer = format!("{name}:{}", input.len());
                    write.write(answer.into()).await.expect("written");
                    write.close().await.expect("closed");
                });
            }
        });
        let mut answers = Vec::new();
        let (mut first_read, first) = client.open(&[("streamType", "a")]).await.expect("opened").split();
        let (mut second_read, second) = client.open(&[("streamType", "b")]).await.expect("opened").split();
        // More than SPDY's initial window of 64 KiB: nobody waits for a window update.
        for _ in 0..10 {
            first.write(Bytes::from(vec![0; 10_000])).await.expect("written");
        }
        second.close().await.expect("closed");
        answers.push(second_read.read_to_end(100).await);
        first.close().await.expect("closed");
        answers.push(first_read.read_to_end(100).await);
        assert_eq!(answers, [b"b:0".to_vec(), b"a:100000".to_vec()]);
    }

    /// When the peer goes away, readers end and writers get an error.
    #[tokio::test]
    async fn a_lost_peer_ends_everything() {
        let (near, far) = tokio::io::duplex(1024);
        let client = Connection::new(near, Role::Client).expect("a connection");
        let (mut read, write) = client.open(&[]).await.expect("opened").split();
        drop(far);
        assert_eq!(read.next().await, None);
        let mut failed = false;
        for _ in 0..100 {
            failed = failed || write.write(Bytes::from_static(b"x")).await.is_err();
            tokio::task::yield_now().await;
        }
        assert!(failed);
    }
}
