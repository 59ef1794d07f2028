//! SPDY/3.1 frames: their bytes and the compressed header blocks.
//!
//! Header blocks of one direction share one zlib stream, flushed after each block: a codec lives as long as its
//! connection and every block has to pass through it, even of a frame nobody wants.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::StreamError;

/// The preset dictionary of SPDY/3 header blocks.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// Largest payload of a frame that is taken. Peers write 32 KiB at most; the format allows 16 MiB.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Most that a header block may inflate to: streams have four short headers.
const HEADERS_BYTES_MAX: usize = 64 * 1024;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const FRAME_HEAD_BYTES: usize = 8;

/// Names and values of a header block. Names are lower case on the wire.
pub(super) type Headers = Vec<(String, String)>;

/// A frame that matters here. WINDOW_UPDATE, SETTINGS and NOOP are read and dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Syn { id: u32, headers: Headers, fin: bool },
    Reply { id: u32, headers: Headers, fin: bool },
    Headers { id: u32, headers: Headers, fin: bool },
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Ping { id: u32 },
    GoAway,
    Ignored,
}

/// Compresses the header blocks of one direction.
pub(super) struct Encoder {
    zlib: Compress,
}

impl Encoder {
    pub(super) fn new() -> Result<Self, StreamError> {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(DICTIONARY).map_err(|error| StreamError::Protocol(format!("zlib: {error}")))?;
        Ok(Encoder { zlib })
    }

    /// Appends the frame's bytes to `out`.
    pub(super) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), StreamError> {
        match frame {
            Frame::Data { id, data, fin } => {
                out.put_u32(*id);
                out.put_u32(flags_and_length(*fin, data.len()));
                out.put_slice(data);
            }
            Frame::Syn { id, headers, fin } => {
                let block = self.compress(headers)?;
                control(out, 1, *fin, 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0); // associated stream
                out.put_u16(0); // priority and slot
                out.put_slice(&block);
            }
            Frame::Reply { id, headers, fin } => self.headers_frame(out, 2, *id, headers, *fin)?,
            Frame::Headers { id, headers, fin } => self.headers_frame(out, 8, *id, headers, *fin)?,
            Frame::Reset { id, status } => {
                control(out, 3, false, 8);
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                control(out, 6, false, 4);
                out.put_u32(*id);
            }
            Frame::GoAway => {
                control(out, 7, false, 8);
                out.put_u64(0); // last good stream and status: an orderly end
            }
            Frame::Ignored => {}
        }
        Ok(())
    }

    fn headers_frame(
        &mut self,
        out: &mut BytesMut,
        kind: u16,
        id: u32,
        headers: &Headers,
        fin: bool,
    ) -> Result<(), StreamError> {
        let block = self.compress(headers)?;
        control(out, kind, fin, 4 + block.len());
        out.put_u32(id);
        out.put_slice(&block);
        Ok(())
    }

    fn compress(&mut self, headers: &Headers) -> Result<Vec<u8>, StreamError> {
        let mut plain = BytesMut::new();
        plain.put_u32(length(headers.len()));
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            plain.put_u32(length(name.len()));
            plain.put_slice(name.as_bytes());
            plain.put_u32(length(value.len()));
            plain.put_slice(value.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut input = &plain[..];
        loop {
            let before = self.zlib.total_in();
            self.zlib
                .compress_vec(input, &mut block, FlushCompress::Sync)
                .map_err(|error| StreamError::Protocol(format!("zlib: {error}")))?;
            input = &input[consumed(before, self.zlib.total_in())..];
            // Room left over after a sync flush means that everything is out.
            if input.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(256);
        }
    }
}

