//! Bodies of answers: parts, joined into chunks as the connection takes them.
//!
//! What is small is made before the answer's head is sent, so it has a length, and a refusal where a part cannot be made. Of
//! what is larger only so much is made; every other part is when it is its turn, so that an answer takes the memory of a chunk
//! and no other request waits for more than a chunk of it.
//!
//! When it breaks: a part of a large answer that cannot be made (stored bytes that are none of ours) breaks the answer off, and
//! the client sees that it is not whole. upstream: handlers/responsewriters/writers.go SerializeObject, of what it streams

use std::io::Write as _;
use std::iter::Peekable;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use copepod_meta::Status;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response, StatusCode};

use super::Answer;
use crate::negotiate::Media;

/// Answers above it are gzipped for those who can read it.
/// upstream: handlers/responsewriters/writers.go defaultGzipThresholdBytes
const GZIP_BYTES_MIN: usize = 128 * 1024;
/// Small pieces are sent together: a frame for each of ten thousand objects would cost more than copying them.
const CHUNK_BYTES: usize = 64 * 1024;
/// A piece from this size on is sent as it is.
const SHARED_BYTES_MIN: usize = 32 * 1024;

/// A part in its turn, or why it could not be made.
pub(super) type Part = Result<Bytes, Status>;

type Source = Box<dyn Iterator<Item = Part> + Send>;

/// An answer of parts that are there.
pub(super) fn respond_with(code: StatusCode, media: Media, parts: Vec<Bytes>, gzip: bool) -> Answer {
    let len = parts.iter().map(Bytes::len).sum();
    answer(code, media, Pieces::new(parts, None, Some(len), gzip && len > GZIP_BYTES_MIN))
}

/// An answer of parts that are made in turn.
pub(super) fn respond(
    code: StatusCode,
    media: Media,
    parts: impl Iterator<Item = Part> + Send + 'static,
    gzip: bool,
) -> Result<Answer, Status> {
    let mut parts: Peekable<Source> = (Box::new(parts) as Source).peekable();
    let (mut ready, mut len) = (Vec::new(), 0);
    while len <= GZIP_BYTES_MIN
        && let Some(part) = parts.next()
    {
        let part = part?;
        len += part.len();
        ready.push(part);
    }
    let rest = parts.peek().is_some().then_some(parts);
    let len_known = rest.is_none().then_some(len);
    Ok(answer(code, media, Pieces::new(ready, rest, len_known, gzip && len > GZIP_BYTES_MIN)))
}

fn answer(code: StatusCode, media: Media, pieces: Pieces) -> Answer {
    let gzip = pieces.encoder.is_some();
    let mut answer = Response::new(Body::new(pieces));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media.mime()));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    answer
}

struct Pieces {
    ready: std::vec::IntoIter<Bytes>,
    rest: Option<Peekable<Source>>,
    /// Bytes left, where that is known.
    left: Option<usize>,
    encoder: Option<flate2::write::GzEncoder<Vec<u8>>>,
}

impl Pieces {
    fn new(ready: Vec<Bytes>, rest: Option<Peekable<Source>>, left: Option<usize>, gzip: bool) -> Pieces {
        // Level 1, as upstream: a third more bytes than the default level, a third of the time.
        let buffer = || Vec::with_capacity(CHUNK_BYTES);
        let encoder = gzip.then(|| flate2::write::GzEncoder::new(buffer(), flate2::Compression::new(1)));
        Pieces { ready: ready.into_iter(), rest, left, encoder }
    }

    fn next_part(&mut self) -> Option<Part> {
        match self.ready.next() {
            Some(part) => Some(Ok(part)),
            None => self.rest.as_mut()?.next(),
        }
    }

    /// Whether the next part has room in a chunk of `len` bytes. One that cannot be made has: it is to come up.
    fn fits(&mut self, len: usize) -> bool {
        let next = match self.ready.as_slice().first() {
            Some(part) => Some(part.len()),
            None => match self.rest.as_mut().and_then(Peekable::peek) {
                Some(Ok(part)) => Some(part.len()),
                Some(Err(_)) => Some(0),
                None => None,
            },
        };
        next.is_some_and(|next| len + next <= CHUNK_BYTES)
    }

