//! Plain tree -> YAML in go-yaml v2's layout: block style, lists not indented under their key, keys in
//! natural order, long lines folded at 80 columns, quotes only where needed.
//! upstream: go.yaml.in/yaml/v2 {encode,emitterc,sorter}.go

use std::cmp::Ordering;

use copepod_meta::Value;

use super::scalar::{Resolved, format_g, is_base60, is_timestamp, resolve};

/// Columns after which a space becomes a line break.
const WIDTH: usize = 80;
const INDENT: usize = 2;
/// Longer keys are written with `?`.
const SIMPLE_KEY_MAX: usize = 128;

/// The text of a document.
pub(super) fn write(value: &Value) -> String {
    let mut emitter = Emitter { out: String::new(), column: 0, whitespace: true, indention: true };
    emitter.node(value, Place { indent: None, in_mapping: false, simple_key: false });
    emitter.line(0);
    emitter.out
}

/// Where a node stands.
#[derive(Clone, Copy)]
struct Place {
    /// Column of the enclosing block; none at the root.
    indent: Option<usize>,
    /// The node is a mapping's value.
    in_mapping: bool,
    simple_key: bool,
}

impl Place {
    /// The column of a block or of folded lines inside this place.
    fn inner(self) -> usize {
        self.indent.map_or(0, |indent| indent + INDENT)
    }
}

