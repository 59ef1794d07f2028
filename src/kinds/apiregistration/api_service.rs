//! APIService. upstream: kube-aggregator/pkg/registry/apiservice, pkg/apis/apiregistration/validation

use copepod_meta::{ErrorList, Value, names};

use crate::cells;
use crate::check::At;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy. Names are `version.group`, and the core group is empty: `v1.` is a name.
pub struct ApiService;

static COLUMNS: [Column; 4] = [
    column("Name", "string", "name", "Name of the APIService: version and group."),
    column("Service", "string", "", "The reference to the service that hosts this API endpoint."),
    column("Available", "string", "", "Whether this service is available."),
    column("Age", "string", "", "When the APIService was made."),
];

const fn column(
    name: &'static str,
    ty: &'static str,
    format: &'static str,
    description: &'static str,
) -> Column {
    Column { name, ty, format, description, priority: 0 }
}

impl Strategy for ApiService {
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::path_segment(name)
    }
    fn prepare_create(&self, _cx: &Context, service: &mut Value) {
        service.remove(&["status"]);
    }
    fn prepare_update(&self, _cx: &Context, service: &mut Value, old: &Value) {
        match old.get("status") {
            Value::Null => drop(service.remove(&["status"])),
            status => service.set(&["status"], status.clone()),
        }
    }
    fn validate_create(&self, _cx: &Context, service: &Value, e: &mut ErrorList) {
        let spec = service.get("spec");
        let wanted = format!("{}.{}", spec.str_at(&["version"]), spec.str_at(&["group"]));
        let root = At::root(service);
        let name = root.get("metadata.name");
        if name.str() != wanted {
            name.invalid(e, format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\""));
        }
    }
    fn validate_update(&self, cx: &Context, service: &Value, _old: &Value, e: &mut ErrorList) {
        self.validate_create(cx, service, e);
    }
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }
    fn row(&self, service: &Value) -> Row {
        let reference = service.get("spec").get("service");
        let local = reference.is_null();
        let hosted = match local {
            true => "Local".to_string(),
            false => format!("{}/{}", reference.str_at(&["namespace"]), reference.str_at(&["name"])),
        };
        let conditions = service.list_at(&["status", "conditions"]);
        let available = conditions.iter().find(|c| c.str_at(&["type"]) == "Available");
        let available = match available {
            None => "Unknown".to_string(),
            Some(c) if c.str_at(&["status"]) == "True" => "True".to_string(),
            Some(c) => format!("{} ({})", c.str_at(&["status"]), c.str_at(&["reason"])),
        };
        cells::row([
            cells::name(service),
            hosted.as_str().into(),
            available.as_str().into(),
            cells::age(service),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&ApiServiceStatus as &dyn Strategy)
    }
}

/// `status`: keeps all but status.
struct ApiServiceStatus;

impl Strategy for ApiServiceStatus {
    fn prepare_update(&self, _cx: &Context, service: &mut Value, old: &Value) {
        service.set(&["spec"], old.get("spec").clone());
        for member in ["labels", "annotations", "finalizers", "ownerReferences"] {
            match old.at(&["metadata", member]) {
                Value::Null => drop(service.remove(&["metadata", member])),
                kept => service.set(&["metadata", member], kept.clone()),
            }
        }
    }
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::path_segment(name)
    }
}