    fn next_chunk(&mut self) -> Option<Part> {
        let first = match self.next_part()? {
            Ok(part) if part.len() < SHARED_BYTES_MIN => part,
            other => return Some(other),
        };
        if !self.fits(first.len()) {
            return Some(Ok(first));
        }
        let mut chunk = BytesMut::with_capacity(self.left.map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES)));
        chunk.extend_from_slice(&first);
        while self.fits(chunk.len())
            && let Some(next) = self.next_part()
        {
            match next {
                Ok(next) => chunk.extend_from_slice(&next),
                Err(status) => return Some(Err(status)),
            }
        }
        Some(Ok(chunk.freeze()))
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        loop {
            let chunk = match self.next_chunk() {
                Some(Ok(chunk)) => chunk,
                Some(Err(status)) => {
                    tracing::error!(error = status.message, "an answer is broken off");
                    return Poll::Ready(Some(Err(std::io::Error::other(status.message))));
                }
                None => {
                    let Some(encoder) = self.encoder.take() else { return Poll::Ready(None) };
                    let tail = encoder.finish();
                    return Poll::Ready(Some(tail.map(|t| http_body::Frame::data(t.into()))));
                }
            };
            if let Some(left) = &mut self.left {
                *left -= chunk.len();
            }
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(Some(Ok(http_body::Frame::data(chunk))));
            };
            if let Err(error) = encoder.write_all(&chunk) {
                return Poll::Ready(Some(Err(error)));
            }
            let ready = encoder.get_mut();
            if ready.len() >= CHUNK_BYTES / 2 {
                return Poll::Ready(Some(Ok(http_body::Frame::data(std::mem::take(ready).into()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.left == Some(0)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match (&self.encoder, self.left) {
            (None, Some(left)) => http_body::SizeHint::with_exact(left as u64),
            _ => http_body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    /// Parts of a size each, and after how many of them one cannot be made.
    fn parts(count: usize, size: usize, broken_at: usize) -> impl Iterator<Item = Part> + Send + 'static {
        (0..count).map(move |at| match at {
            _ if at == broken_at => Err(Status::internal("broken")),
            _ => Ok(vec![b'a' + (at % 26) as u8; size].into()),
        })
    }

    #[tokio::test]
    async fn small_answers_have_a_length_and_a_refusal_large_ones_are_made_as_they_are_read() {
        const NEVER: usize = usize::MAX;
        for (name, count, size, broken_at, want) in [
            ("empty", 0, 0, NEVER, "length 0"),
            ("one part", 1, 100, NEVER, "length 100"),
            ("many small parts", 1000, 100, NEVER, "length 100000"),
            ("one large part", 1, 300_000, NEVER, "length 300000"),
            ("more than is made at once", 3000, 100, NEVER, "300000 bytes"),
            ("parts larger than a chunk", 5, 70_000, NEVER, "350000 bytes"),
            ("broken at once", 1000, 100, 0, "refused"),
            ("broken within what is made at once", 1000, 100, 999, "refused"),
            ("broken behind it", 3000, 100, 2500, "broken off"),
        ] {
            let whole: Vec<u8> =
                parts(count, size, NEVER).flat_map(|part| part.expect("made").to_vec()).collect();
            let got = match respond(StatusCode::OK, Media::Json, parts(count, size, broken_at), false) {
                Err(_) => "refused".to_string(),
                Ok(answer) => {
                    let len = http_body::Body::size_hint(answer.body()).exact();
                    match (answer.into_body().collect().await.map(|body| body.to_bytes()), len) {
                        (Err(_), _) => "broken off".into(),
                        (Ok(body), _) if body != whole => "other bytes".into(),
                        (Ok(_), Some(len)) => format!("length {len}"),
                        (Ok(body), None) => format!("{} bytes", body.len()),
                    }
                }
            };
            assert_eq!(got, want, "{name}");
        }
    }
}
