//! The packed facts against what is known of them.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use crate::*;

/// A type, a map, a list ... in the spelling of `api/types`.
fn spell(id: TypeId) -> String {
    match Universe::builtin().get(id) {
        Type::Struct(s) => s.name.to_string(),
        Type::Map(m) => format!("map[string]{}", spell(m.value)),
        Type::List(l) => {
            let kind = match &l.kind {
                ListKind::Atomic => String::new(),
                ListKind::Set => " set".into(),
                ListKind::Map { keys } => format!(" map by {}", keys.join(",")),
            };
            format!("[]{}{}{kind}", if l.elem_pointer { "*" } else { "" }, spell(l.elem))
        }
        Type::Scalar(s) => format!("{s:?}").to_lowercase(),
        Type::Special(Special::JsonSchemaPropsOrBool(of)) => format!("JsonSchemaPropsOrBool({})", spell(*of)),
        Type::Special(s) => format!("{s:?}"),
        Type::Any => "any".into(),
    }
}

/// One line per field: what decoding, defaulting and merging ask.
fn describe(type_name: &str, json: &str) -> String {
    let universe = Universe::builtin();
    let id = universe.by_name(type_name).expect(type_name);
    let field = universe.get_struct(id).expect(type_name).field(json).expect(json);
    let mut out = format!("{}{}", if field.pointer { "*" } else { "" }, spell(field.ty));
    out += match field.omit {
        Omit::Never => "",
        Omit::Empty => " omitempty",
        Omit::Zero => " omitzero",
    };
    if let Some(tag) = field.proto {
        out += &format!(" {:?}({})", tag.wire, tag.number);
    }
    let patch = field.patch_strategy;
    for (on, name) in [(patch.merge, "merge"), (patch.replace, "replace"), (patch.retain_keys, "retainKeys")]
    {
        if on {
            out += &format!(" {name}");
        }
    }
    if let Some(key) = &field.patch_merge_key {
        out += &format!(" by {key}");
    }
    if field.required {
        out += " required";
    }
    if let Some(default) = &field.default {
        out += &format!(" = {default:?}");
    }
    out
}

#[test]
fn fields_are_as_upstream_declares_them() {
    let core = "io.k8s.api.core.v1";
    for (ty, json, want) in [
        ("Container", "name", "string Bytes(1) required"),
        (
            "Container",
            "ports",
            "[]io.k8s.api.core.v1.ContainerPort map by containerPort,protocol omitempty Bytes(6) merge by containerPort",
        ),
        ("ContainerPort", "containerPort", "int32 Varint(3) required"),
        ("ContainerPort", "protocol", "string omitempty Bytes(4) = String(\"TCP\")"),
        ("Container", "resources", "io.k8s.api.core.v1.ResourceRequirements omitempty Bytes(8)"),
        ("PodSpec", "terminationGracePeriodSeconds", "*int64 omitempty Varint(4) = Int(30)"),
        ("PodSpec", "hostNetwork", "bool omitempty Varint(11)"),
        (
            "PodSpec",
            "volumes",
            "[]io.k8s.api.core.v1.Volume map by name omitempty Bytes(1) merge retainKeys by name",
        ),
        // An inlined message inside an inlined message.
        ("EphemeralContainer", "image", "string omitempty Bytes(2)"),
        ("Volume", "hostPath", "*io.k8s.api.core.v1.HostPathVolumeSource omitempty Bytes(1)"),
        ("Secret", "data", "map[string]bytes omitempty Bytes(2)"),
        ("ResourceRequirements", "limits", "map[string]Quantity omitempty Bytes(1)"),
        ("ServicePort", "targetPort", "IntOrString omitempty Bytes(4)"),
        // Type meta is JSON's alone.
        ("Pod", "kind", "string omitempty"),
    ] {
        assert_eq!(describe(&format!("{core}.{ty}"), json), want, "{ty}.{json}");
    }
}

