//! What pod validation lets pass: by feature gate, and because the stored pod already has it.
//!
//! upstream: pkg/api/pod/util.go GetValidationOptionsFromPodSpecAndMeta, validation.go PodValidationOptions

use copepod_meta::pod_references::all_containers;
use copepod_meta::{Value, names};

use crate::core::resources::is_divisible;
use crate::metadata::selector_has_invalid_value;
use crate::strategy::Context;

/// upstream: PodValidationOptions
#[derive(Clone, Debug)]
pub struct Options {
    /// The object is a Pod, not a template in something else.
    pub is_pod: bool,
    /// The pod's name and whether it mirrors a static pod; `None` in a template.
    pub pod: Option<PodMeta>,
    /// A bad pod-deletion-cost annotation passes.
    pub invalid_deletion_cost: bool,
    /// Bad label values in selectors of pod (anti-)affinity pass.
    pub invalid_affinity_values: bool,
    /// Bad label values in required node affinity pass.
    pub invalid_node_affinity_values: bool,
    /// Bad selectors of spread constraints pass.
    pub invalid_spread_selectors: bool,
    /// matchLabelKeys of spread constraints are checked by the rule before 1.34.
    pub legacy_spread_keys: bool,
    /// Amounts that are no multiple of the page size pass.
    pub indivisible_huge_pages: bool,
    /// Token paths may be absolute.
    pub non_local_token_path: bool,
    /// Namespaced sysctls pass although the pod shares the host's namespace.
    pub host_sysctls: bool,
    /// volumeDevices pass with user namespaces.
    pub user_namespace_devices: bool,
    /// hostNetwork passes with user namespaces.
    pub user_namespace_host_network: bool,
    /// seLinuxChangePolicy may only be Recursive.
    pub only_recursive_selinux: bool,
    /// RestartContainer passes on init containers that are no sidecars.
    pub init_restart_container: bool,
    /// Tolerations may compare numbers.
    pub toleration_comparison: bool,
    /// Resources of the whole pod.
    pub pod_level_resources: bool,
    /// Restart policies of single containers.
    pub restart_rules: bool,
    /// The rule action RestartAllContainers.
    pub restart_all: bool,
    /// Volume statuses carry image digests.
    pub image_digest: bool,
}

/// What validation of a spec needs of the pod's metadata.
#[derive(Clone, Debug)]
pub struct PodMeta {
    /// metadata.name
    pub name: String,
    /// It mirrors a static pod.
    pub mirror: bool,
}

impl Options {
    /// For a pod (`metadata` given) or a template. `old`: the stored spec.
    pub fn new(cx: &Context, old: Option<&Value>) -> Options {
        let on = |name: &str| (cx.feature)(name);
        let old = old.unwrap_or(&Value::Null);
        let selinux_used = !old.at(&["securityContext", "seLinuxChangePolicy"]).is_null();
        Options {
            is_pod: false,
            pod: None,
            invalid_deletion_cost: false,
            invalid_affinity_values: has_invalid_affinity_value(old),
            invalid_node_affinity_values: has_invalid_node_affinity_value(old),
            invalid_spread_selectors: has_invalid_spread_selector(old),
            legacy_spread_keys: has_invalid_spread_keys(old),
            indivisible_huge_pages: has_indivisible_huge_pages(old),
            non_local_token_path: has_non_local_token_path(old),
            host_sysctls: super::security::has_host_sysctl(old),
            user_namespace_devices: has_user_namespace_devices(old),
            user_namespace_host_network: on("UserNamespacesHostNetworkSupport")
                || (old.bool_at(&["hostNetwork"]) && old.get("hostUsers").as_bool() == Some(false)),
            only_recursive_selinux: !on("SELinuxMount") && !selinux_used,
            init_restart_container: has_init_restart_container(old),
            toleration_comparison: on("TaintTolerationComparisonOperators") || compares_tolerations(old),
            pod_level_resources: on("PodLevelResources"),
            restart_rules: on("ContainerRestartRules") || uses_restart_rules(old),
            restart_all: on("RestartAllContainersOnContainerExits"),
            image_digest: on("ImageVolumeWithDigest"),
        }
    }

