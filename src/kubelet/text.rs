//! Go's ways of writing things, which users and tests read in messages: durations, lists, pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

/// A duration as Go's `time.Duration` prints it: `10s`, `1m20s`, `5m0s`, `1.5s`, `250ms`.
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    let fraction = |value: u128, unit: u128| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if nanos < 1_000_000 {
        return format!("{}µs", fraction(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", fraction(nanos, 1_000_000));
    }
    let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
    let minutes = duration.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A list as Go's `%v` prints it: `[a b]`.
pub fn go_list(items: &[&str]) -> String {
    format!("[{}]", items.join(" "))
}

/// `name_namespace(uid)`, upstream's name of a pod in messages.
// upstream: kubelet/util/format/pod.go Pod
pub fn pod_text(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "{}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default()
    )
}

/// `name_namespace(uid)` from parts.
pub fn pod_desc(name: &str, namespace: &str, uid: &str) -> String {
    format!("{name}_{namespace}({uid})")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by Go 1.26's `time.Duration.String`.
    #[test]
    fn durations_are_gos() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_001_000_000, "1.001s"),
            (10_000_000_000, "10s"),
            (80_000_000_000, "1m20s"),
            (300_000_000_000, "5m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), want);
        }
    }
}
