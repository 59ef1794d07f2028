//! The hand-written JSON forms, read as upstream's `UnmarshalJSON` methods do.

use copepod_meta::quantity::Quantity;
use copepod_meta::{Bytes, CompactString, Value};
use copepod_schema::{Special, Type, TypeId};

use super::decode::{Decoder, Frame, Step};
use super::names::json_kind;
use super::scan::{Next, SyntaxError};
use crate::time::{self, Precision};

/// The type as Go prints it.
pub(super) fn go_name(special: Special) -> &'static str {
    match special {
        Special::Time => "v1.Time",
        Special::MicroTime => "v1.MicroTime",
        Special::Duration => "v1.Duration",
        Special::Quantity => "resource.Quantity",
        Special::IntOrString => "intstr.IntOrString",
        Special::FieldsV1 => "v1.FieldsV1",
        Special::RawExtension => "runtime.RawExtension",
        Special::Unknown => "runtime.Unknown",
        Special::Json => "v1.JSON",
        Special::JsonSchemaPropsOrBool(_) => "v1.JSONSchemaPropsOrBool",
        Special::JsonSchemaPropsOrArray(_) => "v1.JSONSchemaPropsOrArray",
        Special::JsonSchemaPropsOrStringArray(_) => "v1.JSONSchemaPropsOrStringArray",
        Special::Object => "runtime.Object",
    }
}

