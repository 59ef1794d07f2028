//! Which objects of a collection a request means, and at which revision.
//!
//! upstream: apiserver/pkg/endpoints/handlers/get.go listOpts, apiserver/pkg/storage/{selection_predicate,interfaces,continue}.go

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use copepod_meta::field::quote;
use copepod_meta::field_selector::{FieldSelector, FieldTerm};
use copepod_meta::selector::LabelSelector;
use copepod_meta::{CompactString, Path, ResourceVersion, Status, names};
use copepod_store::cache::{Attributes, Filter, ReadAt, Scope};

use crate::api::{ListOptions, Target};
use crate::collection::Collection;

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

/// What a list, a watch or a deletecollection selects.
pub(crate) struct Selection {
    pub(crate) scope: Scope,
    /// Where continue tokens start to count: the folder of the request.
    pub(crate) folder: Bytes,
    pub(crate) filter: Option<Filter>,
    /// An index that narrows the selection.
    pub(crate) field: Option<(usize, CompactString)>,
}

impl Selection {
    /// From a request's options.
    pub(crate) fn of(
        collection: &Collection,
        target: &Target,
        options: &ListOptions,
    ) -> Result<Selection, Status> {
        let labels =
            LabelSelector::parse(&options.label_selector).map_err(|e| Status::bad_request(e.to_string()))?;
        let mut fields =
            FieldSelector::parse(&options.field_selector).map_err(|e| Status::bad_request(e.to_string()))?;
        check_fields(collection, target, &fields)?;
        for term in &mut fields.terms {
            term.field = target.served.kind.strategy.hub_field(&term.field);
        }
        if !target.name.is_empty() {
            named(&mut fields, &target.name)?;
        }
        let paging = !options.continue_token.is_empty();
        let mut namespace = target.namespace.as_str();
        let only = fields.exact(NAMESPACE).filter(|_| !paging).unwrap_or("");
        if namespace.is_empty() && names::dns1123_label(only).is_empty() {
            namespace = only;
        }
        let folder = collection.folder(namespace);
        let scope = match fields.exact(NAME).filter(|_| !paging).map(|name| collection.key(namespace, name)) {
            Some(Ok(key)) => Scope::Key(key),
            _ if folder == collection.root => Scope::Resource,
            _ => Scope::Folder(folder.clone()),
        };
        let field = fields.terms.iter().filter(|t| !t.negated).find_map(|t| {
            let position = collection.forms.field(&t.field)?;
            Some((position, CompactString::from(t.value.as_str())))
        });
        let filter = filter(collection, labels, fields, &scope);
        Ok(Selection { scope, folder, filter, field })
    }
}

/// Refuses selectors that are none: upstream reads them with the other options, before it minds how these fit together.
/// upstream: apiserver/pkg/endpoints/handlers/get.go ListResource, DecodeParameters
pub(crate) fn check_selectors(options: &ListOptions) -> Result<(), Status> {
    LabelSelector::parse(&options.label_selector).map_err(|e| Status::bad_request(e.to_string()))?;
    FieldSelector::parse(&options.field_selector).map_err(|e| Status::bad_request(e.to_string()))?;
    Ok(())
}

/// Refuses fields that the kind cannot select by.
/// upstream: ConvertFieldLabel; apimachinery/pkg/runtime/conversion.go DefaultMetaV1FieldSelectorConversion
fn check_fields(collection: &Collection, target: &Target, fields: &FieldSelector) -> Result<(), Status> {
    let own = target.served.kind.strategy.selectable_fields();
    for term in &fields.terms {
        let field = term.field.as_str();
        let known = match field {
            NAME => true,
            NAMESPACE => own.is_empty() || collection.resource.namespaced,
            _ => own.contains(&field),
        };
        if !known {
            return Err(Status::bad_request(if own.is_empty() {
                format!(
                    "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                    quote(field)
                )
            } else {
                target.served.kind.strategy.unknown_field(field)
            }));
        }
    }
    Ok(())
}

