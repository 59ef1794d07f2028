//! When the change happened that a write of endpoints follows: readers measure by it how late they are.
//!
//! Several changes of one object between two turns are seen as the last of them, as upstream sees them.
//!
//! upstream: k8s.io/endpointslice/util/trigger_time_tracker.go

use std::collections::HashMap;
use std::sync::Arc;

use copepod_client::object::{Key, MetaExt};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::conditions;
use crate::kinds::{Pod, Service};

/// The annotation that holds the time.
pub const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What each service looked like in its last turn.
#[derive(Default)]
pub struct Triggers {
    known: Mutex<HashMap<Key, Known>>,
}

struct Known {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Triggers {
    /// The earliest of what is new since the last call for the service, as the annotation's value; of a service that
    /// is new here its own making. `None`: nothing is new.
    pub fn of(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
        let made = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let changed = |pod: &Arc<Pod>| {
            let ready = conditions::find(&pod.status.conditions, "Ready")?;
            Some((pod.metadata.name().to_owned(), ready.last_transition_time.as_ref()?.0))
        };
        let now = Known { service: made, pods: pods.iter().filter_map(changed).collect() };
        let mut known = self.known.lock();
        let before = known.insert(key.clone(), now);
        let now = known.get(key)?;
        let earliest = match before {
            None => made,
            Some(before) => now
                .pods
                .iter()
                .filter(|(name, time)| before.pods.get(*name).is_none_or(|then| then < time))
                .map(|(_, time)| *time)
                .chain(made.filter(|_| made > before.service))
                .min(),
        };
        earliest.map(|time| time.to_string())
    }

    /// The service is gone.
    pub fn forget(&self, key: &Key) {
        self.known.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_earliest_change_since_the_last_turn_counts() {
        let service: Service = serde_json::from_value(
            json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}}),
        )
        .expect("a service");
        let pod = |name: &str, minute: u8| -> Arc<Pod> {
            let at = format!("2026-01-01T00:{minute:02}:00Z");
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name}, "status": {"conditions":
                    [{"type": "Ready", "status": "True", "lastTransitionTime": at}]}}))
                .expect("a pod"),
            )
        };
        let (triggers, key) = (Triggers::default(), Key::from("x/web"));
        for (name, pods, want) in [
            ("a new service", vec![pod("a", 5)], "2026-01-01T00:00:00Z"),
            ("nothing new", vec![pod("a", 5)], ""),
            ("one new, one changed", vec![pod("a", 9), pod("b", 7)], "2026-01-01T00:07:00Z"),
            ("one gone", vec![pod("a", 9)], ""),
        ] {
            assert_eq!(triggers.of(&key, &service, &pods).unwrap_or_default(), want, "{name}");
        }
        triggers.forget(&key);
        assert!(triggers.of(&key, &service, &[]).is_some(), "new again");
    }
}
