//! Values for fields: plausible ones by the field's name and type, and bad ones by what usually goes wrong.

use copepod_schema::{Field, Scalar, Special, Type, TypeId, Universe};
use serde_json::{Map, Value as Json, json};

use super::chance::Chance;

/// Objects in objects; deeper ones stay empty.
const DEPTH_MAX: usize = 3;

/// Plausible values by the JSON name of a field. Where a name means several things, all are here.
const BY_NAME: &[(&str, &[&str])] = &[
    (
        "image",
        &[
            "nginx",
            "nginx:1.27",
            "registry.example.com/a/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ],
    ),
    ("protocol", &["TCP", "UDP", "SCTP"]),
    ("operator", &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Equal"]),
    ("effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    ("path", &["/a", "/a/b", "a/b", "index.html"]),
    ("mountPath", &["/data", "/var/lib/x"]),
    ("subPath", &["a/b", "x"]),
    ("topologyKey", &["kubernetes.io/hostname", "topology.kubernetes.io/zone"]),
    ("whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
    ("medium", &["", "Memory", "HugePages"]),
    ("serviceAccountName", &["default", "other"]),
    ("nodeName", &["node-a", "node-b"]),
    ("hostname", &["web-0", "host"]),
    ("subdomain", &["sub"]),
    ("schedulerName", &["default-scheduler", "mine"]),
    ("priorityClassName", &["system-node-critical", "system-cluster-critical", "none"]),
    ("clusterIP", &["None", "10.96.10.10", ""]),
    ("ip", &["10.0.0.1", "192.168.1.2", "::1"]),
    ("podIP", &["10.244.0.5"]),
    ("hostIP", &["10.0.0.9", "127.0.0.1"]),
    ("apiVersion", &["v1", "apps/v1"]),
    ("kind", &["Pod", "Node", "ConfigMap", "Deployment"]),
    ("fieldPath", &["metadata.name", "status.podIP", "metadata.labels['a']", "spec.nodeName"]),
    ("resource", &["limits.cpu", "requests.memory", "pods"]),
    ("mode", &["384"]),
    ("reason", &["Tested", "BecauseOfThat"]),
    ("message", &["it is so", "a <b> & c"]),
    ("apiGroup", &["rbac.authorization.k8s.io", "", "apps"]),
    ("uid", &["6f1b3a52-1111-4222-8333-944444444444"]),
    ("ipFamily", &["IPv4", "IPv6"]),
    ("nodePort", &["30080"]),
    ("command", &["sh", "-c", "true"]),
    ("verbs", &["get", "list", "watch", "*"]),
    ("resources", &["pods", "pods/status", "*", "deployments"]),
    ("apiGroups", &["", "apps", "*"]),
];

const WORDS: &[&str] = &["a", "b", "web", "x-1", "example.com/y"];
const QUANTITIES: &[&str] = &["1", "100m", "64Mi", "2Gi", "1500m", "0", "0.5", "1e3", "1024Ki"];
const INTEGERS: &[i64] = &[1, 2, 5, 30, 80, 443, 8080, 0, 100];
const RESOURCES: &[&str] =
    &["cpu", "memory", "ephemeral-storage", "example.com/gpu", "hugepages-2Mi", "pods"];

/// A plausible value for a field.
pub fn plausible(chance: &mut Chance, field: &Field, depth: usize) -> Json {
    if let Some(values) = &field.enum_values
        && !values.is_empty()
        && matches!(Universe::builtin().get(field.ty), Type::Scalar(Scalar::String))
    {
        return Json::from(chance.pick(values).as_ref());
    }
    of_type(chance, field.ty, &field.json, depth)
}

/// A plausible value of a type under a name.
pub fn of_type(chance: &mut Chance, ty: TypeId, name: &str, depth: usize) -> Json {
    match Universe::builtin().get(ty) {
        Type::Struct(ty) => {
            let mut members = Map::new();
            for field in
                ty.fields.iter().filter(|f| !matches!(f.json.as_ref(), "apiVersion" | "kind") || depth > 0)
            {
                let wanted = if field.required { chance.percent(96) } else { chance.percent(22) };
                if wanted && depth < DEPTH_MAX {
                    members.insert(field.json.to_string(), plausible(chance, field, depth + 1));
                }
            }
            Json::Object(members)
        }
        Type::List(list) => {
            let count = 1 + chance.below(2);
            Json::Array((0..count).map(|_| of_type(chance, list.elem, name, depth + 1)).collect())
        }
        Type::Map(map) => {
            let resources = matches!(Universe::builtin().get(map.value), Type::Special(Special::Quantity));
            let keys = if resources { RESOURCES } else { WORDS };
            let mut members = Map::new();
            for _ in 0..1 + chance.below(2) {
                let key = (*chance.pick(keys)).to_string();
                members.insert(key, of_type(chance, map.value, name, depth + 1));
            }
            Json::Object(members)
        }
        Type::Scalar(scalar) => plain(chance, *scalar, name),
        Type::Special(special) => by_hand(chance, special),
        Type::Any => json!({"any": 1}),
    }
}

fn plain(chance: &mut Chance, scalar: Scalar, name: &str) -> Json {
    match scalar {
        Scalar::Bool => Json::from(chance.percent(60)),
        Scalar::String => {
            let known = BY_NAME.iter().find(|(n, _)| *n == name).map(|(_, values)| *values);
            Json::from(*chance.pick(known.unwrap_or(WORDS)))
        }
        Scalar::Bytes => Json::from(*chance.pick(&["aGVsbG8=", "", "AAEC"])),
        Scalar::Float64 | Scalar::Number => json!(1.5),
        _ => Json::from(*chance.pick(INTEGERS)),
    }
}

fn by_hand(chance: &mut Chance, special: &Special) -> Json {
    match special {
        Special::Time => Json::from("2020-01-02T03:04:05Z"),
        Special::MicroTime => Json::from("2020-01-02T03:04:05.000006Z"),
        Special::Duration => Json::from("1m0s"),
        Special::Quantity => {
            if chance.percent(20) {
                Json::from(*chance.pick(INTEGERS))
            } else {
                Json::from(*chance.pick(QUANTITIES))
            }
        }
        Special::IntOrString => chance.pick(&[json!(1), json!("25%"), json!("http"), json!(8080)]).clone(),
        Special::RawExtension | Special::Json => json!({"some": ["json", 1]}),
        Special::FieldsV1 => json!({"f:data": {}}),
        _ => json!({}),
    }
}

/// A value that is likely to be refused in the place of `old`.
pub fn bad(chance: &mut Chance, old: &Json) -> Json {
    // Another type altogether, sometimes.
    if chance.percent(18) {
        return chance
            .pick(&[
                json!(null),
                json!("text"),
                json!(7),
                json!(true),
                json!([]),
                json!({}),
                json!(1.5),
                json!(["a"]),
            ])
            .clone();
    }
    match old {
        Json::String(_) => Json::from(*chance.pick(&[
            "",
            "UPPER",
            "a/b",
            "-x",
            "x-",
            "a b",
            "ünï",
            "../x",
            "a..b",
            "10.0.0.300",
            "0",
            "-1",
            "abc",
            "1Ki",
            "1.5.5",
            "*",
            "a,b",
            "http://x",
            "2020-01-01",
            "a_b",
            "None",
            "default",
            "TCP",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ])),
        Json::Number(_) => {
            json!(*chance.pick(&[-1, 0, 65_536, 2_147_483_648, i64::MAX, -2_147_483_649, 31, 101, 1_000_001]))
        }
        Json::Bool(b) => Json::from(!b),
        Json::Array(items) => {
            let mut items = items.clone();
            match (chance.below(3), items.first().cloned()) {
                (0, Some(first)) => items.push(first),
                (1, _) => items.clear(),
                _ => items.reverse(),
            }
            Json::Array(items)
        }
        Json::Object(members) => {
            let mut members = members.clone();
            match chance.below(3) {
                0 => members.clear(),
                1 => {
                    members.insert("noSuchField".into(), json!(1));
                }
                _ => {
                    members.insert("bad key/x/y".into(), json!("v"));
                }
            }
            Json::Object(members)
        }
        Json::Null => json!("x"),
    }
}
