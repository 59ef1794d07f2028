//! The OpenAPI v2 document in gnostic's protobuf, the only form that client-go's `OpenAPISchema` asks for.
//!
//! Tables say which member of JSON is which field; [`encode`] walks them. Extensions (`x-...`), enums and defaults are
//! messages that hold the value as YAML, of which JSON is a part.
//!
//! Invariant: a member that no table knows is an error, never left out. upstream: kube-openapi/pkg/handler ToProtoBinary,
//! gnostic-models/openapiv2/OpenAPIv2.proto

use serde_json::Value;

/// A member that gnostic's messages have no place for, or of another type. The document is ours: it is a defect of it.
#[derive(Debug, thiserror::Error)]
pub enum GnosticError {
    /// The document is not JSON.
    #[error("the document is not JSON")]
    Json(#[from] serde_json::Error),
    /// No field has this name.
    #[error("no field for the member {0:?}")]
    Unknown(String),
    /// The member has another type than the field.
    #[error("the member {0:?} has another type than its field")]
    Type(String),
}

enum Kind {
    Text,
    Texts,
    Bool,
    Int,
    Number,
    /// A value as YAML.
    Any,
    Anys,
    One(&'static Message),
    Many(&'static Message),
    /// One of several messages.
    Choice(Choose),
    Choices(Choose),
    /// A message with the one field 1: a message.
    Boxed(&'static Message),
    /// A message with the one field 1: a list of texts, of which JSON may have one without its list.
    BoxedTexts,
    /// A schema or a boolean.
    SchemaOrBool,
}

/// The field numbers that lead to the chosen message, outermost first, and that message.
type Choose = fn(&Value) -> (&'static [u64], &'static Message);

#[derive(Default)]
struct Message {
    fields: &'static [(&'static str, u64, Kind)],
    /// The field of members that begin with `x-`.
    extensions: Option<u64>,
    /// The field of all other members, each a message of name and value.
    named: Option<(u64, &'static Kind)>,
}

use Kind::{
    Any, Anys, Bool, Boxed, BoxedTexts, Choice, Choices, Int, Many, Number, One, SchemaOrBool, Text, Texts,
};

const fn message(fields: &'static [(&'static str, u64, Kind)], extensions: u64) -> Message {
    Message { fields, extensions: Some(extensions), named: None }
}

const fn map(field: u64, value: &'static Kind) -> Message {
    Message { fields: &[], extensions: None, named: Some((field, value)) }
}

static DOCUMENT: Message = message(
    &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Texts),
        ("consumes", 6, Texts),
        ("produces", 7, Texts),
        ("paths", 8, One(&PATHS)),
        ("definitions", 9, One(&SCHEMAS)),
        ("parameters", 10, One(&PARAMETERS)),
        ("security", 12, Many(&SECURITY)),
        ("securityDefinitions", 13, One(&SECURITY_DEFINITIONS)),
    ],
    16,
);
static INFO: Message = message(
    &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text), ("termsOfService", 4, Text)],
    7,
);
static PATHS: Message = Message { fields: &[], extensions: Some(1), named: Some((2, &One(&PATH))) };
static PATH: Message = message(
    &[
        ("$ref", 1, Text),
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Choices(parameter_or_reference)),
    ],
    10,
);
static OPERATION: Message = message(
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Choices(parameter_or_reference)),
        ("responses", 9, One(&RESPONSES)),
        ("schemes", 10, Texts),
        ("deprecated", 11, Bool),
        ("security", 12, Many(&SECURITY)),
    ],
    13,
);
static REFERENCE: Message =
    Message { fields: &[("$ref", 1, Text), ("description", 2, Text)], extensions: None, named: None };
static BODY: Message = message(
    &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, One(&SCHEMA)),
    ],
    6,
);
static QUERY: Message = message(
    &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("allowEmptyValue", 5, Bool),
        ("type", 6, Text),
        ("format", 7, Text),
        ("collectionFormat", 9, Text),
        ("default", 10, Any),
        ("maximum", 11, Number),
        ("minimum", 13, Number),
        ("pattern", 17, Text),
        ("uniqueItems", 20, Bool),
        ("enum", 21, Anys),
    ],
    23,
);
/// Of a path and of a header: the same fields.
static PATH_PARAMETER: Message = message(
    &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("collectionFormat", 8, Text),
        ("default", 9, Any),
        ("maximum", 10, Number),
        ("minimum", 12, Number),
        ("pattern", 16, Text),
        ("uniqueItems", 19, Bool),
        ("enum", 20, Anys),
    ],
    22,
);
static PARAMETERS: Message = map(1, &Choice(parameter));
static RESPONSES: Message = Message { fields: &[], extensions: Some(2), named: Some((1, &Choice(response))) };
static RESPONSE: Message =
    message(&[("description", 1, Text), ("schema", 2, Choice(|_| (&[1], &SCHEMA)))], 5);
