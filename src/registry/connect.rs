//! Connecting to something behind an object (exec, attach, port-forward, proxy): what admission says to it.
//!
//! upstream: apiserver/pkg/endpoints/handlers/rest.go ConnectResource

use copepod_meta::{Admission, AdmissionRequest, Gvk, Operation, Status, Value};

use crate::api::{Caller, Target};
use crate::registry::Registry;

impl Registry {
    /// Asks the whole admission chain about a CONNECT. The object is the options of kind `kind`, read from the query.
    pub async fn admit_connect(
        &self,
        caller: &Caller,
        target: &Target,
        kind: &str,
        options: &mut Value,
    ) -> Result<(), Status> {
        let admission: &dyn Admission = &*self.deciders().admission;
        if !admission.handles(Operation::Connect) {
            return Ok(());
        }
        let (resource, kind) = (target.served.gvr(), Gvk::new("", "v1", kind));
        let mut warnings = Vec::new();
        let mut request = AdmissionRequest {
            operation: Operation::Connect,
            kind: &kind,
            resource: &resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            user: &caller.user,
            object: Some(options),
            old_object: None,
            options: &Value::Null,
            dry_run: false,
            warnings: &mut warnings,
        };
        let admitted = match admission.admit(&mut request).await {
            Ok(()) => admission.validate(&mut request).await,
            refused => refused,
        };
        warnings.into_iter().for_each(|w| caller.warnings.add(w));
        admitted
    }
}
