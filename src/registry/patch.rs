//! Patches: JSON patch, merge patch and strategic merge patch of an object's JSON in the version of the request.
//!
//! upstream: apiserver/pkg/endpoints/handlers/patch.go

mod graft;
mod shown;
#[cfg(test)]
mod tests;

use copepod_codec as codec;
use copepod_merge::go_format::go_format;
use copepod_merge::json_patch::{JsonPatch, JsonPatchError};
use copepod_merge::merge_patch::merge_patch;
use copepod_merge::strategic::{StrategicPatchError, strategic_merge_patch};
use copepod_meta::{ErrorList, FieldError, Gvk, Path, Reason, Status, Value};
use copepod_schema::{TypeId, Universe};

use crate::api::{Body, FieldValidation, PatchType, Warnings, WriteOptions};
use crate::call::Call;
use shown::Touched;

/// A patch, parsed once, applied to each state that an update meets.
pub(crate) struct Patch {
    document: Document,
    /// Complaints about the document itself.
    complaints: Vec<String>,
    directive: FieldValidation,
}

enum Document {
    Json(JsonPatch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Parses the document.
    pub(crate) fn parse(kind: PatchType, body: &Body, directive: FieldValidation) -> Result<Patch, Status> {
        if kind == PatchType::Apply {
            // Of subresources with a type of their own.
            return Err(Status::not_implemented("server-side apply to this subresource"));
        }
        let (document, duplicates) =
            codec::decode_untyped(&body.bytes).map_err(|e| match (kind, directive) {
                (PatchType::Strategic, _) | (_, FieldValidation::Ignore) => {
                    Status::bad_request(e.to_string())
                }
                _ => Status::bad_request(format!("error decoding patch: {e}")),
            })?;
        let (document, mut complaints) = match kind {
            PatchType::Json => {
                let (patch, unknown) = JsonPatch::parse(document).map_err(json_patch_status)?;
                let duplicates = duplicates.into_iter().map(|c| format!("json patch {c}"));
                (Document::Json(patch), duplicates.chain(unknown).collect())
            }
            PatchType::Merge => (Document::Merge(document), duplicates),
            // Nothing at all changes nothing.
            _ if document.is_null() => (Document::Strategic(Value::map()), duplicates),
            _ => {
                must_be_map(&document).map_err(Status::bad_request)?;
                (Document::Strategic(document), duplicates)
            }
        };
        if directive == FieldValidation::Ignore {
            complaints.clear();
        }
        Ok(Patch { document, complaints, directive })
    }

    /// The object that the patch makes of `current`, both in the version of `gvk`; defaults are not applied.
    pub(crate) fn apply(
        &self,
        types: &Universe,
        ty: TypeId,
        gvk: &Gvk,
        current: Value,
        warnings: &Warnings,
    ) -> Result<Value, Status> {
        match self.members(types, ty, gvk, &current) {
            Some(members) => Ok(members.put_into(current)),
            None => self.apply_to_all(types, ty, gvk, &current, warnings),
        }
    }

    /// The members that the patch changes, as it leaves them; `None` where more than they must be looked at, be it for a
    /// refusal or a warning, which show more of the object.
    fn members(
        &self,
        types: &Universe,
        ty: TypeId,
        gvk: &Gvk,
        current: &Value,
    ) -> Option<graft::Members<'_>> {
        let (Document::Strategic(document) | Document::Merge(document)) = &self.document else { return None };
        let strategic = matches!(self.document, Document::Strategic(_));
        let (members, part) = graft::members(types, ty, document, current, strategic)?;
        let part = codec::to_untyped(&part, types, ty, Some(gvk));
        let decoded = self.decode(types, ty, gvk, self.patched(types, ty, part).ok()?).ok()?;
        let complains = !self.complaints.is_empty() || !decoded.strict_errors.is_empty();
        let as_it_was = decoded.gvk == *gvk && !(complains && self.directive != FieldValidation::Ignore);
        as_it_was.then(|| members.changed(decoded.value, current)).flatten()
    }

    fn decode(
        &self,
        types: &Universe,
        ty: TypeId,
        gvk: &Gvk,
        patched: Value,
    ) -> Result<codec::Decoded, codec::DecodeFailure> {
        match &self.document {
            Document::Strategic(_) => codec::from_unstructured(patched, types, ty, Some(gvk)),
            _ => codec::from_untyped(&patched, types, ty, Some(gvk)),
        }
    }

    fn apply_to_all(
        &self,
        types: &Universe,
        ty: TypeId,
        gvk: &Gvk,
        current: &Value,
        warnings: &Warnings,
    ) -> Result<Value, Status> {
        let current = codec::to_untyped(current, types, ty, Some(gvk));
        let patched = self.patched(types, ty, current)?;
        let refuse = |why: String| self.refuse(&patched, types, ty, why);
        let decoded = self.decode(types, ty, gvk, patched.clone());
        let decoded = decoded.map_err(|failure| refuse(failure.error.to_string()))?;
        // A strategic patch is put into the object that is there, which knows what it is.
        if decoded.gvk != *gvk && !matches!(self.document, Document::Strategic(_)) {
            let why = format!(
                "{} in version {:?} cannot be handled as a {}",
                decoded.gvk.kind, decoded.gvk.version, gvk.kind
            );
            return Err(refuse(why));
        }
        if self.directive != FieldValidation::Ignore {
            let complaints: Vec<&String> = self.complaints.iter().chain(&decoded.strict_errors).collect();
            match self.directive {
                FieldValidation::Warn => complaints.into_iter().for_each(|c| crate::wire::warn(c, warnings)),
                _ if complaints.is_empty() => {}
                _ => {
                    let texts: Vec<&str> = complaints.into_iter().map(String::as_str).collect();
                    let why = format!("strict decoding error: {}", texts.join(", "));
                    return Err(refuse(why));
                }
            }
        }
        Ok(decoded.value)
    }

