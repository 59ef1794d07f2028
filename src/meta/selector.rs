//! Label selectors: parsing with upstream's messages, matching, printing.
//!
//! upstream: apimachinery/pkg/labels/selector.go

pub use crate::field_selector::{FieldSelector, FieldTerm};

use crate::field::{FieldError, Path, quote};
use crate::{Map, Value, names};
use std::fmt;

/// A selector that cannot be understood; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `k=v`
    Equals,
    /// `k==v`
    DoubleEquals,
    /// `k!=v`
    NotEquals,
    /// `k in (v)`
    In,
    /// `k notin (v)`
    NotIn,
    /// `k`
    Exists,
    /// `!k`
    DoesNotExist,
    /// `k>1`
    GreaterThan,
    /// `k<1`
    LessThan,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values, sorted, unique.
    pub values: Vec<String>,
}

/// All requirements must hold; none: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Requirement {
    /// Checks key and values. upstream: NewRequirement
    fn try_new(key: String, operator: Operator, mut values: Vec<String>) -> Result<Requirement, ParseError> {
        values.sort();
        values.dedup();
        let root = Path::new("key");
        if let Some(bad) = first_of(names::qualified_name(&key)) {
            return Err(ParseError(FieldError::invalid_str(&root, &key, bad).to_string()));
        }
        let wrong = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                "for 'in', 'notin' operators, values set can't be empty"
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            _ => "",
        };
        if !wrong.is_empty() {
            let values: Value = values.into_iter().map(Value::from).collect::<Vec<_>>().into();
            return Err(ParseError(FieldError::invalid(&Path::new("values"), &values, wrong).to_string()));
        }
        let ordered = matches!(operator, Operator::GreaterThan | Operator::LessThan);
        let bad = values.iter().enumerate().find(|(_, v)| ordered && v.parse::<i64>().is_err());
        if let Some((i, v)) = bad {
            let path = Path::new("values");
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            return Err(ParseError(FieldError::invalid_str(&path.index(i), v, why).to_string()));
        }
        for (i, v) in values.iter().enumerate() {
            if let Some(bad) = first_of(names::label_value(v)) {
                let (path, key) = (Path::new("values"), key.as_str());
                return Err(ParseError(FieldError::invalid_str(&path.index(i).key(key), v, bad).to_string()));
            }
        }
        Ok(Requirement { key, operator, values })
    }

    fn matches(&self, label: Option<&str>) -> bool {
        let has = |v: &str| self.values.iter().any(|x| x == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => label.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(has),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let label = label.and_then(|v| v.parse::<i64>().ok());
                let value = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (label, value) {
                    (Some(l), Some(v)) if self.operator == Operator::GreaterThan => l > v,
                    (Some(l), Some(v)) => l < v,
                    _ => false,
                }
            }
        }
    }
}

fn first_of(errors: Vec<String>) -> Option<String> {
    if errors.is_empty() { None } else { Some(errors.join("; ")) }
}

