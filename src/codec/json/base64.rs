//! Standard base64 with Go's leniency (line breaks are skipped) and Go's error positions.
//! upstream: Go encoding/base64 Encoding.Decode

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Appends the text of `bytes`.
pub(crate) fn encode_into(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The slice is exactly as long as padded base64 is, the one thing this can fail on.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Decodes; the error is Go's `CorruptInputError`.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).or_else(|_| decode_slow(text.as_bytes()))
}

/// The road of texts with line breaks and of wrong ones, byte by byte.
fn decode_slow(text: &[u8]) -> Result<Vec<u8>, String> {
    let corrupt = |at: usize| format!("illegal base64 data at input byte {at}");
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut quantum: (u32, u32) = (0, 0);
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        at += 1;
        match c {
            b'\r' | b'\n' => {}
            b'=' => {
                let (bits, count) = quantum;
                let at = end_of_padding(text, at, count).map_err(corrupt)?;
                push_partial(bits, count, &mut out);
                return if at == text.len() { Ok(out) } else { Err(corrupt(at)) };
            }
            _ => {
                let value = sextet(c).ok_or_else(|| corrupt(at - 1))?;
                quantum = (quantum.0 << 6 | value, quantum.1 + 1);
                if quantum.1 == 4 {
                    out.extend_from_slice(&quantum.0.to_be_bytes()[1..]);
                    quantum = (0, 0);
                }
            }
        }
    }
    // Go names the start of the unfinished quantum.
    if quantum.1 == 0 { Ok(out) } else { Err(corrupt(at - quantum.1 as usize)) }
}

/// Checks the padding whose first `=` ended at `at`; the position after it and its line breaks.
fn end_of_padding(text: &[u8], mut at: usize, count: u32) -> Result<usize, usize> {
    let skip = |mut at: usize| {
        while let Some(b'\r' | b'\n') = text.get(at) {
            at += 1;
        }
        at
    };
    match count {
        0 | 1 => return Err(at - 1),
        2 => {
            at = skip(at);
            match text.get(at) {
                None => return Err(text.len()),
                Some(b'=') => at += 1,
                Some(_) => return Err(at),
            }
        }
        _ => {}
    }
    Ok(skip(at))
}

fn push_partial(bits: u32, count: u32, out: &mut Vec<u8>) {
    match count {
        2 => out.push((bits >> 4) as u8),
        _ => out.extend_from_slice(&[(bits >> 10) as u8, (bits >> 2) as u8]),
    }
}

fn sextet(c: u8) -> Option<u32> {
    Some(u32::from(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Positions of Go 1.26's decoder.
    #[test]
    fn decodes_as_go() {
        for (text, want) in [
            ("", Ok(&b""[..])),
            ("aGk=", Ok(b"hi")),
            ("aG\nk=\n", Ok(b"hi")),
            ("aGkh", Ok(b"hi!")),
            ("a", Err("illegal base64 data at input byte 0")),
            ("aGkhYQ", Err("illegal base64 data at input byte 4")),
            ("aG!=", Err("illegal base64 data at input byte 2")),
            ("aGk=x", Err("illegal base64 data at input byte 4")),
        ] {
            let got = decode(text);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{text:?}");
        }
        let mut out = Vec::new();
        encode_into(b"hi", &mut out);
        assert_eq!(out, b"aGk=");
    }
}
