//! JSON text, token by token, with Go's grammar and Go's syntax errors.
//!
//! Owns: the cursor over the text. Does not: build anything, know a schema. Values that nobody wants are
//! skipped without recursion, so that hostile nesting costs memory of one bit a level and never the stack.

use std::borrow::Cow;

/// Nesting at which Go's scanner gives up.
/// upstream: sigs.k8s.io/json internal/golang/encoding/json/scanner.go maxNestingDepth
pub(crate) const NESTING_MAX: usize = 10_000;

/// The text is no JSON; the message is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(pub String);

/// A cursor over JSON text.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What stands between two members, or the end.
#[derive(PartialEq, Eq, Clone, Copy)]
pub(crate) enum Next {
    More,
    End,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The text from `start` to the cursor.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The error at the cursor; at the end of the text Go's scanner says so, unless `inside` a literal, where
    /// it steps once with a space and complains about that.
    fn error(&self, inside: bool, context: &str) -> SyntaxError {
        match self.bytes.get(self.at) {
            Some(&c) => SyntaxError(format!("invalid character {} {context}", quote_char(c))),
            None if inside => SyntaxError(format!("invalid character ' ' {context}")),
            None => SyntaxError("unexpected end of JSON input".into()),
        }
    }

    /// First byte of the next value, not consumed: one of `{ [ " - 0-9 t f n`.
    pub(crate) fn peek_value(&mut self) -> Result<u8, SyntaxError> {
        self.skip_space();
        match self.bytes.get(self.at) {
            Some(&c @ (b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')) => Ok(c),
            _ => Err(self.error(false, "looking for beginning of value")),
        }
    }

    /// Consumes the byte that [`Scanner::peek_value`] saw.
    pub(crate) fn bump(&mut self) {
        self.at += 1;
    }

    /// After `{`: the first member's name, or the end.
    pub(crate) fn first_key(&mut self) -> Result<Option<Cow<'a, str>>, SyntaxError> {
        self.skip_space();
        if self.bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Ok(None);
        }
        self.key().map(Some)
    }

