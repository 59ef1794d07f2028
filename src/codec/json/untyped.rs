//! JSON without a type: patches, custom resources, `apiextensions.JSON` looked into.
//! upstream: apimachinery/pkg/util/json, sigs.k8s.io/json UnmarshalStrict into map[string]interface{}

use copepod_meta::{CompactString, Map, Value};

use super::decode::{Decoder, Frame, Step};
use super::scan::{Next, SyntaxError};
use crate::strict::StrictErrors;

/// A whole JSON text as a tree. Nulls stay, an integer that fits `i64` is an integer, of equal names the last
/// one stays; duplicates are reported.
pub(crate) fn decode_any(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    let universe = copepod_schema::Universe::from_types(Vec::new(), Default::default());
    let mut decoder = Decoder::new(text, &universe);
    let value = decoder.any(&Frame::ROOT).map_err(|e| e.0)?;
    decoder.scan.finish().map_err(|e| e.0)?;
    match decoder.failure() {
        Some(message) => Err(message),
        None => Ok((value, decoder.strict.into_messages())),
    }
}

impl<'a> Decoder<'a, '_> {
    /// The next value, whatever it is.
    pub(super) fn any(&mut self, frame: &Frame) -> Result<Value, SyntaxError> {
        match self.scan.peek_value()? {
            b'{' => {
                if !self.enter()? {
                    return Ok(Value::Null);
                }
                let map = self.any_members(frame)?;
                self.leave();
                Ok(Value::Map(map))
            }
            b'[' => {
                if !self.enter()? {
                    return Ok(Value::Null);
                }
                let items = self.any_elements(frame)?;
                self.leave();
                Ok(Value::List(items))
            }
            b'"' => Ok(Value::String(CompactString::from(self.scan.string()?))),
            b't' => self.scan.word("true").map(|()| Value::Bool(true)),
            b'f' => self.scan.word("false").map(|()| Value::Bool(false)),
            b'n' => self.scan.word("null").map(|()| Value::Null),
            _ => {
                let text = self.scan.number()?;
                Ok(self.any_number(text, frame))
            }
        }
    }

    fn any_members(&mut self, frame: &Frame) -> Result<Map, SyntaxError> {
        let mut entries: Vec<(CompactString, Value)> = Vec::new();
        let mut sorted = true;
        let mut key = self.scan.first_key()?;
        while let Some(name) = key {
            let value = self.any(&frame.then(Step::Key(&name)))?;
            sorted = sorted && entries.last().is_none_or(|(last, _)| last.as_str() < name.as_ref());
            entries.push((CompactString::from(name), value));
            key = self.scan.next_key()?;
        }
        if !sorted {
            report_duplicates(&entries, frame, &mut self.strict);
        }
        Ok(Map::from_entries(entries))
    }

    fn any_elements(&mut self, frame: &Frame) -> Result<Vec<Value>, SyntaxError> {
        let mut items = Vec::new();
        let mut next = self.scan.first_element();
        while next == Next::More {
            items.push(self.any(&frame.then(Step::Index(items.len())))?);
            next = self.scan.next_element()?;
        }
        Ok(items)
    }

    /// upstream: sigs.k8s.io/json decode.go convertNumber
    fn any_number(&mut self, text: &str, frame: &Frame) -> Value {
        if !text.contains('.')
            && let Ok(integer) = text.parse()
        {
            return Value::Int(integer);
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Float(number),
            _ => {
                self.type_error(frame, &format!("number {text}"), "float64");
                Value::Null
            }
        }
    }
}

/// The names that occur more than once, in the order of their second occurrence.
pub(super) fn report_duplicates(
    entries: &[(CompactString, Value)],
    frame: &Frame,
    strict: &mut StrictErrors,
) {
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    for (name, _) in entries {
        if !seen.insert(name.as_str()) {
            strict.duplicate(frame, name);
        }
    }
}
