//! Probes, hooks and their handlers. upstream: validation.go validateProbe, validateLifecycle, validateHandler

use copepod_meta::{ErrorList, Value, names};

use super::containers::Pod;
use crate::check::At;

/// Which probe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Restarts the container.
    Liveness,
    /// Takes the pod out of services.
    Readiness,
    /// Holds the others back.
    Startup,
}

/// upstream: validateLivenessProbe, validateReadinessProbe, validateStartupProbe
pub fn probe_of(at: At, kind: Kind, pod: &Pod, e: &mut ErrorList) {
    if !at.is_set() {
        return;
    }
    handler(at, &["exec", "httpGet", "tcpSocket", "grpc"], pod, e);
    for member in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        at.get(member).not_negative(e);
    }
    let grace = at.get("terminationGracePeriodSeconds");
    if grace.is_set() && grace.int() <= 0 {
        grace.invalid_int(e, "must be greater than 0");
    }
    match kind {
        Kind::Readiness => {
            if grace.is_set() {
                grace.invalid_int(e, "must not be set for readinessProbes");
            }
        }
        Kind::Liveness | Kind::Startup => {
            let threshold = at.get("successThreshold");
            if threshold.int() != 1 {
                threshold.invalid_int(e, "must be 1");
            }
        }
    }
}

/// upstream: validateLifecycle
pub fn lifecycle(at: At, pod: &Pod, e: &mut ErrorList) {
    for member in ["postStart", "preStop"] {
        if at.get(member).is_set() {
            handler(at.get(member), &["exec", "httpGet", "tcpSocket", "sleep"], pod, e);
        }
    }
    let signal = at.get("stopSignal");
    if signal.is_set() {
        stop_signal(signal, pod.os, e);
    }
}

/// upstream: validateHandler
fn handler(at: At, kinds: &[&str], pod: &Pod, e: &mut ErrorList) {
    let mut found = false;
    for kind in kinds {
        let action = at.get(kind);
        if !action.is_set() {
            continue;
        }
        if std::mem::replace(&mut found, true) {
            action.forbidden(e, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                action.get("command").need(e);
            }
            "httpGet" => http_get(action, e),
            "grpc" => action.get("port").port(e),
            "sleep" => sleep(action, pod, e),
            _ => port_or_name(action.get("port"), e),
        }
    }
    if !found {
        at.required(e, "must specify a handler type");
    }
}

/// upstream: validateHTTPGetAction
fn http_get(at: At, e: &mut ErrorList) {
    at.get("path").need(e);
    port_or_name(at.get("port"), e);
    at.get("scheme").one_of(e, &["HTTP", "HTTPS"]);
    let headers = at.get("httpHeaders");
    for header in headers.items() {
        let name = header.get("name").str();
        for message in names::http_header_name(name) {
            headers.invalid_str(e, name, message);
        }
    }
}

/// upstream: validateSleepAction
fn sleep(at: At, pod: &Pod, e: &mut ErrorList) {
    let Some(grace) = pod.grace_period else { return };
    let seconds = at.value.int_at(&["seconds"]);
    if seconds < 0 || seconds > grace {
        let message = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        at.with(&Value::Int(seconds)).invalid(e, message);
    }
}

/// upstream: ValidatePortNumOrName
pub fn port_or_name(at: At, e: &mut ErrorList) {
    match at.value {
        Value::String(name) => at.invalid_each(e, names::port_name(name)),
        _ => at.port(e),
    }
}

/// upstream: validateStopSignal
fn stop_signal(at: At, os: Option<&str>, e: &mut ErrorList) {
    match os {
        None => at.forbidden(e, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => at.one_of(e, &["SIGKILL", "SIGTERM"]),
        Some("linux") => at.one_of(e, LINUX_SIGNALS),
        Some(_) => {}
    }
}

#[rustfmt::skip]
const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGIO",
    "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGRTMAX", "SIGRTMAX-1", "SIGRTMAX-10",
    "SIGRTMAX-11", "SIGRTMAX-12", "SIGRTMAX-13", "SIGRTMAX-14", "SIGRTMAX-2", "SIGRTMAX-3", "SIGRTMAX-4", "SIGRTMAX-5",
    "SIGRTMAX-6", "SIGRTMAX-7", "SIGRTMAX-8", "SIGRTMAX-9", "SIGRTMIN", "SIGRTMIN+1", "SIGRTMIN+10", "SIGRTMIN+11",
    "SIGRTMIN+12", "SIGRTMIN+13", "SIGRTMIN+14", "SIGRTMIN+15", "SIGRTMIN+2", "SIGRTMIN+3", "SIGRTMIN+4", "SIGRTMIN+5",
    "SIGRTMIN+6", "SIGRTMIN+7", "SIGRTMIN+8", "SIGRTMIN+9", "SIGSEGV", "SIGSTKFLT", "SIGSTOP", "SIGSYS", "SIGTERM",
    "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH", "SIGXCPU",
    "SIGXFSZ",
];
