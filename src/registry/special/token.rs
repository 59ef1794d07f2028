//! `serviceaccounts/token`: a signed token of a service account, bound to what asks for it.
//!
//! upstream: pkg/registry/core/serviceaccount/storage/token.go

use std::sync::Arc;

use copepod_meta::{ErrorList, FieldError, GroupResource, GroupVersion, Path, Status, Value, time};

use super::{Answered, Ask, Special, admit_create, validate_create};
use crate::api::{Answer, Body, WriteOptions};
use crate::collection::now;
use crate::options::WriteKind;
use crate::registry::TokenClaims;

/// upstream: pkg/apis/authentication/validation MinTokenAgeSec
const EXPIRATION_SECONDS_MIN: i64 = 600;
const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;
const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

pub(super) struct Token;

impl Special for Token {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(issue(ask, body, options))
    }
}

async fn issue(ask: Ask<'_>, body: Body, options: &WriteOptions) -> Result<Answer, Status> {
    let (name, namespace) = (ask.target.name.as_str(), ask.target.namespace.as_str());
    let mut request = ask.decode(&body, options)?;
    ask.own(&mut request, options)?;
    let accounts = GroupResource::new("", "serviceaccounts");
    let collection = ask.registry.collection(&accounts)?;
    let call = ask.call(&collection, options, WriteKind::Create)?;
    admit_create(&call, &mut request).await?;
    must_match(&request, "name", name, name)?;
    must_match(&request, "namespace", namespace, name)?;

    let account = ask.registry.read_hub(&accounts, namespace, name).await?;
    let account = account.ok_or_else(|| Status::not_found(&accounts, name))?.object;
    let (asked, uid) = (request.str_at(&["metadata", "uid"]), account.str_at(&["metadata", "uid"]));
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the token request ({asked}) does not match the UID of the service account ({uid})"
        );
        return Err(Status::conflict(&GroupResource::new(GROUP, KIND), name, &why));
    }
    for (member, value) in [("name", name), ("namespace", namespace), ("uid", uid)] {
        request.set(&["metadata", member], value);
    }
    request.set(&["metadata", "creationTimestamp"], now());
    request.remove(&["status"]);
    validate(&request)?;
    validate_create(&call, &mut request).await?;

    let bound = bound_object(&ask, &request).await?;
    let issuer = ask.registry.deciders().issuer.as_ref();
    let issuer =
        issuer.ok_or_else(|| Status::not_implemented("signing service account tokens without a key"))?;
    let audiences: Vec<String> = request
        .list_at(&["spec", "audiences"])
        .iter()
        .filter_map(|a| a.as_str().map(str::to_string))
        .collect();
    let claims = TokenClaims {
        service_account: &account,
        bound: bound.as_ref().map(|b| (b.kind.as_str(), &*b.object)),
        node: bound.as_ref().and_then(|b| b.node.as_deref()),
        audiences: &audiences,
        expiration_seconds: request.int_at(&["spec", "expirationSeconds"]),
    };
    let token = issuer.issue(claims).await?;
    let list: Vec<Value> = token.audiences.iter().map(Value::string).collect();
    request.set(&["spec", "audiences"], list);
    request.set(&["status", "token"], token.token);
    let epoch = time::parse("1970-01-01T00:00:00Z").expect("a well-formed constant");
    let expires = time::plus_seconds(epoch, token.expires_unix_seconds);
    request.set(&["status", "expirationTimestamp"], time::rfc3339(expires));
    ask.answer(201, request)
}

fn must_match(request: &Value, member: &str, want: &str, name: &str) -> Result<(), Status> {
    let got = request.str_at(&["metadata", member]);
    if got.is_empty() || got == want {
        return Ok(());
    }
    let path = Path::new("metadata");
    let why = format!("must match the service account {member} if specified");
    let errors: ErrorList = vec![FieldError::invalid_str(&path.child(member), got, why)];
    Err(Status::invalid(GROUP, KIND, name, &errors))
}

/// upstream: ValidateTokenRequest
fn validate(request: &Value) -> Result<(), Status> {
    let seconds = request.int_at(&["spec", "expirationSeconds"]);
    let why = match seconds {
        ..EXPIRATION_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        EXPIRATION_SECONDS_MIN..=EXPIRATION_SECONDS_MAX => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let spec = Path::new("spec");
    let errors: ErrorList = vec![FieldError::invalid_int(&spec.child("expirationSeconds"), seconds, why)];
    Err(Status::invalid(GROUP, KIND, "", &errors))
}

/// What a token dies with.
struct Bound {
    kind: String,
    object: Arc<Value>,
    /// The node of a pod, as far as it is known.
    node: Option<Arc<Value>>,
}

async fn bound_object(ask: &Ask<'_>, request: &Value) -> Result<Option<Bound>, Status> {
    let reference = request.at(&["spec", "boundObjectRef"]);
    if reference.is_null() {
        return Ok(None);
    }
    let text = |member| reference.str_at(&[member]);
    let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let group = GroupVersion::parse(api_version).map_or(api_version.to_string(), |gv| gv.group);
    let (plural, namespace) = match (group.as_str(), kind) {
        ("", "Pod") => ("pods", ask.target.namespace.as_str()),
        ("", "Secret") => ("secrets", ask.target.namespace.as_str()),
        ("", "Node") => ("nodes", ""),
        _ => {
            let gv = GroupVersion::parse(api_version).unwrap_or_default();
            let why = format!("cannot bind token to object of type {}", gv.kind(kind));
            return Err(Status::bad_request(why));
        }
    };
    let resource = GroupResource::new("", plural);
    let found = ask.registry.read_hub(&resource, namespace, name).await?;
    let object = found.ok_or_else(|| Status::not_found(&resource, name))?.object;
    let mut node = None;
    if kind == "Pod" {
        let account = &ask.target.name;
        if object.str_at(&["spec", "serviceAccountName"]) != account {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        node = node_of(ask, &object).await?;
    }
    let (asked, uid) = (text("uid"), object.str_at(&["metadata", "uid"]));
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(Status::conflict(&GroupResource::new(&group, kind), name, &why));
    }
    Ok(Some(Bound { kind: kind.into(), object, node }))
}

/// The node of a pod; only its name if there is no such node.
async fn node_of(ask: &Ask<'_>, pod: &Value) -> Result<Option<Arc<Value>>, Status> {
    let name = pod.str_at(&["spec", "nodeName"]);
    if name.is_empty() {
        return Ok(None);
    }
    let found = ask.registry.read_hub(&GroupResource::new("", "nodes"), "", name).await?;
    Ok(Some(match found {
        Some(node) => node.object,
        None => {
            let mut node = Value::map();
            node.set(&["metadata", "name"], name);
            Arc::new(node)
        }
    }))
}
