//! Percent-encoding, as Go's `net/url` reads and writes it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;

/// What is escaped in a query's keys and values; a space becomes `+`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');
/// What is escaped in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// A percent sign without two hexadecimal digits behind it; the sign and what stands there instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL escape {}", crate::field::quote(.0))]
pub struct EscapeError(String);

/// Undoes the escapes of a path. What is no UTF-8 afterwards has U+FFFD there.
/// upstream: net/url PathUnescape
pub fn unescape_path(text: &str) -> Result<Cow<'_, str>, EscapeError> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(EscapeError(text[at..].chars().take(3).collect()));
        }
    }
    Ok(percent_decode_str(text).decode_utf8_lossy())
}

/// The same where an escape that cannot be read is no error: the text is then taken as it is.
pub fn unescape_path_or_keep(text: &str) -> Cow<'_, str> {
    unescape_path(text).unwrap_or(Cow::Borrowed(text))
}

/// Undoes the escapes of a query's key or value, in which `+` is a space.
/// upstream: net/url QueryUnescape
pub fn unescape_query(text: &str) -> Result<String, EscapeError> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    Ok(unescape_path(&spaced)?.into_owned())
}

/// upstream: net/url URL.EscapedPath
pub fn escape_path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// upstream: net/url QueryEscape
pub fn escape_query(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string().replace(' ', "+")
}

/// The pairs of a query, in order; a key without `=` has the value "". A pair that cannot be read is left out, and one with a
/// semicolon, which is no separator any more.
/// upstream: net/url ParseQuery
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape_query(key).ok()?, unescape_query(value).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_pairs() {
        let pairs = query_pairs("a=b%2Fc&d&e=f+g&h=%zz&%&i=1;j=2&&k=");
        let shown: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["a=b/c", "d=", "e=f g", "k="]);
    }

    #[test]
    fn what_is_escaped_is_read_again() {
        let all: String = (0..0x180).filter_map(char::from_u32).collect();
        assert_eq!(unescape_path(&escape_path(&all)).as_deref(), Ok(all.as_str()));
        assert_eq!(unescape_query(&escape_query(&all)).as_deref(), Ok(all.as_str()));
        assert_eq!(escape_path("a b+c/é?"), "a%20b+c/%C3%A9%3F");
        assert_eq!(escape_query("a b+c/é?~"), "a+b%2Bc%2F%C3%A9%3F~");
    }

    #[test]
    fn a_bad_escape_is_shown() {
        let told = |text| unescape_path(text).map_err(|e| e.to_string());
        assert_eq!(told("/a%zzb"), Err(r#"invalid URL escape "%zz""#.into()));
        assert_eq!(told("/a%4"), Err(r#"invalid URL escape "%4""#.into()));
        assert_eq!(told("%+1"), Err(r#"invalid URL escape "%+1""#.into()));
        assert_eq!(told("/a+%ff"), Ok("/a+\u{fffd}".into()));
    }
}
