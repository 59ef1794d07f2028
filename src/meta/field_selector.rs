//! Field selectors: parsing with upstream's messages, matching, printing. Which fields there are is for the kind to say.
//!
//! upstream: apimachinery/pkg/fields/selector.go

use crate::selector::ParseError;
use std::fmt;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// `metadata.name`, ...
    pub field: String,
    /// `!=` instead of `=`.
    pub negated: bool,
    /// Unescaped value.
    pub value: String,
}

/// All terms must hold; none: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms, in upstream's (sorted) order.
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Parses `a=b,c!=d`. Whether the fields exist is for the kind to say.
    pub fn parse(text: &str) -> Result<FieldSelector, ParseError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let Some((field, negated, value)) = split_term(part) else {
                return Err(ParseError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push(FieldTerm { field: field.into(), negated, value: unescape(value)? });
        }
        Ok(FieldSelector { terms })
    }
    /// Whether this matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
    /// Whether fields, found by name through `field`, match.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|t| (field(&t.field) == t.value) != t.negated)
    }
    /// The value that `field` must have, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.field == field && !t.negated).map(|t| t.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.terms.iter().enumerate() {
            let value = t.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}{value}", t.field, if t.negated { "!=" } else { "=" })?;
        }
        Ok(())
    }
}

/// At commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(i, _)| {
        let rest = &term[i..];
        [("!=", true), ("==", false), ("=", false)]
            .into_iter()
            .find(|(op, _)| rest.starts_with(op))
            .map(|(op, negated)| (&term[..i], negated, &rest[op.len()..]))
    })
}

fn unescape(value: &str) -> Result<String, ParseError> {
    let mut out = String::with_capacity(value.len());
    let mut escaped = false;
    for c in value.chars() {
        match (escaped, c) {
            (true, '\\' | ',' | '=') => out.push(c),
            (true, c) => {
                return Err(ParseError(format!("invalid field selector: invalid escape sequence: \\{c}")));
            }
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (false, ',' | '=') => {
                return Err(ParseError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                )));
            }
            (false, c) => out.push(c),
        }
        escaped = false;
    }
    if escaped {
        return Err(ParseError("invalid field selector: invalid escape sequence: \\".into()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors() {
        let s = FieldSelector::parse("metadata.name=a\\,b,status.phase!=Running").expect("parses");
        assert!(s.matches(|f| if f == "metadata.name" { "a,b" } else { "Pending" }));
        assert!(!s.matches(|f| if f == "metadata.name" { "a,b" } else { "Running" }));
        assert_eq!(s.to_string(), "metadata.name=a\\,b,status.phase!=Running");
        let error = FieldSelector::parse("x").expect_err("no operator");
        assert_eq!(error.to_string(), "invalid selector: 'x'; can't understand 'x'");
    }
}