/// A name in the URL is a field selector; the only other one that may stand beside it is the same.
fn named(fields: &mut FieldSelector, name: &str) -> Result<(), Status> {
    if fields.is_empty() {
        let term = FieldTerm { field: NAME.into(), negated: false, value: name.into() };
        fields.terms.push(term);
        return Ok(());
    }
    if fields.exact(NAME) == Some(name) {
        return Ok(());
    }
    Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"))
}

fn filter(
    collection: &Collection,
    labels: LabelSelector,
    fields: FieldSelector,
    scope: &Scope,
) -> Option<Filter> {
    let only_the_name = matches!(scope, Scope::Key(_)) && fields.terms.len() == 1;
    if labels.is_empty() && (fields.is_empty() || only_the_name) {
        return None;
    }
    let positions: Vec<Option<usize>> =
        fields.terms.iter().map(|t| collection.forms.field(&t.field)).collect();
    Some(Arc::new(move |a: &Attributes| {
        let label = |key: &str| a.labels.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        labels.matches(label)
            && fields.terms.iter().zip(&positions).all(|(term, position)| {
                let value = match (term.field.as_str(), position) {
                    (NAME, _) => a.name.as_str(),
                    (NAMESPACE, _) => a.namespace.as_str(),
                    (_, Some(at)) => a.fields.get(*at).map_or("", |v| v.as_str()),
                    (_, None) => "",
                };
                (value == term.value) != term.negated
            })
    }))
}

/// The revision that a list wants, and the key at which it goes on.
pub(crate) struct Position {
    pub(crate) at: ReadAt,
    pub(crate) start: Bytes,
    pub(crate) limit: usize,
}

impl Position {
    /// upstream: apiserver/pkg/storage/interfaces.go ValidateListOptions
    pub(crate) fn of(options: &ListOptions, selection: &Selection) -> Result<Position, Status> {
        let mut limit = usize::try_from(options.limit).unwrap_or(0);
        if !options.continue_token.is_empty() {
            let (start, revision) = decode_continue(&options.continue_token, &selection.folder)
                .map_err(|why| Status::bad_request(format!("invalid continue token: {why}")))?;
            if !matches!(options.resource_version.as_str(), "" | "0") {
                let why = "specifying resource version is not allowed when using continue";
                return Err(Status::bad_request(why));
            }
            let at = u64::try_from(revision).map_or(ReadAt::Latest, ReadAt::Exactly);
            return Ok(Position { at, start, limit });
        }
        let asked = match options.resource_version.as_str() {
            "" => return Ok(Position { at: ReadAt::Latest, start: Bytes::new(), limit }),
            text => parse_version(text)
                .map_err(|e| Status::bad_request(format!("invalid resource version: {e}")))?,
        };
        let at = match asked {
            _ if options.is_exact() => ReadAt::Exactly(asked),
            0 => {
                // The cache has it all at hand; upstream ignores the limit, and clients page only where told to.
                limit = 0;
                ReadAt::Any
            }
            _ if options.resource_version_match.is_empty() && limit > 0 => ReadAt::Exactly(asked),
            _ => ReadAt::AtLeast(asked),
        };
        Ok(Position { at, start: Bytes::new(), limit })
    }
}

/// The revision of a client's `resourceVersion`; what is wrong with it reads as upstream's field error.
pub(crate) fn parse_version(text: &str) -> Result<u64, copepod_meta::FieldError> {
    ResourceVersion::parse(text).map(|v| v.0).map_err(|e| {
        copepod_meta::FieldError::invalid_str(&Path::new("resourceVersion"), text, e.to_string())
    })
}