#[test]
fn json_order_is_declaration_order_with_inlined_members_in_place() {
    let universe = Universe::builtin();
    let names = |ty: &str| -> String {
        let id = universe.by_name(ty).expect(ty);
        let fields = &universe.get_struct(id).expect(ty).fields;
        fields.iter().map(|f| f.json.as_ref()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("io.k8s.api.core.v1.Pod"), "kind apiVersion metadata spec status");
    assert_eq!(
        names("io.k8s.api.core.v1.Probe"),
        "exec httpGet tcpSocket grpc initialDelaySeconds timeoutSeconds periodSeconds successThreshold \
         failureThreshold terminationGracePeriodSeconds"
    );
}

#[test]
fn members_of_embedded_structs_say_so() {
    let universe = Universe::builtin();
    let field = |ty: &str, name: &str| {
        let ty = universe.by_name(&format!("io.k8s.api.core.v1.{ty}")).and_then(|id| universe.get_struct(id));
        ty.and_then(|ty| ty.field(name)).expect(name)
    };
    for (ty, name, want) in [
        ("Volume", "iscsi", Some("VolumeSource")),
        ("Volume", "name", None),
        ("SecretKeySelector", "name", Some("LocalObjectReference")),
        ("SecretKeySelector", "key", None),
    ] {
        assert_eq!(field(ty, name).embedded.as_deref(), want, "{ty} {name}");
    }
    assert!(field("LocalObjectReference", "name").empty_default && !field("Volume", "name").empty_default);
}

#[test]
fn inlined_structs_are_messages_in_protobuf() {
    let universe = Universe::builtin();
    let probe =
        universe.by_name("io.k8s.api.core.v1.Probe").and_then(|id| universe.get_struct(id)).expect("Probe");
    let ProtoMember::Inline { entries, pointer: false } = &probe.proto[0].member else {
        panic!("Probe's first member is its handler");
    };
    let inner: Vec<_> = entries
        .iter()
        .map(|e| match e.member {
            ProtoMember::Field(at) => (e.number, probe.fields[usize::from(at)].json.as_ref()),
            ProtoMember::Inline { .. } => (e.number, "?"),
        })
        .collect();
    assert_eq!(inner, [(1, "exec"), (2, "httpGet"), (3, "tcpSocket"), (4, "grpc")]);
    assert_eq!(probe.proto[1].number, 2);
}

#[test]
fn kinds_are_found_by_group_version_kind() {
    let universe = Universe::builtin();
    for (group, version, kind, want) in [
        ("", "v1", "Pod", "io.k8s.api.core.v1.Pod"),
        ("apps", "v1", "Deployment", "io.k8s.api.apps.v1.Deployment"),
        ("apps", "v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        ("meta.k8s.io", "v1", "Table", "io.k8s.apimachinery.pkg.apis.meta.v1.Table"),
        ("", "v1", "Status", "io.k8s.apimachinery.pkg.apis.meta.v1.Status"),
        ("", "v1", "PodExecOptions", "io.k8s.api.core.v1.PodExecOptions"),
        ("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
        ("admission.k8s.io", "v1", "AdmissionReview", "io.k8s.api.admission.v1.AdmissionReview"),
        (
            "apiextensions.k8s.io",
            "v1beta1",
            "CustomResourceDefinition",
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.CustomResourceDefinition",
        ),
    ] {
        let id = universe.by_gvk(&copepod_meta::Gvk::new(group, version, kind)).expect(kind);
        assert_eq!(universe.get_struct(id).expect(kind).name, want);
    }
    assert!(universe.by_gvk(&copepod_meta::Gvk::new("", "v1", "Nothing")).is_none());
    let own = |name: &str| {
        let id = universe.by_name(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}")).expect(name);
        universe.get_struct(id).expect(name).gvk.as_ref().map(ToString::to_string)
    };
    assert_eq!(own("Status").as_deref(), Some("/v1, Kind=Status"));
    assert_eq!(own("Table").as_deref(), Some("meta.k8s.io/v1, Kind=Table"));
    assert_eq!(own("DeleteOptions"), None);
}

/// Every type decodes, and refers only to types that exist.
#[test]
fn the_whole_graph_decodes() {
    let universe = Universe::builtin();
    let valid = |id: TypeId| assert!((id.0 as usize) < universe.len());
    for id in (0..universe.len() as u32).map(TypeId) {
        match universe.get(id) {
            Type::Struct(s) => s.fields.iter().for_each(|f| valid(f.ty)),
            Type::List(l) => valid(l.elem),
            Type::Map(m) => valid(m.value),
            _ => {}
        }
    }
}

#[test]
fn resources_are_stored_as_upstream_stores_them() {
    for (group, version, plural, want) in [
        ("", "v1", "pods", "v1 Pod pods"),
        ("", "v1", "nodes", "v1 Node minions"),
        ("", "v1", "services", "v1 Service services/specs"),
        ("", "v1", "endpoints", "v1 Endpoints services/endpoints"),
        ("", "v1", "replicationcontrollers", "v1 ReplicationController controllers"),
        ("events.k8s.io", "v1", "events", "v1 Event events ttl 3600"),
        ("networking.k8s.io", "v1", "ingresses", "networking.k8s.io/v1 Ingress ingress"),
        (
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            "apiextensions.k8s.io/v1beta1 CustomResourceDefinition apiextensions.k8s.io/customresourcedefinitions json",
        ),
    ] {
        let (resource, _) = resource(group, version, plural).expect(plural);
        let storage = resource.storage.as_ref().expect(plural);
        let slash = if storage.group.is_empty() { "" } else { "/" };
        let mut got =
            format!("{}{slash}{} {} {}", storage.group, storage.version, storage.kind, storage.prefix);
        if storage.media == Media::Json {
            got += " json";
        }
        if storage.ttl_seconds > 0 {
            got += &format!(" ttl {}", storage.ttl_seconds);
        }
        assert_eq!(got, want, "{plural}");
    }
    assert!(resource("authorization.k8s.io", "v1", "subjectaccessreviews").expect("sar").0.storage.is_none());
}

#[test]
fn subresources_name_their_kinds() {
    let (pods, v1) = resource("", "v1", "pods").expect("pods");
    assert!(pods.namespaced && v1.has_verb("deletecollection"));
    assert_eq!(pods.short_names.as_ref(), ["po"]);
    let eviction = v1.subresource("eviction").expect("eviction");
    assert_eq!((eviction.group.as_ref(), eviction.kind.as_ref()), ("policy", "Eviction"));
    assert!(eviction.ty.is_some() && eviction.states_group_version);
    let scale =
        resource("apps", "v1", "deployments").expect("deployments").1.subresource("scale").expect("scale");
    assert_eq!((scale.group.as_ref(), scale.kind.as_ref()), ("autoscaling", "Scale"));
}

#[test]
fn gates_have_their_defaults() {
    let gate = |name: &str| {
        let all = feature_gates();
        let at = all.binary_search_by(|g| g.name.as_ref().cmp(name)).expect(name);
        (all[at].default, all[at].stage)
    };
    assert_eq!(gate("WatchList"), (true, Stage::Beta));
    assert_eq!(gate("AllAlpha"), (false, Stage::Alpha));
}

#[derive(serde::Deserialize)]
struct Function {
    name: String,
    file: String,
    by: Option<String>,
    #[serde(rename = "where")]
    place: Option<String>,
    why: Option<String>,
}

fn functions(file: &str) -> Vec<Function> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api").join(file);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every hand-written defaulting and conversion function of upstream is accounted for in
/// `api/conversions-status.json`: by the facts, by code (which cites it), by nothing (with the reason), or as
/// missing. What is missing is printed.
#[test]
fn upstreams_functions_are_accounted_for() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let key = |f: &Function| format!("{} {}", f.file, f.name);
    let status = functions("conversions-status.json");
    let stated: std::collections::BTreeSet<String> = status.iter().map(key).collect();
    assert_eq!(stated.len(), status.len(), "a function has two rows");
    let wanted: std::collections::BTreeSet<String> = functions("conversions.json").iter().map(key).collect();
    assert_eq!(stated.symmetric_difference(&wanted).collect::<Vec<_>>(), Vec::<&String>::new());
    let mut missing = Vec::new();
    for row in &status {
        match row.by.as_deref() {
            Some("facts") => {}
            Some("none") => assert!(row.why.is_some(), "{}: by none of us, but why?", row.name),
            Some("missing") => missing.push(row.name.as_str()),
            Some("code") => {
                let place = row.place.as_deref().unwrap_or_else(|| panic!("{}: where?", row.name));
                let text =
                    std::fs::read_to_string(root.join(place)).unwrap_or_else(|e| panic!("{place}: {e}"));
                assert!(text.contains(&row.name), "{place} does not cite {}", row.name);
            }
            other => panic!("{}: {other:?} is no answer", row.name),
        }
    }
    println!("{} of {} missing: {}", missing.len(), status.len(), missing.join(", "));
}

/// Where upstream's own storage test expects an object of each resource (`hack/upstream`, `goldens
/// etcd-paths`).
#[test]
fn storage_paths_are_upstreams() {
    #[derive(serde::Deserialize)]
    struct Row {
        resource: String,
        path: String,
        kind: Option<String>,
    }
    let rows: Vec<Row> =
        serde_json::from_str(include_str!("testdata/etcd-paths.json")).expect("a golden is JSON");
    let mut compared = 0;
    for row in rows {
        let parts: Vec<&str> = row.resource.split('/').collect();
        let Some((found, served)) = resource(parts[0], parts[1], parts[2]) else { continue };
        let storage = found.storage.as_ref().expect(&row.resource);
        let namespace = if found.namespaced { "{namespace}/" } else { "" };
        let prefix = format!("/registry/{}/{namespace}", storage.prefix);
        let name = row
            .path
            .strip_prefix(&prefix)
            .unwrap_or_else(|| panic!("{}: {} {prefix}", row.resource, row.path));
        assert!(!name.contains('/'), "{}: {name}", row.resource);
        let own = format!("{}/{}/{}", found.group, served.version, found.kind);
        let stored = format!("{}/{}/{}", storage.group, storage.version, storage.kind);
        assert_eq!(stored, row.kind.unwrap_or(own), "{}", row.resource);
        compared += 1;
    }
    let stored = resources().iter().filter(|r| r.storage.is_some()).map(|r| r.versions.len()).sum::<usize>();
    assert_eq!(compared, stored, "every stored version of a resource has a golden");
}