    /// After a member: the next member's name, or the end.
    pub(crate) fn next_key(&mut self) -> Result<Option<Cow<'a, str>>, SyntaxError> {
        match self.after(b'}', "after object key:value pair")? {
            Next::End => Ok(None),
            Next::More => self.key().map(Some),
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        self.begin_key()?;
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    fn begin_key(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.error(false, "looking for beginning of object key string"));
        }
        Ok(())
    }

    /// Steps over a member's name.
    fn skip_key(&mut self) -> Result<(), SyntaxError> {
        self.begin_key()?;
        self.skip_string()?;
        self.colon()
    }

    fn colon(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b':') {
            return Err(self.error(false, "after object key"));
        }
        self.at += 1;
        Ok(())
    }

    /// After `[`: whether there is an element.
    pub(crate) fn first_element(&mut self) -> Next {
        self.skip_space();
        if self.bytes.get(self.at) == Some(&b']') {
            self.at += 1;
            return Next::End;
        }
        Next::More
    }

    /// After an element: whether there is another.
    pub(crate) fn next_element(&mut self) -> Result<Next, SyntaxError> {
        self.after(b']', "after array element")
    }

    fn after(&mut self, end: u8, context: &str) -> Result<Next, SyntaxError> {
        self.skip_space();
        let next = match self.bytes.get(self.at) {
            Some(b',') => Next::More,
            Some(&c) if c == end => Next::End,
            _ => return Err(self.error(false, context)),
        };
        self.at += 1;
        Ok(next)
    }

    /// Only space may follow the value.
    pub(crate) fn finish(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.at < self.bytes.len() {
            return Err(self.error(false, "after top-level value"));
        }
        Ok(())
    }

    /// A string, the cursor on its opening quote. Invalid UTF-8 and lone surrogates become U+FFFD, as Go
    /// decodes them.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        let start = self.at + 1;
        let escaped = self.skip_string()?;
        let inner = &self.bytes[start..self.at - 1];
        if !escaped && let Ok(text) = std::str::from_utf8(inner) {
            return Ok(Cow::Borrowed(text));
        }
        Ok(Cow::Owned(unquote(inner)))
    }

    /// Steps over a string and checks it; true if it holds escapes.
    fn skip_string(&mut self) -> Result<bool, SyntaxError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = &self.bytes[self.at..];
            let run = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            // No early exit: this loop is vectorised, and control characters are rare.
            if rest[..run].iter().fold(false, |control, &c| control | (c < 0x20)) {
                self.at += rest.iter().position(|&c| c < 0x20).unwrap_or(0);
                return Err(self.error(false, "in string literal"));
            }
            self.at += run;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(_) => {
                    escaped = true;
                    self.at += 1;
                    self.skip_escape()?;
                }
                None => return Err(self.error(false, "")),
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), SyntaxError> {
        match self.bytes.get(self.at) {
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.bytes.get(self.at).is_some_and(u8::is_ascii_hexdigit) {
                        return Err(self.error(true, "in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.error(true, "in string escape code")),
        }
        Ok(())
    }

    /// A number's text, the cursor on its first byte.
    pub(crate) fn number(&mut self) -> Result<&'a str, SyntaxError> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.error(true, "in numeric literal")),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(std::str::from_utf8(self.since(start)).unwrap_or_default())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), SyntaxError> {
        if !self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            return Err(self.error(true, context));
        }
        self.digits();
        Ok(())
    }

    /// `true`, `false` or `null`, the cursor on its first letter.
    pub(crate) fn word(&mut self, word: &'static str) -> Result<(), SyntaxError> {
        for &expected in word.as_bytes() {
            if self.bytes.get(self.at) != Some(&expected) {
                let context = format!("in literal {word} (expecting '{}')", expected as char);
                return Err(self.error(true, &context));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Steps over one value that stands `depth` containers deep and returns its text.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<&'a [u8], SyntaxError> {
        self.skip_space();
        let start = self.at;
        // One entry a level: true for an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            let closed = match self.peek_value()? {
                b'{' => {
                    self.open(depth + open.len())?;
                    self.skip_space();
                    let empty = self.bytes.get(self.at) == Some(&b'}');
                    if empty {
                        self.at += 1;
                    } else {
                        self.skip_key()?;
                        open.push(true);
                    }
                    empty
                }
                b'[' => {
                    self.open(depth + open.len())?;
                    let first = self.first_element();
                    if first == Next::More {
                        open.push(false);
                    }
                    first == Next::End
                }
                c => {
                    self.skip_scalar(c)?;
                    true
                }
            };
            if closed && !self.close(&mut open)? {
                return Ok(self.since(start));
            }
        }
    }

    /// Steps over `{` or `[`, the container being number `depth + 1` from the root.
    pub(crate) fn open(&mut self, depth: usize) -> Result<(), SyntaxError> {
        if depth >= NESTING_MAX {
            return Err(self.error(true, "exceeded max depth"));
        }
        self.at += 1;
        Ok(())
    }

    fn skip_scalar(&mut self, first: u8) -> Result<(), SyntaxError> {
        match first {
            b'"' => self.skip_string().map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number().map(|_| ()),
        }
    }

    /// After a value: moves to the next one inside `open`; false when all is closed.
    fn close(&mut self, open: &mut Vec<bool>) -> Result<bool, SyntaxError> {
        while let Some(&object) = open.last() {
            let more = if object { self.next_key()?.is_some() } else { self.next_element()? == Next::More };
            if more {
                return Ok(true);
            }
            open.pop();
        }
        Ok(false)
    }
}

/// Decodes the inside of a checked string literal.
/// upstream: encoding/json/decode.go unquoteBytes
fn unquote(inner: &[u8]) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(&first) = rest.first() {
        if first == b'\\' {
            rest = escape(rest, &mut out);
            continue;
        }
        let run = rest.iter().position(|&c| c == b'\\').unwrap_or(rest.len());
        push_lossy(&rest[..run], &mut out);
        rest = &rest[run..];
    }
    out
}

