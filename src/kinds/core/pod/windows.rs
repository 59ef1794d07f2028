//! What Windows pods may and may not say. upstream: validation.go validateWindows*, validateLinux

use copepod_meta::ErrorList;

use super::spec::each_container;
use crate::capabilities;
use crate::check::At;

/// upstream: validateWindowsSecurityContextOptions
pub fn options(at: At, e: &mut ErrorList) {
    const CREDENTIAL_SPEC_BYTES_MAX: usize = 64 * 1024;
    let name = at.get("gmsaCredentialSpecName");
    if name.is_set() {
        name.dns_subdomain(e);
    }
    let spec = at.get("gmsaCredentialSpec");
    if spec.is_set() {
        if spec.is_empty() {
            spec.invalid(e, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > CREDENTIAL_SPEC_BYTES_MAX {
            spec.invalid(e, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    let user = at.get("runAsUserName");
    if user.is_set() {
        run_as_user_name(user, e);
    }
}

fn run_as_user_name(at: At, e: &mut ErrorList) {
    const DOMAIN_BYTES_MAX: usize = 256;
    const USER_BYTES_MAX: usize = 104;
    let text = at.str();
    if text.is_empty() {
        return at.invalid(e, "runAsUserName cannot be an empty string");
    }
    if text.bytes().any(|c| c.is_ascii_control()) {
        return at.invalid(e, "runAsUserName cannot contain control characters");
    }
    if text.matches('\\').count() > 1 {
        return at.invalid(e, "runAsUserName cannot contain more than one backslash");
    }
    let (domain, user) = match text.split_once('\\') {
        Some((domain, user)) => (Some(domain), user),
        None => (None, text),
    };
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_BYTES_MAX {
            at.invalid(e, "runAsUserName's Domain length must be under 256 characters");
        }
        if !is_net_bios(domain) && !is_dns_domain(domain) {
            at.invalid(e, "runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        at.invalid(e, "runAsUserName's User cannot be empty");
    } else if user.len() > USER_BYTES_MAX {
        at.invalid(e, "runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        at.invalid(e, "runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        at.invalid(e, "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

fn is_net_bios(s: &str) -> bool {
    let bad = |c: char| "\\/:*?\"<>|".contains(c);
    (1..=15).contains(&s.chars().count()) && !s.starts_with('.') && !s.contains(bad)
}

fn is_dns_domain(s: &str) -> bool {
    s.split('.').all(|label| {
        let b = label.as_bytes();
        let ends = b.first().is_some_and(u8::is_ascii_alphanumeric)
            && b.last().is_some_and(u8::is_ascii_alphanumeric);
        ends && b.len() <= 63 && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    })
}

/// upstream: validateWindowsHostProcessPod
pub fn host_process(spec: At, e: &mut ErrorList) {
    let of_pod = spec.get("securityContext.windowsOptions.hostProcess").value.as_bool();
    let (mut all, mut host) = (0, 0);
    each_container(spec, |container| {
        all += 1;
        let at = container.get("securityContext.windowsOptions.hostProcess");
        let own = at.value.as_bool();
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            at.invalid(
                e,
                format!("pod hostProcess value must be identical if both are specified, was {pod}"),
            );
        }
        host += usize::from(own.or(of_pod) == Some(true));
    });
    if host == 0 {
        return;
    }
    if host != all {
        let message =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.invalid_str(e, "", message);
    }
    let network = spec.get("hostNetwork");
    if !network.bool() {
        let message = "hostNetwork must be true if pod contains any hostProcess containers";
        network.invalid_printed(e, "false".into(), message);
    }
    if !capabilities::privileged_allowed() {
        spec.forbidden(e, "hostProcess containers are disallowed by cluster policy");
    }
}

/// upstream: validateLinux
pub fn refuse_windows_options(spec: At, e: &mut ErrorList) {
    const LINUX: &str = "windows options cannot be set for a linux pod";
    let options = spec.get("securityContext.windowsOptions");
    if options.is_set() {
        options.forbidden(e, LINUX);
    }
    each_container(spec, |container| {
        let options = container.get("securityContext.windowsOptions");
        if options.is_set() {
            options.forbidden(e, LINUX);
        }
    });
}

/// upstream: validateWindows
pub fn refuse_linux_options(spec: At, e: &mut ErrorList) {
    const WINDOWS: &str = "cannot be set for a windows pod";
    const OF_POD: &[&str] = &[
        "securityContext.appArmorProfile",
        "securityContext.seLinuxOptions",
        "hostUsers",
        "hostPID",
        "hostIPC",
        "securityContext.seccompProfile",
        "securityContext.fsGroup",
        "securityContext.fsGroupChangePolicy",
        "securityContext.sysctls",
        "shareProcessNamespace",
        "securityContext.runAsUser",
        "securityContext.runAsGroup",
        "securityContext.supplementalGroups",
        "securityContext.supplementalGroupsPolicy",
        "securityContext.seLinuxChangePolicy",
    ];
    const OF_CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for member in OF_POD {
        let at = spec.get(member);
        // Booleans and lists that are no pointers count only when they say something.
        let set = match *member {
            "hostPID" | "hostIPC" | "securityContext.sysctls" => !at.is_empty(),
            _ => at.is_set(),
        };
        if set {
            at.forbidden(e, WINDOWS);
        }
    }
    each_container(spec, |container| {
        let context = container.get("securityContext");
        for member in OF_CONTAINER {
            let at = context.get(member);
            if at.is_set() {
                at.forbidden(e, WINDOWS);
            }
        }
    });
}
