//! Where a pod waits, and what brings it back.

use super::*;
use crate::model::wire;
use serde_json::json;

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    from(json!({"metadata": {"name": name, "namespace": "x", "uid": name}, "spec": {"priority": priority}}))
}

fn from(value: serde_json::Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(&serde_json::from_value::<wire::Pod>(value).expect("a pod")))
}

fn name(queued: Option<Queued>) -> String {
    queued.map_or_else(String::new, |queued| queued.pod.name().to_owned())
}

#[tokio::test(start_paused = true)]
async fn important_pods_first_then_older_ones() {
    let now = Instant::now();
    let mut queue = SchedulingQueue::default();
    for (pod_name, priority) in [("a", 0), ("b", 5), ("c", 5), ("d", 1)] {
        queue.update(pod(pod_name, priority), now);
    }
    let order: Vec<String> = (0..5).map(|_| name(queue.pop(now))).collect();
    assert_eq!(order, ["b", "c", "d", "a", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pod_backs_off_longer_each_time() {
    let mut now = Instant::now();
    let mut queue = SchedulingQueue::default();
    queue.update(pod("a", 0), now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let queued = queue.pop(now).expect("it is due");
        queue.give_back(queued, PluginSet::empty(), now);
        let due = queue.next_due().expect("it backs off");
        assert!(queue.pop(due - Duration::from_millis(1)).is_none(), "not before, after an error");
        waits.push(due.duration_since(now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn events_wake_the_pods_they_may_help() {
    let now = Instant::now();
    let node = |value: serde_json::Value| {
        let mut cluster = crate::cluster::Cluster::default();
        cluster.set_node(&serde_json::from_value(value).expect("a node"));
        cluster.nodes()[0].clone()
    };
    let plain = node(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "1"}}}));
    let larger = node(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "8"}}}));
    let disk = node(json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}}));
    let cordoned = node(json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}}));
    let picky = json!({"metadata": {"name": "a", "namespace": "x", "uid": "a"},
        "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"resources": {"requests": {"cpu": "2"}}}]}});
    let gone = pod("other", 0);
    for (case, plugins, event, wakes) in [
        ("label came", PluginSet::NODE_AFFINITY, ClusterEvent::Node(Some(&plain), &disk), true),
        ("label was there", PluginSet::NODE_AFFINITY, ClusterEvent::Node(Some(&disk), &disk), false),
        ("new node with it", PluginSet::NODE_AFFINITY, ClusterEvent::Node(None, &disk), true),
        ("new node without", PluginSet::NODE_AFFINITY, ClusterEvent::Node(None, &plain), false),
        ("pod left", PluginSet::NODE_AFFINITY, ClusterEvent::PodGone(&gone), false),
        ("room by a pod", PluginSet::NODE_RESOURCES_FIT, ClusterEvent::PodGone(&gone), true),
        ("grown", PluginSet::NODE_RESOURCES_FIT, ClusterEvent::Node(Some(&plain), &larger), true),
        ("still too small", PluginSet::NODE_RESOURCES_FIT, ClusterEvent::Node(Some(&larger), &plain), false),
        ("uncordoned", PluginSet::NODE_UNSCHEDULABLE, ClusterEvent::Node(Some(&cordoned), &plain), true),
        ("cordoned", PluginSet::NODE_UNSCHEDULABLE, ClusterEvent::Node(Some(&plain), &cordoned), false),
        ("neighbours", PluginSet::INTER_POD_AFFINITY, ClusterEvent::PodPlaced, true),
    ] {
        let mut queue = SchedulingQueue::default();
        queue.update(from(picky.clone()), now);
        let queued = queue.pop(now).expect("ready");
        queue.give_back(queued, plugins, now);
        queue.on_event(event, now);
        assert_eq!(queue.lengths().2 == 0, wakes, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_pod_is_tried_again_when_it_changed_or_after_five_minutes() {
    let now = Instant::now();
    let mut queue = SchedulingQueue::default();
    let with = |labels: serde_json::Value, condition: &str| {
        from(json!({"metadata": {"name": "a", "namespace": "x", "uid": "a", "labels": labels},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": condition}]}}))
    };
    queue.update(with(json!({}), ""), now);
    let queued = queue.pop(now).expect("ready");
    queue.give_back(queued, PluginSet::NODE_AFFINITY, now);
    queue.update(with(json!({}), "no"), now);
    assert_eq!(queue.lengths().2, 1, "the scheduler's own condition is no reason");
    queue.flush(now + Duration::from_secs(299));
    assert_eq!(queue.lengths().2, 1);
    queue.flush(now + Duration::from_secs(300));
    assert_eq!(name(queue.pop(now + Duration::from_secs(300))), "a");

    let queued =
        Queued { pod: with(json!({}), ""), since: now, arrival: 1, failures: 0, plugins: PluginSet::empty() };
    queue.give_back(queued, PluginSet::NODE_AFFINITY, now);
    queue.update(with(json!({"new": "label"}), ""), now);
    assert_eq!(queue.lengths().2, 0, "it changed");
}

#[tokio::test(start_paused = true)]
async fn gates_hold_a_pod_back() {
    let now = Instant::now();
    let mut queue = SchedulingQueue::default();
    let gated = |gates: serde_json::Value| {
        from(
            json!({"metadata": {"name": "a", "namespace": "x", "uid": "a"}, "spec": {"schedulingGates": gates}}),
        )
    };
    queue.update(gated(json!([{"name": "wait"}])), now);
    assert!(queue.pop(now).is_none());
    queue.flush(now + Duration::from_secs(600));
    assert!(queue.pop(now + Duration::from_secs(600)).is_none(), "time does not open a gate");
    queue.update(gated(json!([])), now);
    assert_eq!(name(queue.pop(now)), "a");
}
