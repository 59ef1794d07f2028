//! Pods tolerate a node that is not ready or unreachable for five minutes, unless they say otherwise.
//!
//! upstream: plugin/pkg/admission/defaulttolerationseconds/admission.go

use crate::helpers::{is, push};
use copepod_meta::{Admission, AdmissionRequest, BoxFuture, Map, Operation, Status, Value};

const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

impl Admission for DefaultTolerationSeconds {
    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        if is(request, "", "pods")
            && request.subresource.is_empty()
            && let Some(pod) = request.object.as_deref_mut()
        {
            for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
                let tolerated = pod.list_at(&["spec", "tolerations"]).iter().any(|t| {
                    let (own, effect) = (t.str_at(&["key"]), t.str_at(&["effect"]));
                    (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
                });
                if !tolerated {
                    push(pod, &["spec", "tolerations"], toleration(key));
                }
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn validate<'a>(&'a self, _request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
}

fn toleration(key: &str) -> Value {
    let texts = [("key", key), ("operator", "Exists"), ("effect", "NoExecute")];
    let mut out: Map = texts.into_iter().map(|(k, v)| (k, Value::string(v))).collect();
    out.insert("tolerationSeconds", SECONDS);
    Value::Map(out)
}