impl LabelSelector {
    /// Matches everything.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }
    /// Matches nothing.
    pub fn nothing() -> LabelSelector {
        LabelSelector { nothing: true, ..LabelSelector::default() }
    }
    /// Exactly these labels (a `map[string]string` selector: Service, ReplicationController).
    pub fn from_labels(labels: &Map) -> LabelSelector {
        let requirements = labels
            .iter()
            .map(|(k, v)| Requirement {
                key: k.into(),
                operator: Operator::Equals,
                values: vec![v.as_str().unwrap_or("").into()],
            })
            .collect();
        LabelSelector { requirements, nothing: false }
    }
    /// From a `meta/v1 LabelSelector` tree; null selects nothing, an empty one everything.
    /// upstream: meta/v1/helpers.go LabelSelectorAsSelector
    pub fn from_value(value: &Value) -> Result<LabelSelector, ParseError> {
        let Some(map) = value.as_map() else { return Ok(LabelSelector::nothing()) };
        let mut out = match map.get("matchLabels") {
            Some(Value::Map(labels)) => {
                let each = labels.iter().map(|(k, v)| {
                    Requirement::try_new(k.into(), Operator::Equals, vec![v.as_str().unwrap_or("").into()])
                });
                each.collect::<Result<Vec<_>, _>>()?
            }
            _ => Vec::new(),
        };
        for e in value.list_at(&["matchExpressions"]) {
            let operator = match e.str_at(&["operator"]) {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(ParseError(format!(
                        "{} is not a valid label selector operator",
                        quote(other)
                    )));
                }
            };
            let values: Vec<String> =
                e.list_at(&["values"]).iter().filter_map(Value::as_str).map(Into::into).collect();
            out.push(Requirement::try_new(e.str_at(&["key"]).into(), operator, values)?);
        }
        out.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements: out, nothing: false })
    }
    /// Parses the query form, `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<LabelSelector, ParseError> {
        let tokens = lex(text);
        let mut requirements = Parser { tokens: &tokens, at: 0 }.parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }
    /// Whether this matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
    /// Whether labels, found by key through `label`, match.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }
    /// Whether the labels of a tree match.
    pub fn matches_map(&self, labels: &Map) -> bool {
        self.matches(|key| labels.get(key).and_then(Value::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let values = r.values.join(",");
            match r.operator {
                Operator::Exists => write!(f, "{}", r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::Equals => write!(f, "{}={values}", r.key)?,
                Operator::DoubleEquals => write!(f, "{}=={values}", r.key)?,
                Operator::NotEquals => write!(f, "{}!={values}", r.key)?,
                Operator::In => write!(f, "{} in ({values})", r.key)?,
                Operator::NotIn => write!(f, "{} notin ({values})", r.key)?,
                Operator::GreaterThan => write!(f, "{}>{values}", r.key)?,
                Operator::LessThan => write!(f, "{}<{values}", r.key)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Word,
    In,
    NotIn,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Bad,
    End,
}

fn is_symbol(c: u8) -> bool {
    matches!(c, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

/// Splits into tokens; always ends with `End`.
fn lex(text: &str) -> Vec<(Token, String)> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let c = bytes[at];
        if matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
            at += 1;
        } else if is_symbol(c) {
            let (token, len) = symbol(&bytes[at..]);
            out.push((token, text[at..at + len].to_string()));
            at += len;
        } else {
            let start = at;
            while at < bytes.len()
                && !is_symbol(bytes[at])
                && !matches!(bytes[at], b' ' | b'\t' | b'\r' | b'\n')
            {
                at += 1;
            }
            let word = &text[start..at];
            let token = match word {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Word,
            };
            out.push((token, word.to_string()));
        }
    }
    out.push((Token::End, String::new()));
    out
}

/// The longest symbol at the start: `==` before `=`, `!=` before `!`.
fn symbol(rest: &[u8]) -> (Token, usize) {
    match (rest[0], rest.get(1)) {
        (b'=', Some(b'=')) => (Token::DoubleEquals, 2),
        (b'!', Some(b'=')) => (Token::NotEquals, 2),
        (b'=', _) => (Token::Equals, 1),
        (b'!', _) => (Token::Not, 1),
        (b'(', _) => (Token::Open, 1),
        (b')', _) => (Token::Close, 1),
        (b',', _) => (Token::Comma, 1),
        (b'>', _) => (Token::Greater, 1),
        (b'<', _) => (Token::Less, 1),
        _ => (Token::Bad, 1),
    }
}

struct Parser<'a> {
    tokens: &'a [(Token, String)],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> (Token, &str) {
        let last = self.tokens.len() - 1;
        let (token, text) = &self.tokens[self.at.min(last)];
        (*token, text)
    }
    /// As [`Parser::peek`], with the words `in` and `notin` read as identifiers.
    fn peek_value(&self) -> (Token, &str) {
        match self.peek() {
            (Token::In | Token::NotIn, text) => (Token::Word, text),
            other => other,
        }
    }
    fn next(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let out = (token, text.to_string());
        self.at += 1;
        out
    }
    fn next_value(&mut self) -> (Token, String) {
        match self.next() {
            (Token::In | Token::NotIn, text) => (Token::Word, text),
            other => other,
        }
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, ParseError> {
        let mut out = Vec::new();
        loop {
            match self.peek_value() {
                (Token::Word | Token::Not, _) => {
                    let one = self.requirement();
                    out.push(one.map_err(|e| ParseError(format!("unable to parse requirement: {e}")))?);
                    match self.next_value() {
                        (Token::End, _) => return Ok(out),
                        (Token::Comma, _) => {
                            let (token, text) = self.peek_value();
                            if !matches!(token, Token::Word | Token::Not) {
                                return Err(ParseError(format!(
                                    "found '{text}', expected: identifier after ','"
                                )));
                            }
                        }
                        (_, text) => {
                            return Err(ParseError(format!(
                                "found '{text}', expected: ',' or 'end of string'"
                            )));
                        }
                    }
                }
                (Token::End, _) => return Ok(out),
                (_, text) => {
                    return Err(ParseError(format!(
                        "found '{text}', expected: !, identifier, or 'end of string'"
                    )));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        let mut negated = false;
        let (mut token, mut key) = self.next_value();
        if token == Token::Not {
            negated = true;
            (token, key) = self.next_value();
        }
        if token != Token::Word {
            return Err(ParseError(format!("found '{key}', expected: identifier")));
        }
        if let Some(bad) = first_of(names::qualified_name(&key)) {
            // Upstream's parser checks the key under no path at all, which prints as `<nil>`.
            return Err(ParseError(FieldError::invalid_str(&Path::new("<nil>"), &key, bad).to_string()));
        }
        if negated {
            return Requirement::try_new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek_value().0, Token::End | Token::Comma) {
            return Requirement::try_new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.value_set()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::try_new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, ParseError> {
        Ok(match self.next() {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (_, text) => {
                return Err(ParseError(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")));
            }
        })
    }

    fn exact_value(&mut self) -> Result<String, ParseError> {
        if matches!(self.peek_value().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next_value() {
            (Token::Word, text) => Ok(text),
            (_, text) => Err(ParseError(format!("found '{text}', expected: identifier"))),
        }
    }

    fn value_set(&mut self) -> Result<Vec<String>, ParseError> {
        let (token, text) = self.next_value();
        if token != Token::Open {
            return Err(ParseError(format!("found '{text}' expected: '('")));
        }
        match self.peek_value() {
            (Token::Close, _) => {
                self.at += 1;
                Ok(vec![String::new()])
            }
            (Token::Word | Token::Comma, _) => {
                let values = self.identifiers()?;
                // `identifiers` stops before the closing parenthesis.
                self.at += 1;
                Ok(values)
            }
            (_, text) => Err(ParseError(format!("found '{text}', expected: ',', ')' or identifier"))),
        }
    }

    fn identifiers(&mut self) -> Result<Vec<String>, ParseError> {
        let mut out = Vec::new();
        loop {
            match self.next_value() {
                (Token::Word, text) => {
                    out.push(text);
                    match self.peek_value() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(out),
                        (_, text) => return Err(ParseError(format!("found '{text}', expected: ',' or ')'"))),
                    }
                }
                (Token::Comma, _) => {
                    // Empty values stand before, after and between commas.
                    let next = self.peek_value().0;
                    if out.is_empty() || matches!(next, Token::Close | Token::Comma) {
                        out.push(String::new());
                    }
                    if next == Token::Close {
                        return Ok(out);
                    }
                }
                (_, text) => return Err(ParseError(format!("found '{text}', expected: ',', or identifier"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Map {
        text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k, Value::string(v))).collect()
    }

    #[test]
    fn label_selectors_match_as_upstreams() {
        for (selector, object, want) in [
            ("", "", true),
            ("a=b", "a=b", true),
            ("a==b", "a=c", false),
            ("a!=b", "", true),
            ("a", "a=", true),
            ("!a", "a=1", false),
            ("a in (x,y)", "a=y", true),
            ("a notin (x,y)", "b=y", true),
            ("a in (x,y),b", "a=x", false),
            ("x>1", "x=2", true),
            ("x<1", "x=2", false),
            ("in in (notin)", "in=notin", true),
            ("a in (,x)", "a=", true),
            ("a=", "a=", true),
        ] {
            let s = LabelSelector::parse(selector).expect(selector);
            assert_eq!(s.matches_map(&labels(object)), want, "{selector} on {object}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused_with_upstreams_words() {
        for (selector, want) in [
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(selector).expect_err(selector).to_string(), want);
        }
    }
}
