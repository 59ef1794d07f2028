//! A pod's priority comes from its PriorityClass; only one class is the default.
//!
//! upstream: plugin/pkg/admission/priority/admission.go

use crate::helpers::{forbidden, is};
use copepod_meta::{
    Admission, AdmissionRequest, BoxFuture, GroupResource, Listed, Lister, Operation, Status, Value,
};
use std::sync::Arc;

pub struct Priority {
    lister: Arc<dyn Lister>,
    classes: GroupResource,
}

/// Name, value and preemption policy that a pod gets.
struct Established {
    class: String,
    value: i64,
    policy: String,
}

impl Priority {
    pub fn new(lister: Arc<dyn Lister>) -> Priority {
        Priority { lister, classes: GroupResource::new("scheduling.k8s.io", "priorityclasses") }
    }

    /// Of several defaults (made at the same time) the lowest counts.
    async fn default_class(&self) -> Result<Option<Listed>, Status> {
        let all = self.lister.list(&self.classes, "").await?;
        let defaults = all.into_iter().filter(|c| c.object.bool_at(&["globalDefault"]));
        Ok(defaults.min_by_key(|c| c.object.int_at(&["value"])))
    }

    async fn establish(&self, request: &AdmissionRequest<'_>, class: &str) -> Result<Established, Status> {
        let found = if class.is_empty() {
            self.default_class().await?
        } else {
            let mut found = self.lister.get(&self.classes, "", class).await?;
            if found.is_none() {
                found = self.lister.get_consistent(&self.classes, "", class).await?;
            }
            if found.is_none() {
                return Err(forbidden(request, format!("no PriorityClass with name {class} was found")));
            }
            found
        };
        Ok(match found {
            Some(class) => Established {
                class: class.object.str_at(&["metadata", "name"]).into(),
                value: class.object.int_at(&["value"]),
                policy: class.object.str_at(&["preemptionPolicy"]).into(),
            },
            None => Established { class: String::new(), value: 0, policy: "PreemptLowerPriority".into() },
        })
    }

    async fn create_pod(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let Some(pod) = request.object.as_deref() else { return Ok(()) };
        let spec = pod.get("spec");
        let given = spec.get("priority").as_int();
        let given_policy = spec.str_at(&["preemptionPolicy"]).to_string();
        let class = spec.str_at(&["priorityClassName"]).to_string();
        let established = self.establish(request, &class).await?;
        if let Some(given) = given
            && given != established.value
        {
            let computed = established.value;
            return Err(forbidden(
                request,
                format!(
                    "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                     controller computed {computed} from the given PriorityClass name"
                ),
            ));
        }
        let computed = &established.policy;
        if !given_policy.is_empty() && !computed.is_empty() && given_policy != *computed {
            return Err(forbidden(
                request,
                format!(
                    "the string value of PreemptionPolicy ({given_policy}) must not be provided in pod spec; priority \
                     admission controller computed {computed} from the given PriorityClass name"
                ),
            ));
        }
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        if !established.class.is_empty() {
            pod.set(&["spec", "priorityClassName"], established.class);
        }
        pod.set(&["spec", "priority"], established.value);
        if !established.policy.is_empty() {
            pod.set(&["spec", "preemptionPolicy"], established.policy);
        }
        Ok(())
    }
}

/// What create set stays, also when the update does not send it.
fn update_pod(request: &mut AdmissionRequest<'_>) {
    let (Some(old), Some(pod)) = (request.old_object, request.object.as_deref_mut()) else { return };
    for field in ["priority", "preemptionPolicy"] {
        let kept: &Value = old.at(&["spec", field]);
        if pod.at(&["spec", field]).is_null() && !kept.is_null() {
            pod.set(&["spec", field], kept.clone());
        }
    }
}

impl Admission for Priority {
    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if !is(request, "", "pods") || !request.subresource.is_empty() {
                return Ok(());
            }
            if request.operation == Operation::Create {
                return self.create_pod(request).await;
            }
            update_pod(request);
            Ok(())
        })
    }

    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if !is(request, "scheduling.k8s.io", "priorityclasses") || !request.subresource.is_empty() {
                return Ok(());
            }
            let Some(class) = request.object.as_deref() else { return Ok(()) };
            if !class.bool_at(&["globalDefault"]) {
                return Ok(());
            }
            let own = class.str_at(&["metadata", "name"]).to_string();
            if let Some(default) = self.default_class().await? {
                let name = default.object.str_at(&["metadata", "name"]);
                if request.operation == Operation::Create || name != own {
                    let why = format!(
                        "PriorityClass {name} is already marked as default. Only one default can exist"
                    );
                    return Err(forbidden(request, why));
                }
            }
            Ok(())
        })
    }
}
