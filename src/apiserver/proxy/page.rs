//! The body of an HTML page from behind a proxy, with its links rewritten while it passes, compressed or not.
//!
//! Invariant: no more of a page is kept than one chunk, and what [`super::html`] keeps.
//!
//! upstream: apimachinery/pkg/util/proxy/transport.go rewriteResponse, which keeps whole pages

use std::io::{self, Write};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder};
use futures::stream;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::html::Html;
use super::links::Links;

/// How a page is written.
enum Coder {
    Plain(Html<Vec<u8>>),
    Gzip(MultiGzDecoder<Html<GzEncoder<Vec<u8>>>>),
    Deflate(DeflateDecoder<Html<DeflateEncoder<Vec<u8>>>>),
}

impl Coder {
    /// `None`: no page, or one in an encoding that is not understood.
    fn of(headers: &HeaderMap, links: &Links) -> Option<Coder> {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
        if text(CONTENT_TYPE).split(';').next().map(str::trim) != Some("text/html") {
            return None;
        }
        let links = links.clone();
        let level = Compression::default();
        match text(CONTENT_ENCODING) {
            "" => Some(Coder::Plain(Html::new(Vec::new(), links))),
            "gzip" => {
                let encoder = GzEncoder::new(Vec::new(), level);
                Some(Coder::Gzip(MultiGzDecoder::new(Html::new(encoder, links))))
            }
            "deflate" => {
                let encoder = DeflateEncoder::new(Vec::new(), level);
                Some(Coder::Deflate(DeflateDecoder::new(Html::new(encoder, links))))
            }
            encoding => {
                tracing::warn!(encoding, "links of a page stay: its encoding is not understood");
                None
            }
        }
    }

    /// What can be sent once this has come.
    fn push(&mut self, chunk: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Coder::Plain(html) => {
                html.write_all(chunk)?;
                html.inner_mut()
            }
            Coder::Gzip(decoder) => {
                decoder.write_all(chunk)?;
                decoder.flush()?;
                decoder.get_mut().inner_mut().get_mut()
            }
            Coder::Deflate(decoder) => {
                decoder.write_all(chunk)?;
                decoder.flush()?;
                decoder.get_mut().inner_mut().get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }

    /// What is to be sent at the end.
    fn finish(self) -> io::Result<Bytes> {
        let out = match self {
            Coder::Plain(html) => html.finish()?,
            Coder::Gzip(decoder) => decoder.finish()?.finish()?.finish()?,
            Coder::Deflate(decoder) => decoder.finish()?.finish()?.finish()?,
        };
        Ok(out.into())
    }
}

/// The body that the client gets, and the headers that go with it. `guard` lives as long as the body.
pub fn body(headers: &mut HeaderMap, body: Incoming, links: Links, guard: impl Send + 'static) -> Body {
    let Some(coder) = Coder::of(headers, &links) else { return unread(body, guard) };
    headers.remove(CONTENT_LENGTH);
    // The coder of a page of which nothing came is not asked for an end: an answer to HEAD stays empty.
    let pages = stream::try_unfold(Some((body, coder, guard, false)), |state| async move {
        let Some((mut body, mut coder, guard, mut begun)) = state else { return Ok(None) };
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(io::Error::other)?.into_data() else { continue };
            begun |= !chunk.is_empty();
            let out = coder.push(&chunk)?;
            if !out.is_empty() {
                return Ok(Some((out, Some((body, coder, guard, begun)))));
            }
        }
        let end = if begun { coder.finish()? } else { Bytes::new() };
        Ok::<_, io::Error>(Some((end, None)))
    });
    Body::from_stream(pages)
}

/// A body as it comes.
pub fn unread(body: Incoming, guard: impl Send + 'static) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _alive = &guard;
        frame
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::{DeflateDecoder as Inflate, GzDecoder as Gunzip};
    use http::HeaderValue;
    use std::io::Read as _;

    fn coder(content_type: &'static str, encoding: &'static str) -> Option<Coder> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if !encoding.is_empty() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let links = Links { prefix: "/p".into(), backend: "b:80".into(), asked: "api".into() };
        Coder::of(&headers, &links)
    }

    #[test]
    fn pages_keep_their_encoding() {
        let page = r#"<a href="/x">"#.repeat(1000);
        let want = page.replace("/x", "/p/x");
        let gzip = {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(page.as_bytes()).expect("written");
            encoder.finish().expect("finished")
        };
        let deflate = {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(page.as_bytes()).expect("written");
            encoder.finish().expect("finished")
        };
        for (encoding, sent) in [("", page.into_bytes()), ("gzip", gzip), ("deflate", deflate)] {
            let mut coder = coder("text/html; charset=utf-8", encoding).expect("a page");
            let mut out = Vec::new();
            for chunk in sent.chunks(50) {
                out.extend_from_slice(&coder.push(chunk).expect("pushed"));
            }
            out.extend_from_slice(&coder.finish().expect("finished"));
            let mut got = String::new();
            match encoding {
                "gzip" => Gunzip::new(&out[..]).read_to_string(&mut got).expect("gzip"),
                "deflate" => Inflate::new(&out[..]).read_to_string(&mut got).expect("deflate"),
                _ => (&out[..]).read_to_string(&mut got).expect("text"),
            };
            assert!(got == want, "{encoding}: {} bytes", got.len());
        }
    }

    #[test]
    fn only_pages_are_read() {
        assert!(coder("text/plain", "").is_none());
        assert!(coder("text/html", "br").is_none());
        assert!(coder("text/html", "").is_some());
    }
}