    /// For a Pod.
    pub fn for_pod(cx: &Context, pod: &Value, old: Option<&Value>) -> Options {
        let mut options = Options::new(cx, old.map(|o| o.get("spec")));
        options.is_pod = true;
        let annotations = pod.map_at(&["metadata", "annotations"]);
        options.pod = Some(PodMeta {
            name: pod.str_at(&["metadata", "name"]).into(),
            mirror: annotations.contains_key("kubernetes.io/config.mirror"),
        });
        options.invalid_deletion_cost = old.is_some_and(|old| {
            super::annotations::deletion_cost(old.at(&["metadata", "annotations"])).is_err()
        });
        options
    }
}

fn has_invalid_affinity_value(spec: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = spec.at(&["affinity", kind]);
        let required = affinity.list_at(&["requiredDuringSchedulingIgnoredDuringExecution"]).iter();
        let preferred = affinity.list_at(&["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        let mut terms = required.chain(preferred.map(|p| p.get("podAffinityTerm")));
        terms.any(|t| {
            selector_has_invalid_value(t.get("labelSelector"))
                || selector_has_invalid_value(t.get("namespaceSelector"))
        })
    })
}

fn has_invalid_node_affinity_value(spec: &Value) -> bool {
    let path =
        ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let expressions = spec.list_at(&path).iter().flat_map(|t| t.list_at(&["matchExpressions"]));
    let mut values = expressions.flat_map(|x| x.list_at(&["values"]));
    values.any(|v| !names::label_value(v.as_str().unwrap_or("")).is_empty())
}

fn has_invalid_spread_selector(spec: &Value) -> bool {
    spec.list_at(&["topologySpreadConstraints"]).iter().any(|c| {
        let mut errors = Vec::new();
        crate::metadata::label_selector(crate::At::root(c.get("labelSelector")), false, &mut errors);
        !errors.is_empty()
    })
}

fn has_invalid_spread_keys(spec: &Value) -> bool {
    spec.list_at(&["topologySpreadConstraints"]).iter().any(|c| {
        let mut errors = Vec::new();
        super::scheduling::match_label_keys(crate::At::root(c), &mut errors);
        !errors.is_empty()
    })
}

fn has_indivisible_huge_pages(spec: &Value) -> bool {
    all_containers(spec).any(|c| {
        ["limits", "requests"].into_iter().any(|member| {
            let mut amounts = c.map_at(&["resources", member]).iter();
            amounts.any(|(name, v)| name.starts_with("hugepages-") && !is_divisible(name, v))
        })
    })
}

fn has_non_local_token_path(spec: &Value) -> bool {
    let sources = spec.list_at(&["volumes"]).iter().flat_map(|v| v.list_at(&["projected", "sources"]));
    let mut tokens = sources.map(|s| s.get("serviceAccountToken")).filter(|t| !t.is_null());
    tokens.any(|t| {
        let mut errors = Vec::new();
        super::volumes::local_non_reserved_path(crate::At::root(t.get("path")), &mut errors);
        !errors.is_empty()
    })
}

fn has_user_namespace_devices(spec: &Value) -> bool {
    spec.get("hostUsers").as_bool() == Some(false)
        && all_containers(spec).any(|c| !c.list_at(&["volumeDevices"]).is_empty())
}

fn has_init_restart_container(spec: &Value) -> bool {
    spec.list_at(&["initContainers"]).iter().filter(|c| c.str_at(&["restartPolicy"]) != "Always").any(|c| {
        c.list_at(&["resizePolicy"]).iter().any(|p| p.str_at(&["restartPolicy"]) == "RestartContainer")
    })
}

fn compares_tolerations(spec: &Value) -> bool {
    spec.list_at(&["tolerations"]).iter().any(|t| matches!(t.str_at(&["operator"]), "Lt" | "Gt"))
}

fn uses_restart_rules(spec: &Value) -> bool {
    let regular = spec.list_at(&["containers"]).iter().any(|c| !c.get("restartPolicy").is_null());
    regular
        || spec
            .list_at(&["initContainers"])
            .iter()
            .any(|c| !matches!(c.str_at(&["restartPolicy"]), "" | "Always"))
}