/// Inflates the header blocks of one direction and takes frames apart.
pub(super) struct Decoder {
    zlib: Decompress,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder { zlib: Decompress::new(true) }
    }

    /// Takes one whole frame from the front of `buffer`; `None` until there is one.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, StreamError> {
        if buffer.len() < FRAME_HEAD_BYTES {
            return Ok(None);
        }
        let mut head = &buffer[..FRAME_HEAD_BYTES];
        let first = head.get_u32();
        let second = head.get_u32();
        let (flags, payload) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if payload > PAYLOAD_BYTES_MAX {
            return Err(StreamError::Protocol(format!("frame of {payload} bytes")));
        }
        if buffer.len() < FRAME_HEAD_BYTES + payload {
            buffer.reserve(FRAME_HEAD_BYTES + payload - buffer.len());
            return Ok(None);
        }
        buffer.advance(FRAME_HEAD_BYTES);
        let body = buffer.split_to(payload).freeze();
        let fin = flags & FLAG_FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { id: first, data: body, fin }));
        }
        let version = ((first >> 16) & 0x7fff) as u16;
        if version != VERSION {
            return Err(StreamError::Protocol(format!("SPDY version {version}")));
        }
        self.control((first & 0xffff) as u16, fin, body).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, StreamError> {
        let needs = match kind {
            1 => 10,
            2 | 6 | 8 => 4,
            3 | 7 => 8,
            _ => 0,
        };
        if body.len() < needs {
            return Err(StreamError::Protocol(format!("control frame {kind} of {} bytes", body.len())));
        }
        Ok(match kind {
            1 => {
                let id = body.get_u32();
                body.advance(6);
                Frame::Syn { id, headers: self.inflate(&body)?, fin }
            }
            2 => Frame::Reply { id: body.get_u32(), headers: self.inflate(&body)?, fin },
            3 => Frame::Reset { id: body.get_u32(), status: body.get_u32() },
            6 => Frame::Ping { id: body.get_u32() },
            7 => Frame::GoAway,
            8 => Frame::Headers { id: body.get_u32(), headers: self.inflate(&body)?, fin },
            _ => Frame::Ignored,
        })
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Headers, StreamError> {
        let broken = |what: String| StreamError::Protocol(format!("header block: {what}"));
        let mut plain = Vec::with_capacity(512);
        let mut input = block;
        loop {
            let before = self.zlib.total_in();
            let step = self.zlib.decompress_vec(input, &mut plain, FlushDecompress::Sync);
            input = &input[consumed(before, self.zlib.total_in())..];
            match step {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(DICTIONARY).map_err(|error| broken(error.to_string()))?;
                }
                Err(error) => return Err(broken(error.to_string())),
                Ok(Status::StreamEnd) => break,
                Ok(_) if input.is_empty() && plain.len() < plain.capacity() => break,
                Ok(_) => plain.reserve(512),
            }
            if plain.len() > HEADERS_BYTES_MAX {
                return Err(broken("too long".into()));
            }
        }
        parse_headers(&plain).ok_or_else(|| broken("cut short".into()))
    }
}

fn parse_headers(mut plain: &[u8]) -> Option<Headers> {
    let text = |plain: &mut &[u8]| {
        let length = plain.try_get_u32().ok()? as usize;
        let (text, rest) = plain.split_at_checked(length)?;
        *plain = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let count = plain.try_get_u32().ok()?;
    let mut headers = Headers::new();
    for _ in 0..count {
        headers.push((text(&mut plain)?, text(&mut plain)?));
    }
    Some(headers)
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, payload: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(flags_and_length(fin, payload));
}

fn flags_and_length(fin: bool, payload: usize) -> u32 {
    let flags = if fin { u32::from(FLAG_FIN) << 24 } else { 0 };
    flags | (length(payload) & 0x00ff_ffff)
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn consumed(before: u64, after: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Headers {
        vec![("streamtype".into(), kind.into()), ("port".into(), "8080".into())]
    }

    /// Every frame, byte by byte through the decoder, and the shared zlib streams over several blocks.
    #[test]
    fn frames_there_and_back() {
        let frames = [
            Frame::Syn { id: 1, headers: headers("error"), fin: false },
            Frame::Syn { id: 3, headers: headers("stdout"), fin: true },
            Frame::Reply { id: 1, headers: Vec::new(), fin: false },
            Frame::Data { id: 1, data: Bytes::from_static(b"hello"), fin: false },
            Frame::Data { id: 1, data: Bytes::new(), fin: true },
            Frame::Headers { id: 3, headers: headers(&"x".repeat(3000)), fin: false },
            Frame::Reset { id: 3, status: 5 },
            Frame::Ping { id: 7 },
            Frame::GoAway,
        ];
        let mut encoder = Encoder::new().expect("an encoder");
        let mut wire = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut wire).expect("encoded");
        }
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for byte in wire {
            buffer.put_u8(byte);
            while let Some(frame) = decoder.decode(&mut buffer).expect("decoded") {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
        assert!(buffer.is_empty());
    }

    /// A frame that announces more than the limit is refused before its bytes are awaited.
    #[test]
    fn bad_bytes_are_refused() {
        for (name, wire) in [
            ("too long", &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]),
            ("wrong version", &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
            ("short control frame", &[0x80, 3, 0, 6, 0, 0, 0, 1, 0]),
            ("not zlib", &[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4]),
        ] {
            let mut buffer = BytesMut::from(wire);
            assert!(Decoder::new().decode(&mut buffer).is_err(), "{name}");
        }
    }
}