/// Bytes as text, each byte that is no UTF-8 as one U+FFFD (Go replaces byte by byte, `from_utf8_lossy` by
/// sequence).
pub(crate) fn push_lossy(mut bytes: &[u8], out: &mut String) {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => return out.push_str(text),
            Err(error) => {
                let (good, bad) = bytes.split_at(error.valid_up_to());
                out.push_str(std::str::from_utf8(good).unwrap_or_default());
                out.push('\u{fffd}');
                bytes = &bad[1..];
            }
        }
    }
}

/// Bytes as text, as Go's JSON and string conversions show them.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut out = String::with_capacity(bytes.len());
            push_lossy(bytes, &mut out);
            Cow::Owned(out)
        }
    }
}

/// Decodes one escape at the start of `rest`; what follows it.
fn escape<'b>(rest: &'b [u8], out: &mut String) -> &'b [u8] {
    let simple = match rest.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(rest, out),
        Some(&c) => c as char,
        None => return &[],
    };
    out.push(simple);
    &rest[2..]
}

fn unicode_escape<'b>(rest: &'b [u8], out: &mut String) -> &'b [u8] {
    let Some(unit) = hex4(rest) else { return &[] };
    let after = &rest[6..];
    if (0xd800..0xdc00).contains(&unit)
        && let Some(low @ 0xdc00..=0xdfff) = hex4(after)
    {
        let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
        return &after[6..];
    }
    out.push(char::from_u32(unit).unwrap_or('\u{fffd}'));
    after
}

/// The code unit of `\uXXXX` at the start of `bytes`.
fn hex4(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A byte as Go quotes it in syntax errors.
/// upstream: encoding/json/scanner.go quoteChar
fn quote_char(c: u8) -> String {
    match c {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => r"'\\'".into(),
        0x07 => r"'\a'".into(),
        0x08 => r"'\b'".into(),
        0x0c => r"'\f'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0x0b => r"'\v'".into(),
        0..=0x1f | 0x7f => format!("'\\x{c:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{:04x}'", u32::from(c)),
        _ => format!("'{}'", c as char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip_all(text: &str) -> Result<usize, String> {
        let mut scan = Scanner::new(text.as_bytes());
        scan.skip(0).map_err(|e| e.0)?;
        scan.finish().map_err(|e| e.0)?;
        Ok(scan.position())
    }

    /// Messages of Go's encoding/json on the same texts.
    #[test]
    fn syntax_errors_are_gos() {
        for (text, want) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            ("[1,2", "unexpected end of JSON input"),
            ("\"abc", "unexpected end of JSON input"),
            ("nul", "invalid character ' ' in literal null (expecting 'l')"),
            ("1.", "invalid character ' ' after decimal point in numeric literal"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("[,]", "invalid character ',' looking for beginning of value"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("\u{e9}", "invalid character 'Ã' looking for beginning of value"),
        ] {
            assert_eq!(skip_all(text), Err(want.into()), "{text}");
        }
    }

    #[test]
    fn nesting_is_limited_and_costs_no_stack() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(skip_all(&deep(NESTING_MAX)).is_ok());
        assert_eq!(skip_all(&deep(NESTING_MAX + 1)), Err("invalid character '[' exceeded max depth".into()));
    }

    #[test]
    fn strings_decode_as_gos() {
        for (text, want) in [
            (&b"\"a\\u00e9\\n\\/\""[..], "a\u{e9}\n/"),
            (b"\"\\ud834\\udd1e\"", "\u{1d11e}"),
            (b"\"\\ud834x\"", "\u{fffd}x"),
            (b"\"\\udd1e\"", "\u{fffd}"),
            (b"\"\\ud834\\u0041\"", "\u{fffd}A"),
            (b"\"a\xff\xfeb\"", "a\u{fffd}\u{fffd}b"),
            (b"\"\xe2\x82x\"", "\u{fffd}\u{fffd}x"),
        ] {
            assert_eq!(Scanner::new(text).string().expect("valid"), want);
        }
    }
}