/// Mirrors the state of libyaml's emitter that decides on spaces and line breaks.
struct Emitter {
    out: String,
    column: usize,
    /// The last character was a space or a line break.
    whitespace: bool,
    /// Only indentation so far on this line.
    indention: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

impl Emitter {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn put_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    /// Goes to a new line unless at its start, and indents it.
    fn line(&mut self, indent: usize) {
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.put_break();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn indicator(&mut self, text: &str, space_before: bool, is_indention: bool) {
        if space_before && !self.whitespace {
            self.put(' ');
        }
        text.chars().for_each(|c| self.put(c));
        self.whitespace = false;
        self.indention = self.indention && is_indention;
    }

    fn node(&mut self, value: &Value, place: Place) {
        match value {
            Value::Map(map) if map.is_empty() => self.indicator("{}", true, false),
            Value::List(items) if items.is_empty() => self.indicator("[]", true, false),
            Value::Map(map) => {
                let mut entries: Vec<(&str, &Value)> = map.iter().collect();
                entries.sort_by(|a, b| natural(a.0, b.0));
                self.mapping(&entries, place);
            }
            Value::List(items) => self.sequence(items, place),
            Value::String(text) => self.text(text, place),
            Value::Null => self.plain("null", place),
            Value::Bool(bool) => self.plain(if *bool { "true" } else { "false" }, place),
            Value::Int(integer) => self.plain(&integer.to_string(), place),
            Value::Float(float) => self.plain(&format_g(*float), place),
            // A plain tree has neither.
            Value::Bytes(bytes) | Value::Raw(bytes) => self.text(&String::from_utf8_lossy(bytes), place),
        }
    }

    fn mapping(&mut self, entries: &[(&str, &Value)], place: Place) {
        let indent = place.inner();
        for (key, value) in entries {
            self.line(indent);
            let simple = !key.contains(is_break) && key.len() <= SIMPLE_KEY_MAX;
            if simple {
                self.text(key, Place { indent: Some(indent), in_mapping: true, simple_key: true });
                self.indicator(":", false, false);
            } else {
                self.indicator("?", true, true);
                self.text(key, Place { indent: Some(indent), in_mapping: true, simple_key: false });
                self.line(indent);
                self.indicator(":", true, true);
            }
            self.node(value, Place { indent: Some(indent), in_mapping: true, simple_key: false });
        }
    }

    fn sequence(&mut self, items: &[Value], place: Place) {
        let indentless = place.in_mapping && !self.indention;
        let indent = match place.indent {
            Some(indent) if indentless => indent,
            _ => place.inner(),
        };
        for item in items {
            self.line(indent);
            self.indicator("-", true, true);
            self.node(item, Place { indent: Some(indent), in_mapping: false, simple_key: false });
        }
    }

    fn text(&mut self, text: &str, place: Place) {
        let analysis = Analysis::of(text);
        let plain = resolve(text) == Resolved::String && !is_base60(text) && !is_timestamp(text);
        let mut style = match (text.contains('\n'), plain) {
            (true, _) => Style::Literal,
            (false, true) => Style::Plain,
            (false, false) => Style::Double,
        };
        if place.simple_key && analysis.multiline {
            style = Style::Double;
        }
        if style == Style::Plain && !analysis.plain_allowed {
            style = Style::Single;
        }
        if style == Style::Single && !analysis.single_allowed {
            style = Style::Double;
        }
        if style == Style::Literal && (!analysis.block_allowed || place.simple_key) {
            style = Style::Double;
        }
        match style {
            Style::Plain => self.plain(text, place),
            Style::Single => self.single(text, place),
            Style::Double => self.double(text, place),
            Style::Literal => self.literal(text, place),
        }
    }

    /// Column of a scalar's continuation lines.
    fn continuation(place: Place) -> usize {
        place.indent.map_or(INDENT, |indent| indent + INDENT)
    }

    fn plain(&mut self, text: &str, place: Place) {
        if !self.whitespace {
            self.put(' ');
        }
        self.folded(text, place, false);
        self.whitespace = false;
        self.indention = false;
    }

    fn single(&mut self, text: &str, place: Place) {
        self.indicator("'", true, false);
        self.folded(text, place, true);
        self.indicator("'", false, false);
    }

    /// The content of plain and single-quoted scalars.
    fn folded(&mut self, text: &str, place: Place, quoted: bool) {
        let (mut spaces, mut breaks) = (false, false);
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, c)| *c);
            if c == ' ' {
                let inside = !quoted || (at > 0 && next.is_some());
                let fold = !place.simple_key && !spaces && self.column > WIDTH && inside && next != Some(' ');
                if fold {
                    self.line(Self::continuation(place))
                } else {
                    self.put(c)
                }
                spaces = true;
            } else if is_break(c) {
                if !breaks && c == '\n' {
                    self.put_break();
                }
                self.write_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.line(Self::continuation(place));
                }
                if quoted && c == '\'' {
                    self.put('\'');
                }
                self.put(c);
                self.indention = false;
                (spaces, breaks) = (false, false);
            }
        }
    }

    fn write_break(&mut self, c: char) {
        if c == '\n' {
            return self.put_break();
        }
        self.out.push(c);
        self.column = 0;
    }

    fn double(&mut self, text: &str, place: Place) {
        self.indicator("\"", true, false);
        let mut spaces = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, c)| *c);
            if !is_printable(c) || is_break(c) || c == '"' || c == '\\' {
                escape(c).chars().for_each(|c| self.put(c));
                spaces = false;
            } else if c == ' ' {
                if !place.simple_key && !spaces && self.column > WIDTH && at > 0 && next.is_some() {
                    self.line(Self::continuation(place));
                    if next == Some(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.indicator("\"", false, false);
    }

    fn literal(&mut self, text: &str, place: Place) {
        self.indicator("|", true, false);
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            self.indicator("2", false, false);
        }
        let mut ends = text.chars().rev();
        match (ends.next().is_some_and(is_break), ends.next()) {
            (false, _) => self.indicator("-", false, false),
            (true, None) => self.indicator("+", false, false),
            (true, Some(before)) if is_break(before) => self.indicator("+", false, false),
            _ => {}
        }
        self.put_break();
        self.indention = true;
        self.whitespace = true;
        let mut breaks = true;
        for c in text.chars() {
            if is_break(c) {
                self.write_break(c);
                self.indention = true;
                breaks = true;
                continue;
            }
            if breaks {
                self.line(Self::continuation(place));
            }
            self.put(c);
            self.indention = false;
            breaks = false;
        }
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

fn escape(c: char) -> String {
    match c {
        '\0' => "\\0".into(),
        '\u{7}' => "\\a".into(),
        '\u{8}' => "\\b".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\u{b}' => "\\v".into(),
        '\u{c}' => "\\f".into(),
        '\r' => "\\r".into(),
        '\u{1b}' => "\\e".into(),
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\u{85}' => "\\N".into(),
        '\u{a0}' => "\\_".into(),
        '\u{2028}' => "\\L".into(),
        '\u{2029}' => "\\P".into(),
        c if (c as u32) <= 0xff => format!("\\x{:02X}", c as u32),
        c if (c as u32) <= 0xffff => format!("\\u{:04X}", c as u32),
        c => format!("\\U{:08X}", c as u32),
    }
}

/// Which styles a text allows.
/// upstream: go.yaml.in/yaml/v2 emitterc.go yaml_emitter_analyze_scalar
struct Analysis {
    multiline: bool,
    plain_allowed: bool,
    single_allowed: bool,
    block_allowed: bool,
}

impl Analysis {
    fn of(text: &str) -> Analysis {
        if text.is_empty() {
            return Analysis {
                multiline: false,
                plain_allowed: true,
                single_allowed: true,
                block_allowed: false,
            };
        }
        let chars: Vec<char> = text.chars().collect();
        let blank = |at: usize| chars.get(at).is_none_or(|c| matches!(c, ' ' | '\t') || is_break(*c));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut line_breaks, mut break_space, mut space_break) = (false, false, false, false);
        for (at, &c) in chars.iter().enumerate() {
            indicators = indicators
                || match (at, c) {
                    (0, '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"') => true,
                    (0, '%' | '@' | '`') => true,
                    (0, '?' | '-') | (_, ':') => blank(at + 1),
                    (1.., '#') => blank(at - 1),
                    _ => false,
                };
            special = special || !is_printable(c);
            line_breaks = line_breaks || is_break(c);
            if at > 0 {
                break_space = break_space || (c == ' ' && is_break(chars[at - 1]));
                space_break = space_break || (is_break(c) && chars[at - 1] == ' ');
            }
        }
        let edge = |c: Option<&char>| c.is_some_and(|c| *c == ' ' || is_break(*c));
        let edges = edge(chars.first()) || edge(chars.last());
        let broken = break_space || space_break || special;
        Analysis {
            multiline: line_breaks,
            plain_allowed: !edges && !broken && !line_breaks && !indicators,
            single_allowed: !broken,
            block_allowed: chars.last() != Some(&' ') && !space_break && !special,
        }
    }
}

/// Keys as people sort them: letters after the rest, runs of digits by their number.
/// upstream: go.yaml.in/yaml/v2 sorter.go keyList.Less
fn natural(a: &str, b: &str) -> Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let differs = left.iter().zip(&right).position(|(x, y)| x != y);
    let Some(at) = differs else { return left.len().cmp(&right.len()) };
    let (x, y) = (left[at], right[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let after_digits = (x == '0' || y == '0')
        && left[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
    let run = |chars: &[char]| {
        let digits: Vec<i64> = chars[at..].iter().map_while(|c| c.to_digit(10)).map(i64::from).collect();
        let start = i64::from(after_digits);
        (digits.iter().fold(start, |n, d| n.wrapping_mul(10).wrapping_add(*d)), digits.len())
    };
    let ((left_number, left_len), (right_number, right_len)) = (run(&left), run(&right));
    left_number.cmp(&right_number).then(left_len.cmp(&right_len)).then(x.cmp(&y))
}
