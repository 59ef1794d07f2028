//! A new node is tainted not-ready, until the node controller finds it ready.
//!
//! upstream: plugin/pkg/admission/nodetaint/admission.go

use crate::helpers::{is, push};
use copepod_meta::{Admission, AdmissionRequest, BoxFuture, Map, Operation, Status, Value};

pub struct TaintNodesByCondition;

const KEY: &str = "node.kubernetes.io/not-ready";

impl Admission for TaintNodesByCondition {
    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        if is(request, "", "nodes")
            && request.subresource.is_empty()
            && let Some(node) = request.object.as_deref_mut()
        {
            let tainted = |t: &Value| t.str_at(&["key"]) == KEY && t.str_at(&["effect"]) == "NoSchedule";
            if !node.list_at(&["spec", "taints"]).iter().any(tainted) {
                let taint: Map = [("key", Value::string(KEY)), ("effect", Value::string("NoSchedule"))]
                    .into_iter()
                    .collect();
                push(node, &["spec", "taints"], Value::Map(taint));
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn validate<'a>(&'a self, _request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
}
