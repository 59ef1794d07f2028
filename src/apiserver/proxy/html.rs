//! HTML on its way: values of attributes that hold links are replaced, all else passes as it is.
//!
//! Not a parser: it tells text, comments, tags and raw text (scripts, styles) apart, which is what finding attributes takes.
//! Script text that hides its own end tag in a comment is not told apart from one that does not.
//!
//! Invariants: nothing is kept but one unfinished start tag, up to [`TAG_BYTES_MAX`]; a longer one passes as it is. Without links
//! that change, what comes out is what went in.
//!
//! upstream: apimachinery/pkg/util/proxy/transport.go rewriteHTML, golang.org/x/net/html Tokenizer

use std::io::{self, Write};
use std::ops::Range;

use super::links::Links;

/// A start tag that is looked into; pictures within links make long ones.
const TAG_BYTES_MAX: usize = 256 * 1024;
/// No element that matters has a longer name.
const NAME_BYTES_MAX: usize = 16;

/// Which attributes of which elements hold links. upstream: atomsToAttrs
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text up to their end tag.
const RAW: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];

/// Where in the document we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After `<`.
    Open,
    /// After `</`.
    EndOpen,
    /// After `<!`, and after `<!-`.
    Markup {
        dash: bool,
    },
    /// In a comment, with so many dashes just seen, and perhaps a `!` after them.
    Comment {
        dashes: usize,
        bang: bool,
    },
    /// In something that ends with the next `>`: doctypes, `<?`, `</ x`.
    Bogus,
    /// In the text of the raw element with this index; so many bytes of its end tag have come.
    Raw {
        element: usize,
        matched: usize,
    },
    Tag(Place),
}

/// Where in a tag we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Name,
    /// Between attributes.
    Between,
    Key,
    /// After a key, before a `=`.
    AfterKey,
    /// After the `=`.
    BeforeValue,
    Quoted(u8),
    Unquoted,
}

/// An attribute of the tag in hand: where its key and its value (with quotes) stand.
#[derive(Clone, Debug, Default)]
struct Attribute {
    key: Range<usize>,
    value: Range<usize>,
}

/// Writes HTML on with its links rewritten.
pub struct Html<W> {
    inner: W,
    links: Links,
    state: State,
    /// The start tag in hand, from its `<` on.
    tag: Vec<u8>,
    /// A start tag whose attributes are of interest; else its bytes went on already.
    is_kept: bool,
    is_end_tag: bool,
    /// The element's name in lower case, as far as it matters.
    name: Vec<u8>,
    attributes: Vec<Attribute>,
}