static SCHEMAS: Message = map(1, &One(&SCHEMA));
static SCHEMA: Message = message(
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Int),
        ("minLength", 12, Int),
        ("pattern", 13, Text),
        ("maxItems", 14, Int),
        ("minItems", 15, Int),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Int),
        ("minProperties", 18, Int),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, SchemaOrBool),
        ("type", 22, BoxedTexts),
        ("items", 23, Boxed(&SCHEMA)),
        ("allOf", 24, Many(&SCHEMA)),
        ("properties", 25, One(&SCHEMAS)),
        ("discriminator", 26, Text),
        ("readOnly", 27, Bool),
        ("externalDocs", 29, One(&EXTERNAL_DOCS)),
        ("example", 30, Any),
    ],
    31,
);
static EXTERNAL_DOCS: Message = message(&[("description", 1, Text), ("url", 2, Text)], 3);
static SECURITY: Message = map(1, &BoxedTexts);
static SECURITY_DEFINITIONS: Message = map(1, &Choice(|_| (&[2], &API_KEY)));
static API_KEY: Message =
    message(&[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)], 5);

fn parameter_or_reference(value: &Value) -> (&'static [u64], &'static Message) {
    match (value.get("$ref").is_some(), value["in"].as_str()) {
        (true, _) => (&[2], &REFERENCE),
        (_, Some("body")) => (&[1, 1], &BODY),
        (_, Some("query")) => (&[1, 2, 3], &QUERY),
        (_, Some("path")) => (&[1, 2, 4], &PATH_PARAMETER),
        _ => (&[1, 2, 1], &PATH_PARAMETER),
    }
}

fn parameter(value: &Value) -> (&'static [u64], &'static Message) {
    let (path, message) = parameter_or_reference(value);
    (&path[1..], message)
}

fn response(value: &Value) -> (&'static [u64], &'static Message) {
    if value.get("$ref").is_some() { (&[2], &REFERENCE) } else { (&[1], &RESPONSE) }
}

/// A v2 document in JSON as gnostic's `openapi.v2.Document`.
pub fn encode(json: &str) -> Result<Vec<u8>, GnosticError> {
    let mut out = Vec::with_capacity(json.len());
    DOCUMENT.encode(&serde_json::from_str(json)?, "", &mut out)?;
    Ok(out)
}

impl Message {
    fn encode(&self, value: &Value, name: &str, out: &mut Vec<u8>) -> Result<(), GnosticError> {
        let members = value.as_object().ok_or_else(|| GnosticError::Type(name.into()))?;
        for (member, value) in members {
            if let Some((_, number, kind)) = self.fields.iter().find(|(json, ..)| json == member) {
                kind.encode(*number, value, member, out)?;
            } else if let Some(number) = self.extensions.filter(|_| member.starts_with("x-")) {
                put_named(number, member, &Any, value, out)?;
            } else if let Some((number, kind)) = self.named {
                put_named(number, member, kind, value, out)?;
            } else {
                return Err(GnosticError::Unknown(member.clone()));
            }
        }
        Ok(())
    }
}

fn put_named(
    number: u64,
    name: &str,
    kind: &Kind,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), GnosticError> {
    let mut pair = Vec::new();
    put_bytes(1, name.as_bytes(), &mut pair);
    kind.encode(2, value, name, &mut pair)?;
    put_bytes(number, &pair, out);
    Ok(())
}