/// `{"v":"meta.k8s.io/v1","rv":N,"start":"ns/name\u0000"}` in URL-safe base64. A public format: other servers read it.
/// upstream: apiserver/pkg/storage/continue.go EncodeContinue
pub(crate) fn encode_continue(last_key: &[u8], folder: &[u8], revision: i64) -> String {
    let rest = last_key.strip_prefix(folder).unwrap_or(last_key);
    let start = String::from_utf8_lossy(rest);
    let mut json = format!("{{\"v\":\"meta.k8s.io/v1\",\"rv\":{revision},\"start\":");
    let mut text = Vec::new();
    crate::wire::encode_untyped(&copepod_meta::Value::string(format!("{start}\0")), &mut text);
    json.push_str(&String::from_utf8_lossy(&text));
    json.push('}');
    URL_SAFE_NO_PAD.encode(json)
}

/// Go does not look at the bits of the last character that stand for nothing.
const AS_GO: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// upstream: apiserver/pkg/storage/continue.go DecodeContinue
fn decode_continue(token: &str, folder: &[u8]) -> Result<(Bytes, i64), String> {
    let invalid = |why: String| format!("continue key is not valid: {why}");
    let json = AS_GO.decode(token).map_err(|e| invalid(base64_error(&e)))?;
    let tree = crate::wire::decode_untyped(&json).map_err(|e| invalid(e.to_string()))?;
    for (name, ty) in [("v", "string"), ("start", "string"), ("rv", "int64")] {
        let kind = match (tree.get(name), ty) {
            (copepod_meta::Value::Null, _) => continue,
            (copepod_meta::Value::Int(_), "int64") | (copepod_meta::Value::String(_), "string") => continue,
            (copepod_meta::Value::Map(_), _) => "object",
            (copepod_meta::Value::List(_), _) => "array",
            (copepod_meta::Value::Bool(_), _) => "bool",
            (copepod_meta::Value::Int(_) | copepod_meta::Value::Float(_), _) => "number",
            _ => "string",
        };
        let field = format!("Go struct field continueToken.{name} of type {ty}");
        return Err(invalid(format!("json: cannot unmarshal {kind} into {field}")));
    }
    let version = tree.str_at(&["v"]);
    if version != "meta.k8s.io/v1" {
        return Err(format!(
            "continue key is not valid: server does not recognize this encoded version {version}"
        ));
    }
    let (revision, start) = (tree.int_at(&["rv"]), tree.str_at(&["start"]));
    if revision == 0 {
        return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
    }
    if start.is_empty() {
        return Err(invalid("encoded start key empty (version meta.k8s.io/v1)".into()));
    }
    let start = start.strip_prefix('/').unwrap_or(start);
    // A start key must stay below the folder: no dots that climb, no empty steps.
    if start.is_empty() || start.split('/').any(|step| matches!(step, "" | "." | "..")) {
        return Err(invalid(tree.str_at(&["start"]).to_string()));
    }
    Ok(([folder, start.as_bytes()].concat().into(), revision))
}

/// As Go's `base64.CorruptInputError`.
fn base64_error(error: &base64::DecodeError) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(length) => length.saturating_sub(1),
        base64::DecodeError::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let token = encode_continue(b"/registry/pods/ns/a", b"/registry/pods/", 7);
        let (start, revision) = decode_continue(&token, b"/registry/pods/").expect("ours");
        assert_eq!((&start[..], revision), (&b"/registry/pods/ns/a\0"[..], 7));
    }

    #[test]
    fn bad_tokens_are_refused_with_upstreams_words() {
        let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
        for (token, want) in [
            ("***".to_string(), "continue key is not valid: illegal base64 data at input byte 0"),
            // Its last character stands for more than is taken of it.
            (
                "undefin".to_string(),
                "continue key is not valid: invalid character 'º' looking for beginning of value",
            ),
            (
                encode(r#"{"v":"v9","rv":1,"start":"a"}"#),
                "continue key is not valid: server does not recognize this encoded version v9",
            ),
            (
                encode(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
                "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (
                encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#),
                "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)",
            ),
            (
                encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/x"}"#),
                "continue key is not valid: ../secrets/x",
            ),
        ] {
            assert_eq!(decode_continue(&token, b"/registry/pods/").expect_err(&token), want);
        }
    }
}