impl<W: Write> Html<W> {
    /// Begins a document.
    pub fn new(inner: W, links: Links) -> Html<W> {
        Html {
            inner,
            links,
            state: State::Text,
            tag: Vec::new(),
            is_kept: false,
            is_end_tag: false,
            name: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// Where it writes to.
    pub fn inner_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// The document ends; a tag that has not ended goes on as it is.
    pub fn finish(mut self) -> io::Result<W> {
        if self.state == State::Open {
            self.inner.write_all(b"<")?;
        }
        self.inner.write_all(&self.tag)?;
        Ok(self.inner)
    }

    /// One byte; it is in `out` or in `self.tag` afterwards.
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let State::Tag(place) = self.state {
            return self.step_in_tag(place, byte, out);
        }
        if self.state == State::Open {
            return self.step_open(byte, out);
        }
        out.push(byte);
        self.state = match self.state {
            State::EndOpen if byte.is_ascii_alphabetic() => {
                self.begin_tag(byte, true);
                State::Tag(Place::Name)
            }
            State::EndOpen | State::Bogus | State::Markup { .. } if byte == b'>' => State::Text,
            State::Markup { dash: false } if byte == b'-' => State::Markup { dash: true },
            // `<!-->` is a whole comment.
            State::Markup { dash: true } if byte == b'-' => State::Comment { dashes: 2, bang: false },
            State::EndOpen | State::Bogus | State::Markup { .. } => State::Bogus,
            State::Comment { dashes, bang } => comment(dashes, bang, byte),
            State::Raw { element, matched } => return self.step_in_raw(element, matched, byte),
            other => other,
        };
    }

    /// After `<`, which is held back.
    fn step_open(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte.is_ascii_alphabetic() {
            self.begin_tag(byte, false);
            self.tag.extend_from_slice(&[b'<', byte]);
            self.state = State::Tag(Place::Name);
            return;
        }
        out.push(b'<');
        if byte == b'<' {
            return;
        }
        out.push(byte);
        self.state = match byte {
            b'/' => State::EndOpen,
            b'!' => State::Markup { dash: false },
            b'?' => State::Bogus,
            _ => State::Text,
        };
    }

    fn begin_tag(&mut self, first: u8, is_end_tag: bool) {
        self.tag.clear();
        self.attributes.clear();
        self.name.clear();
        self.name.push(first.to_ascii_lowercase());
        self.is_kept = !is_end_tag;
        self.is_end_tag = is_end_tag;
    }

    /// Raw text ends at its own end tag only.
    fn step_in_raw(&mut self, element: usize, matched: usize, byte: u8) {
        let name = RAW.get(element).copied().unwrap_or("").as_bytes();
        if matched == name.len() + 2 && (is_space(byte) || matches!(byte, b'/' | b'>')) {
            self.begin_tag(b' ', true);
            self.state = if byte == b'>' { State::Text } else { State::Tag(Place::Between) };
            return;
        }
        let next = match matched {
            0 => Some(&b'<'),
            1 => Some(&b'/'),
            n => name.get(n - 2),
        };
        let matched = match next {
            Some(want) if byte.to_ascii_lowercase() == *want => matched + 1,
            _ => usize::from(byte == b'<'),
        };
        self.state = State::Raw { element, matched };
    }

    fn step_in_tag(&mut self, place: Place, byte: u8, out: &mut Vec<u8>) {
        if self.is_kept && self.tag.len() >= TAG_BYTES_MAX {
            out.append(&mut self.tag);
            self.attributes.clear();
            self.is_kept = false;
        }
        if self.is_kept {
            self.tag.push(byte);
        } else {
            out.push(byte);
        }
        let ends = byte == b'>' && !matches!(place, Place::Quoted(_));
        if place == Place::Name
            && !ends
            && !is_space(byte)
            && byte != b'/'
            && self.name.len() < NAME_BYTES_MAX
        {
            self.name.push(byte.to_ascii_lowercase());
        }
        if self.is_kept {
            self.note(place, byte);
        }
        if ends {
            return self.end_tag(out);
        }
        self.state = State::Tag(next(place, byte));
    }

    /// Keeps account of where keys and values stand. The byte is the tag's last.
    fn note(&mut self, place: Place, byte: u8) {
        let at = self.tag.len() - 1;
        let begins_key = matches!(place, Place::Between | Place::AfterKey) && next(place, byte) == Place::Key;
        if begins_key && byte != b'>' {
            self.attributes.push(Attribute { key: at..at + 1, value: at..at });
        }
        let Some(attribute) = self.attributes.last_mut() else { return };
        match place {
            Place::Key if next(place, byte) == Place::Key && byte != b'>' => attribute.key.end = at + 1,
            Place::BeforeValue if !is_space(byte) && byte != b'>' => attribute.value = at..at + 1,
            Place::Quoted(_) => attribute.value.end = at + 1,
            Place::Unquoted if !is_space(byte) && byte != b'>' => attribute.value.end = at + 1,
            _ => {}
        }
    }

    /// A tag is whole.
    fn end_tag(&mut self, out: &mut Vec<u8>) {
        let raw = RAW.iter().position(|raw| raw.as_bytes() == self.name).filter(|_| !self.is_end_tag);
        self.state = raw.map_or(State::Text, |element| State::Raw { element, matched: 0 });
        if !self.is_kept {
            return;
        }
        let keys = LINKS.iter().find(|(element, _)| element.as_bytes() == self.name).map(|(_, keys)| *keys);
        let mut written = 0;
        for attribute in keys.map_or(&[][..], |_| &self.attributes[..]) {
            let key = &self.tag[attribute.key.clone()];
            if !keys.is_some_and(|keys| keys.iter().any(|k| key.eq_ignore_ascii_case(k.as_bytes()))) {
                continue;
            }
            if let Some(value) = value(&self.links, &self.tag[attribute.value.clone()]) {
                out.extend_from_slice(&self.tag[written..attribute.value.start]);
                out.extend_from_slice(value.as_bytes());
                written = attribute.value.end;
            }
        }
        out.extend_from_slice(&self.tag[written..]);
        self.tag.clear();
        self.attributes.clear();
    }
}

/// upstream: Tokenizer.readComment
fn comment(dashes: usize, bang: bool, byte: u8) -> State {
    match byte {
        b'>' if dashes >= 2 => State::Text,
        b'-' if bang => State::Comment { dashes: 1, bang: false },
        b'-' => State::Comment { dashes: dashes + 1, bang: false },
        b'!' if dashes >= 2 && !bang => State::Comment { dashes, bang: true },
        _ => State::Comment { dashes: 0, bang: false },
    }
}

/// Where the byte leads within a tag.
fn next(place: Place, byte: u8) -> Place {
    match (place, byte) {
        (Place::Name, b'/') => Place::Between,
        (Place::Name, b) if is_space(b) => Place::Between,
        (Place::Name, _) => Place::Name,
        (Place::Between, b'/') => Place::Between,
        (Place::Between, b) if is_space(b) => Place::Between,
        (Place::Between, _) => Place::Key,
        (Place::Key | Place::AfterKey, b'=') => Place::BeforeValue,
        (Place::Key | Place::AfterKey, b'/') => Place::Between,
        (Place::Key | Place::AfterKey, b) if is_space(b) => Place::AfterKey,
        (Place::Key | Place::AfterKey, _) => Place::Key,
        (Place::BeforeValue, b'"' | b'\'') => Place::Quoted(byte),
        (Place::BeforeValue, b) if is_space(b) => Place::BeforeValue,
        (Place::BeforeValue, _) => Place::Unquoted,
        (Place::Quoted(quote), b) if b == quote => Place::Between,
        (Place::Quoted(quote), _) => Place::Quoted(quote),
        (Place::Unquoted, b) if is_space(b) => Place::Between,
        (Place::Unquoted, _) => Place::Unquoted,
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x0c)
}

/// The value, as written with its quotes, with another link in it; `None`: the link stays, or cannot be read.
fn value(links: &Links, written: &[u8]) -> Option<String> {
    let written = std::str::from_utf8(written).ok()?;
    let quote = written.chars().next().filter(|c| matches!(c, '"' | '\''));
    let text = quote.map_or(written, |q| written.trim_start_matches(q).trim_end_matches(q));
    // Query and fragment stay as they are, with whatever references to characters there are.
    let mut signs = text.match_indices(['?', '#']);
    let end =
        signs.find(|(at, sign)| *sign == "?" || !text[..*at].ends_with('&')).map_or(text.len(), |s| s.0);
    let (head, behind) = text.split_at(end);
    let rewritten = links.rewrite(&characters(head)?).ok()??;
    let mut out = String::with_capacity(rewritten.len() + behind.len() + 2);
    out.push('"');
    for c in rewritten.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
    }
    out.push_str(&behind.replace('"', "&#34;"));
    out.push('"');
    Some(out)
}

