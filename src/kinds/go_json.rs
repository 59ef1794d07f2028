//! Whether a text is a JSON object, and if not, Go's words for it. upstream: encoding/json

/// Go's error on decoding `text` into a map; `None` when it is an object.
pub fn object_error(text: &str) -> Option<String> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    if let Err(why) = scan.document() {
        return Some(why);
    }
    let what = match text.trim_start().as_bytes().first() {
        Some(b'{') => return None,
        Some(b'"') => "string",
        Some(b'[') => "array",
        Some(b't' | b'f') => "bool",
        Some(b'n') => return None,
        _ => "number",
    };
    Some(format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"))
}

/// A scanner with the words of Go's scanner.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Scanned = Result<(), String>;

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }
    fn wrong(&self, context: &str) -> String {
        match self.peek() {
            None => "unexpected end of JSON input".into(),
            Some(c) => format!("invalid character {} {context}", quote_char(c)),
        }
    }
    fn document(&mut self) -> Scanned {
        self.value()?;
        self.space();
        if self.peek().is_some() { Err(self.wrong("after top-level value")) } else { Ok(()) }
    }
    fn value(&mut self) -> Scanned {
        self.space();
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.wrong("looking for beginning of value")),
        }
    }
    fn object(&mut self) -> Scanned {
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("looking for beginning of object key string"));
            }
            self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.wrong("after object key"));
            }
            self.at += 1;
            self.value()?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong("after object key:value pair")),
            }
        }
        self.at += 1;
        Ok(())
    }
    fn array(&mut self) -> Scanned {
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong("after array element")),
            }
        }
        self.at += 1;
        Ok(())
    }
    fn string(&mut self) -> Scanned {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    if !matches!(
                        self.peek(),
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u')
                    ) {
                        return Err(self.wrong("in string escape code"));
                    }
                }
                Some(c) if c < 0x20 => return Err(self.wrong("in string literal")),
                None => return Err(self.wrong("")),
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }
    fn number(&mut self) -> Scanned {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.wrong("in numeric literal"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
            self.at += 1;
        }
        Ok(())
    }
    fn literal(&mut self, word: &str) -> Scanned {
        for (i, c) in word.bytes().enumerate() {
            if self.peek() != Some(c) {
                let context = format!("in literal {word} (expecting {})", quote_char(c));
                let _first_letter_matched = i;
                return Err(self.wrong(&context));
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// Go's quoteChar.
fn quote_char(c: u8) -> String {
    match c {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        c => format!("'{}'", std::ascii::escape_default(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::object_error;

    #[test]
    fn errors_are_in_gos_words() {
        for (text, want) in [
            ("{}", None),
            (r#"{"a":{"b":[1,true,null,"x"]}}"#, None),
            ("", Some("unexpected end of JSON input")),
            ("hello", Some("invalid character 'h' looking for beginning of value")),
            ("{a}", Some("invalid character 'a' looking for beginning of object key string")),
            ("[]", Some("json: cannot unmarshal array into Go value of type map[string]interface {}")),
            ("nope", Some("invalid character 'o' in literal null (expecting 'u')")),
            ("{} x", Some("invalid character 'x' after top-level value")),
        ] {
            assert_eq!(object_error(text).as_deref(), want, "{text}");
        }
    }
}