    fn patched(&self, types: &Universe, ty: TypeId, current: Value) -> Result<Value, Status> {
        match &self.document {
            Document::Json(patch) => patch.apply(current).map_err(json_patch_status),
            Document::Merge(patch) => {
                merge_patch(current, patch.clone()).map_err(|e| Status::bad_request(e.to_string()))
            }
            Document::Strategic(patch) => {
                strategic_merge_patch(current, patch.clone(), types, ty).map_err(strategic_status)
            }
        }
    }

    /// 422 at `patch`; the value is what upstream shows: the patched document, of a strategic patch the patch as Go prints maps.
    fn refuse(&self, patched: &Value, types: &Universe, ty: TypeId, why: String) -> Status {
        let shown = match &self.document {
            Document::Strategic(patch) => go_format(patch),
            Document::Merge(patch) => shown::text(patched, types, ty, &Touched::by_document(patch)),
            Document::Json(patch) => shown::text(patched, types, ty, &Touched::by_operations(patch.places())),
        };
        let errors: ErrorList = vec![FieldError::invalid_str(&Path::new("patch"), &shown, why)];
        Status::invalid("", "", "", &errors)
    }
}

/// An applied configuration: the body of a server-side apply.
pub(crate) struct Configuration {
    config: Value,
    duplicates: Vec<String>,
    directive: FieldValidation,
    force: bool,
}

impl Configuration {
    /// Parses YAML or JSON.
    pub(crate) fn parse(body: &Body, options: &WriteOptions) -> Result<Configuration, Status> {
        let bad = |e: codec::DecodeError| {
            Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {e}"))
        };
        let (json, duplicate) = codec::yaml_to_json(&body.bytes).map_err(bad)?;
        let (config, more) = codec::decode_untyped(&json).map_err(bad)?;
        if !config.is_null() {
            must_be_map(&config).map_err(|why| {
                let why = format!("error unmarshaling JSON: while decoding JSON: {why}");
                Status::bad_request(format!("error decoding YAML: {why}"))
            })?;
        }
        let duplicates = duplicate.into_iter().chain(more).collect();
        let (directive, force) = (options.directive(), options.force == Some(true));
        Ok(Configuration { config, duplicates, directive, force })
    }

    /// The hub tree that it makes of the stored one.
    pub(crate) fn apply(&self, call: &Call<'_>, old: Option<&Value>) -> Result<Value, Status> {
        let object = call.writer().apply(old, &self.config, self.force)?;
        let uid = self.config.str_at(&["metadata", "uid"]);
        if old.is_none() && !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            let resource = call.target.served.group_resource();
            return Err(Status::conflict(&resource, &call.target.name, &why));
        }
        match self.directive {
            FieldValidation::Strict if !self.duplicates.is_empty() => {
                let why = self.duplicates.join(", ");
                Err(Status::bad_request(format!("error strict decoding YAML: {why}")))
            }
            FieldValidation::Warn => {
                self.duplicates.iter().for_each(|d| crate::wire::warn(d, &call.caller.warnings));
                Ok(object)
            }
            _ => Ok(object),
        }
    }
}

/// In Go's words when it is none.
fn must_be_map(document: &Value) -> Result<(), String> {
    let kind = match document {
        Value::Map(_) => return Ok(()),
        Value::List(_) => "array",
        Value::Bool(_) => "bool",
        Value::Int(_) | Value::Float(_) => "number",
        _ => "string",
    };
    Err(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
}

/// upstream: apiserver/pkg/endpoints/handlers/patch.go applyJSPatch
fn json_patch_status(error: JsonPatchError) -> Status {
    match error {
        JsonPatchError::Malformed(_) => Status::bad_request(error.to_string()),
        JsonPatchError::TooManyOperations(_) => {
            let message = format!("Request entity too large: {error}");
            Status::new(413, Reason::RequestEntityTooLarge, message)
        }
        JsonPatchError::DoesNotApply(_) => unprocessable(error.to_string()),
    }
}

/// upstream: apiserver/pkg/endpoints/handlers/patch.go interpretStrategicMergePatchError
fn strategic_status(error: StrategicPatchError) -> Status {
    let text = error.to_string();
    match error {
        StrategicPatchError::BadDocument
        | StrategicPatchError::BadPrimitiveList
        | StrategicPatchError::BadRetainKeys
        | StrategicPatchError::BadElementOrder
        | StrategicPatchError::Unsupported => Status::bad_request(text),
        StrategicPatchError::ListOfLists => unprocessable(text),
        StrategicPatchError::Other(_) => Status::new(500, Reason::Unknown, text),
    }
}

/// What was wrong is not told, as upstream does not (its cause is only kept for responses that were not understood); it is
/// logged. upstream: apimachinery/pkg/api/errors NewGenericServerResponse
fn unprocessable(why: String) -> Status {
    tracing::debug!(why, "a patch does not apply");
    let mut status =
        Status::new(422, Reason::Invalid, "the server rejected our request due to an error in our request");
    status.details = Some(Box::default());
    status
}