impl Kind {
    fn encode(&self, number: u64, value: &Value, name: &str, out: &mut Vec<u8>) -> Result<(), GnosticError> {
        let wrong = || GnosticError::Type(name.into());
        let list = |value: &'_ Value| value.as_array().cloned().ok_or_else(wrong);
        match self {
            // What is empty or false is left out, as proto3 does.
            Text => match value.as_str().ok_or_else(wrong)? {
                "" => {}
                text => put_bytes(number, text.as_bytes(), out),
            },
            Texts => {
                for text in list(value)? {
                    put_bytes(number, text.as_str().ok_or_else(wrong)?.as_bytes(), out);
                }
            }
            Bool => {
                if value.as_bool().ok_or_else(wrong)? {
                    put_varint(number << 3, out);
                    put_varint(1, out);
                }
            }
            Int => {
                put_varint(number << 3, out);
                put_varint(value.as_u64().ok_or_else(wrong)?, out);
            }
            Number => {
                put_varint(number << 3 | 1, out);
                out.extend(value.as_f64().ok_or_else(wrong)?.to_le_bytes());
            }
            Any => {
                let mut any = Vec::new();
                put_bytes(2, format!("{value}\n").as_bytes(), &mut any);
                put_bytes(number, &any, out);
            }
            One(message) => put_message(number, out, |out| message.encode(value, name, out))?,
            Choice(choose) => {
                let (path, message) = choose(value);
                put_message(number, out, |out| put_path(path, message, value, name, out))?;
            }
            Anys | Many(_) | Choices(_) => {
                let each = match self {
                    Many(message) => One(message),
                    Choices(choose) => Choice(*choose),
                    _ => Any,
                };
                for value in list(value)? {
                    each.encode(number, &value, name, out)?;
                }
            }
            Boxed(message) => put_message(number, out, |out| One(message).encode(1, value, name, out))?,
            BoxedTexts if value.is_string() => {
                put_message(number, out, |out| Text.encode(1, value, name, out))?
            }
            BoxedTexts => put_message(number, out, |out| Texts.encode(1, value, name, out))?,
            SchemaOrBool if value.is_boolean() => {
                put_message(number, out, |out| Bool.encode(2, value, name, out))?
            }
            SchemaOrBool => put_message(number, out, |out| One(&SCHEMA).encode(1, value, name, out))?,
        }
        Ok(())
    }
}

/// A message inside the messages that lead to it.
fn put_path(
    path: &[u64],
    message: &Message,
    value: &Value,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<(), GnosticError> {
    match path.split_first() {
        None => message.encode(value, name, out),
        Some((number, rest)) => put_message(*number, out, |out| put_path(rest, message, value, name, out)),
    }
}

fn put_message(
    number: u64,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), GnosticError>,
) -> Result<(), GnosticError> {
    let mut inner = Vec::new();
    fill(&mut inner)?;
    put_bytes(number, &inner, out);
    Ok(())
}

fn put_bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(number << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client decides whether it can read it (conformance/client-go); here: every member has its field.
    #[test]
    fn the_whole_document_has_a_form() {
        let bytes = encode(&super::super::v2_document()).expect("every member has a field");
        assert!(bytes.len() > 500_000, "{} bytes", bytes.len());
    }

    #[test]
    fn small_documents_are_exact() {
        for (json, want) in [
            (r#"{"swagger":"2.0"}"#, "0a 03 32 2e 30"),
            // definitions { additional_properties { name: "A" value { type { value: "object" } } } }
            (
                r#"{"definitions":{"A":{"type":"object"}}}"#,
                "4a 12 0a 10 0a 01 41 12 0b b2 01 08 0a 06 6f 62 6a 65 63 74",
            ),
            // parameters { additional_properties { name: "p" value { non_body { query { in: "query" } } } } }
            (
                r#"{"parameters":{"p":{"in":"query"}}}"#,
                "52 12 0a 10 0a 01 70 12 0b 12 09 1a 07 12 05 71 75 65 72 79",
            ),
            // vendor_extension { name: "x-a" value { yaml: "[1]\n" } }
            (r#"{"x-a":[1]}"#, "82 01 0d 0a 03 78 2d 61 12 06 12 04 5b 31 5d 0a"),
        ] {
            let got: Vec<String> = encode(json).expect(json).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(got.join(" "), want, "{json}");
        }
        assert!(
            matches!(encode(r#"{"nonsense":1}"#), Err(GnosticError::Unknown(member)) if member == "nonsense")
        );
        assert!(matches!(encode(r#"{"swagger":1}"#), Err(GnosticError::Type(member)) if member == "swagger"));
    }
}
