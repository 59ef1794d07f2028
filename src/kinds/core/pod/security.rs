//! Security contexts. upstream: validation.go validatePodSpecSecurityContext, ValidateSecurityContext

use copepod_meta::{ErrorList, Value};
use std::collections::BTreeSet;

use super::options::Options;
use super::volumes::local_descending_path;
use super::windows;
use crate::capabilities;
use crate::check::At;
use crate::print;

const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL_REGEX: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// The pod's. Members that `v1` keeps beside `securityContext` (hostNetwork ...) are read from `spec`.
pub fn pod(spec: At, opts: &Options, e: &mut ErrorList) {
    let at = spec.get("securityContext");
    at.get("fsGroup").id(e);
    at.get("runAsUser").id(e);
    at.get("runAsGroup").id(e);
    for group in at.get("supplementalGroups").items() {
        group.id(e);
    }
    let share = spec.get("shareProcessNamespace");
    if share.bool() && spec.get("hostPID").bool() {
        let at = at.get("shareProcessNamespace");
        at.with(share.value).invalid(e, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(at.get("sysctls"), spec.value, opts, e);
    let change = at.get("fsGroupChangePolicy");
    if change.is_set() {
        change.one_of(e, &["Always", "OnRootMismatch"]);
    }
    seccomp(at.get("seccompProfile"), e);
    windows::options(at.get("windowsOptions"), e);
    app_armor(at.get("appArmorProfile"), e);
    let groups = at.get("supplementalGroupsPolicy");
    if groups.is_set() {
        groups.one_of(e, &["Merge", "Strict"]);
    }
    let selinux = at.get("seLinuxChangePolicy");
    if selinux.is_set() {
        selinux.one_of(
            e,
            if opts.only_recursive_selinux { &["Recursive"] } else { &["MountOption", "Recursive"] },
        );
    }
}

/// A container's. upstream: ValidateSecurityContext
pub fn container(at: At, host_users: bool, e: &mut ErrorList) {
    if !at.is_set() {
        return;
    }
    let privileged = at.get("privileged");
    if privileged.bool() && !capabilities::privileged_allowed() {
        privileged.forbidden(e, "disallowed by cluster policy");
    }
    at.get("runAsUser").id(e);
    at.get("runAsGroup").id(e);
    let proc_mount = at.get("procMount");
    if proc_mount.is_set() {
        proc_mount.one_of(e, &["Default", "Unmasked"]);
        if host_users && proc_mount.str() == "Unmasked" {
            proc_mount.invalid(e, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(at.get("seccompProfile"), e);
    if at.get("allowPrivilegeEscalation").value.as_bool() == Some(false) {
        let printed = || print::internal(at.value, "core/SecurityContext");
        if privileged.bool() {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            at.invalid_printed(e, printed(), message);
        }
        let added = at.get("capabilities.add");
        for _cap in added.items().filter(|c| c.str() == "CAP_SYS_ADMIN") {
            let message =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            at.invalid_printed(e, printed(), message);
        }
    }
    windows::options(at.get("windowsOptions"), e);
    app_armor(at.get("appArmorProfile"), e);
}

/// upstream: validateSeccompProfileField
fn seccomp(at: At, e: &mut ErrorList) {
    if !at.is_set() {
        return;
    }
    let (ty, profile) = (at.get("type"), at.get("localhostProfile"));
    if ty.is_empty() {
        ty.required(e, "type is required when seccompProfile is set");
    } else {
        ty.one_of(e, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (ty.str() == "Localhost", profile.is_set()) {
        (true, false) => profile.required(e, "must be set when seccomp type is Localhost"),
        (true, true) => local_descending_path(profile, e),
        (false, true) => {
            let printed = print::internal(at.value, "core/SeccompProfile");
            profile.invalid_printed(e, printed, "can only be set when seccomp type is Localhost");
        }
        (false, false) => {}
    }
}

/// upstream: ValidateAppArmorProfileField
fn app_armor(at: At, e: &mut ErrorList) {
    const PROFILE_BYTES_MAX: usize = 4095; // PATH_MAX - 1
    const MUST_BE_SET: &str = "must be set when AppArmor type is Localhost";
    if !at.is_set() {
        return;
    }
    let (ty, profile) = (at.get("type"), at.get("localhostProfile"));
    match ty.str() {
        "Localhost" if !profile.is_set() => profile.required(e, MUST_BE_SET),
        "Localhost" => {
            let trimmed = profile.str().trim();
            if trimmed != profile.str() {
                profile.invalid(e, "must not be padded with whitespace");
            } else if trimmed.is_empty() {
                profile.required(e, MUST_BE_SET);
            }
            if profile.len() > PROFILE_BYTES_MAX {
                profile.too_long(e, PROFILE_BYTES_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.is_set() {
                profile.invalid(e, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => ty.required(e, "type is required when appArmorProfile is set"),
        _ => ty.not_supported(e, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

/// upstream: validateSysctls
fn sysctls(list: At, spec: &Value, opts: &Options, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for sysctl in list.items() {
        let name = sysctl.get("name");
        if name.is_empty() {
            name.required(e, "");
        } else if !is_sysctl_name(name.str()) {
            let message =
                format!("must have at most {SYSCTL_BYTES_MAX} characters and match regex {SYSCTL_REGEX}");
            name.invalid(e, message);
        } else if seen.contains(name.str()) {
            name.duplicate(e);
        }
        if !opts.host_sysctls
            && let Some(why) = host_sysctl(name.str(), spec)
        {
            name.invalid(e, why);
        }
        seen.insert(name.str());
    }
}

/// Why a namespaced sysctl does not go with a namespace of the host. upstream: ValidateHostSysctl
fn host_sysctl(name: &str, spec: &Value) -> Option<&'static str> {
    // Slashes may stand for dots. upstream: component-helpers/node/util/sysctl NormalizeName
    let first_separator = name.find(['.', '/']);
    let dotted = match first_separator {
        Some(i) if name.as_bytes()[i] == b'/' => name.replace('/', "."),
        _ => name.to_string(),
    };
    let ipc = dotted == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
    if spec.bool_at(&["hostNetwork"]) && dotted.starts_with("net.") {
        Some("may not be specified when 'hostNetwork' is true")
    } else if spec.bool_at(&["hostIPC"]) && ipc {
        Some("may not be specified when 'hostIPC' is true")
    } else {
        None
    }
}

/// Whether a stored pod has a sysctl that would be refused now.
pub fn has_host_sysctl(spec: &Value) -> bool {
    let sysctls = spec.list_at(&["securityContext", "sysctls"]);
    sysctls.iter().any(|s| host_sysctl(s.str_at(&["name"]), spec).is_some())
}

fn is_sysctl_name(name: &str) -> bool {
    let end = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |s: &str| {
        let b = s.as_bytes();
        let ends = b.first().is_some_and(|c| end(*c)) && b.last().is_some_and(|c| end(*c));
        ends && b.iter().all(|c| end(*c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= SYSCTL_BYTES_MAX && name.split(['.', '/']).all(segment)
}