impl<'a> Decoder<'a, '_> {
    pub(super) fn special(&mut self, special: Special, frame: &Frame) -> Result<Value, SyntaxError> {
        let first = self.scan.peek_value()?;
        if first == b'n' {
            // Fields and pointers become nil; what stands by value in a list or map gets its zero from the
            // caller.
            return self.scan.word("null").map(|()| Value::Null);
        }
        match special {
            Special::Time => self.time(first, Precision::Seconds, frame),
            Special::MicroTime => self.time(first, Precision::Micros, frame),
            Special::Duration => self.duration(first, frame),
            Special::Quantity => self.quantity(),
            Special::IntOrString => self.int_or_string(first, frame),
            Special::FieldsV1
            | Special::RawExtension
            | Special::Unknown
            | Special::Json
            | Special::Object => Ok(Value::Raw(Bytes::copy_from_slice(self.skip()?))),
            Special::JsonSchemaPropsOrBool(ty) => self.schema_or_bool(first, ty, frame),
            Special::JsonSchemaPropsOrArray(ty) => self.schema_or_array(first, ty, frame),
            Special::JsonSchemaPropsOrStringArray(ty) => self.schema_or_strings(first, ty, frame),
        }
    }

    /// Text, or an error that the value is none.
    fn text(&mut self, first: u8, frame: &Frame) -> Result<Option<std::borrow::Cow<'a, str>>, SyntaxError> {
        if first == b'"' {
            return self.scan.string().map(Some);
        }
        self.skip()?;
        self.fatal_type_error(frame, json_kind(first), "string");
        Ok(None)
    }

    fn time(&mut self, first: u8, precision: Precision, frame: &Frame) -> Result<Value, SyntaxError> {
        let Some(text) = self.text(first, frame)? else { return Ok(Value::Null) };
        match time::parse(&text, precision) {
            Ok(instant) if instant.is_zero() => Ok(Value::Null),
            Ok(_) if time::is_canonical(&text, precision) => Ok(Value::String(CompactString::from(text))),
            Ok(instant) => Ok(Value::String(CompactString::from(time::format(instant, precision)))),
            Err(message) => {
                self.fail(message);
                Ok(Value::Null)
            }
        }
    }

    fn duration(&mut self, first: u8, frame: &Frame) -> Result<Value, SyntaxError> {
        let Some(text) = self.text(first, frame)? else { return Ok(Value::Null) };
        match time::parse_duration(&text) {
            Ok(nanos) => Ok(Value::String(CompactString::from(time::format_duration(nanos)))),
            Err(message) => {
                self.fail(message);
                Ok(Value::Null)
            }
        }
    }

    /// A number or a string; upstream takes the text between the quotes without undoing escapes.
    /// upstream: apimachinery/pkg/api/resource/quantity.go UnmarshalJSON
    fn quantity(&mut self) -> Result<Value, SyntaxError> {
        let raw = super::scan::lossy(self.skip()?);
        let text = raw.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(&raw);
        match Quantity::parse(text.trim()) {
            Ok(quantity) => Ok(Value::String(CompactString::from(quantity.to_string()))),
            Err(error) => {
                self.fail(error.to_string());
                Ok(Value::Null)
            }
        }
    }

    fn int_or_string(&mut self, first: u8, frame: &Frame) -> Result<Value, SyntaxError> {
        match first {
            b'"' => Ok(Value::String(CompactString::from(self.scan.string()?))),
            b'-' | b'0'..=b'9' => {
                let text = self.scan.number()?;
                match text.parse::<i32>() {
                    Ok(integer) => Ok(Value::Int(integer.into())),
                    Err(_) => {
                        self.fatal_type_error(frame, &format!("number {text}"), "int32");
                        Ok(Value::Null)
                    }
                }
            }
            _ => {
                self.skip()?;
                self.fatal_type_error(frame, json_kind(first), "int32");
                Ok(Value::Null)
            }
        }
    }

    /// A schema by the standard library's rules: any case of names, nothing is reported as unknown or
    /// duplicate.
    fn schema(&mut self, ty: TypeId, frame: &Frame) -> Result<Value, SyntaxError> {
        let (fold, muted) = (self.fold, self.strict.muted);
        (self.fold, self.strict.muted) = (true, true);
        let universe = self.universe;
        let value = match universe.get(ty) {
            Type::Struct(ty) => self.structure(ty, frame),
            _ => self.value(ty, frame),
        };
        (self.fold, self.strict.muted) = (fold, muted);
        value
    }

    /// upstream: apiextensions/v1/marshal.go JSONSchemaPropsOrBool.UnmarshalJSON
    fn schema_or_bool(&mut self, first: u8, ty: TypeId, frame: &Frame) -> Result<Value, SyntaxError> {
        match first {
            b'{' => self.schema(ty, frame),
            b't' => self.scan.word("true").map(|()| Value::Bool(true)),
            b'f' => self.scan.word("false").map(|()| Value::Bool(false)),
            _ => {
                self.skip()?;
                self.fail("boolean or JSON schema expected".into());
                Ok(Value::Null)
            }
        }
    }

    /// upstream: apiextensions/v1/marshal.go JSONSchemaPropsOrArray.UnmarshalJSON
    fn schema_or_array(&mut self, first: u8, ty: TypeId, frame: &Frame) -> Result<Value, SyntaxError> {
        match first {
            b'{' => self.schema(ty, frame),
            b'[' => self.items(frame, |decoder, frame| match decoder.scan.peek_value()? {
                b'{' => decoder.schema(ty, frame),
                first => decoder.other_in_list(first, frame, "v1.JSONSchemaProps", Value::map()),
            }),
            // Anything else is an empty one to upstream.
            _ => self.skip().map(|_| Value::Null),
        }
    }

    /// upstream: apiextensions/v1/marshal.go JSONSchemaPropsOrStringArray.UnmarshalJSON
    fn schema_or_strings(&mut self, first: u8, ty: TypeId, frame: &Frame) -> Result<Value, SyntaxError> {
        match first {
            b'{' => self.schema(ty, frame),
            b'[' => self.items(frame, |decoder, frame| match decoder.scan.peek_value()? {
                b'"' => Ok(Value::String(CompactString::from(decoder.scan.string()?))),
                first => decoder.other_in_list(first, frame, "string", Value::string("")),
            }),
            _ => self.skip().map(|_| Value::Null),
        }
    }

    /// Null is the zero value, anything else an error.
    fn other_in_list(
        &mut self,
        first: u8,
        frame: &Frame,
        go_type: &str,
        zero: Value,
    ) -> Result<Value, SyntaxError> {
        self.skip()?;
        if first != b'n' {
            self.fatal_type_error(frame, json_kind(first), go_type);
        }
        Ok(zero)
    }

    fn items(
        &mut self,
        frame: &Frame,
        mut item: impl FnMut(&mut Self, &Frame) -> Result<Value, SyntaxError>,
    ) -> Result<Value, SyntaxError> {
        if !self.enter()? {
            return Ok(Value::Null);
        }
        let mut items = Vec::new();
        let mut next = self.scan.first_element();
        while next == Next::More {
            items.push(item(self, &frame.then(Step::Index(items.len())))?);
            next = self.scan.next_element()?;
        }
        self.leave();
        Ok(Value::List(items))
    }
}