/// References to characters resolved: numbers, and the names that occur in paths. `None`: another name, which is not ours to guess.
fn characters(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let name = behind.split_once(';').map(|(name, _)| name).filter(|name| {
            let name = name.strip_prefix('#').unwrap_or(name);
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())
        });
        let Some(name) = name else {
            out.push('&');
            rest = behind;
            continue;
        };
        out.push(match (name, name.strip_prefix('#')) {
            ("amp", _) => '&',
            ("lt", _) => '<',
            ("gt", _) => '>',
            ("quot", _) => '"',
            ("apos", _) => '\'',
            ("sol", _) => '/',
            ("period", _) => '.',
            ("colon", _) => ':',
            (_, Some(number)) => match number.strip_prefix(['x', 'X']) {
                Some(hex) => char::from_u32(u32::from_str_radix(hex, 16).ok()?)?,
                None => char::from_u32(number.parse().ok()?)?,
            },
            _ => return None,
        });
        rest = &behind[name.len() + 1..];
    }
    out.push_str(rest);
    Some(out)
}

impl<W: Write> Write for Html<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8);
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            if self.state == State::Text {
                let text = rest.iter().position(|b| *b == b'<').unwrap_or(rest.len());
                out.extend_from_slice(&rest[..text]);
                rest = &rest[text..];
                if let [_, tail @ ..] = rest {
                    self.state = State::Open;
                    self.tag.clear();
                    rest = tail;
                }
                continue;
            }
            self.step(*byte, &mut out);
            rest = tail;
        }
        self.inner.write_all(&out)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(document: &str, chunk: usize) -> String {
        let links = Links { prefix: "/p".into(), backend: "b:80".into(), asked: "api".into() };
        let mut html = Html::new(Vec::new(), links);
        for bytes in document.as_bytes().chunks(chunk) {
            html.write_all(bytes).expect("written");
        }
        String::from_utf8(html.finish().expect("finished")).expect("text")
    }

    #[test]
    fn links_are_found_where_a_browser_finds_them() {
        for (document, want) in [
            (r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/rewriteme">test</a>"#),
            ("<A HREF='/x'>", "<A HREF=\"/p/x\">"),
            ("<a href=/x>", "<a href=\"/p/x\">"),
            ("<a href=/x/>", "<a href=\"/p/x/\">"),
            ("<a\n class=y href = \"/x\" id>", "<a\n class=y href = \"/p/x\" id>"),
            (r#"<img src="/a" longdesc="/b" alt="/c"/>"#, r#"<img src="/p/a" longdesc="/p/b" alt="/c"/>"#),
            (r#"<a title=">" href="/x">"#, r#"<a title=">" href="/p/x">"#),
            (r#"<a href="/x?a=1&amp;b=/y#/z">"#, r#"<a href="/p/x?a=1&amp;b=/y#/z">"#),
            (r#"<a href="/x&amp;y">"#, r#"<a href="/p/x&amp;y">"#),
            (r#"<a href="&#47;x">"#, r#"<a href="/p/x">"#),
            (r#"<a href="/x&eacute;y">"#, r#"<a href="/x&eacute;y">"#),
            (r#"<a href='/x?"'>"#, r#"<a href="/p/x?&#34;">"#),
            (r#"<a href="x" href2="/y">"#, r#"<a href="x" href2="/y">"#),
            (r#"<p href="/x">"#, r#"<p href="/x">"#),
            (r#"<a href>/x"#, r#"<a href>/x"#),
            (r#"<a href= >"/x""#, r#"<a href= >"/x""#),
            (r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/p/y">"#),
            (r#"<!--><a href="/y">"#, r#"<!--><a href="/p/y">"#),
            (r#"<!-- --!><a href="/y">"#, r#"<!-- --!><a href="/p/y">"#),
            (r#"<!doctype html><html manifest="/m">"#, r#"<!doctype html><html manifest="/p/m">"#),
            (
                r#"<script src="/s">"<a href='/x'></scripty>"</script><a href="/y">"#,
                r#"<script src="/p/s">"<a href='/x'></scripty>"</script><a href="/p/y">"#,
            ),
            (
                r#"<style><a href="/x"></STYLE ><a href="/y">"#,
                r#"<style><a href="/x"></STYLE ><a href="/p/y">"#,
            ),
            (r#"<<a href="/x">"#, r#"<<a href="/p/x">"#),
            (r#"a < b <a href="/x">"#, r#"a < b <a href="/p/x">"#),
            (r#"</a href="<a href='/x'>"><a href="/y">"#, r#"</a href="<a href='/x'>"><a href="/p/y">"#),
            (r#"<?x <a href="/x">"#, r#"<?x <a href="/x">"#),
            (r#"<a href="/x"#, r#"<a href="/x"#),
            ("<", "<"),
            ("text", "text"),
        ] {
            for chunk in [1, 2, 7, 1000] {
                assert_eq!(rewrite(document, chunk), want, "{document} in {chunk}s");
            }
        }
    }

    #[test]
    fn a_tag_without_end_is_not_kept() {
        let document = format!(r#"<a title="{}" href="/x"><a href="/y">"#, "x".repeat(TAG_BYTES_MAX));
        let want = document.replace("/y", "/p/y");
        assert!(rewrite(&document, 4096) == want);
    }
}
