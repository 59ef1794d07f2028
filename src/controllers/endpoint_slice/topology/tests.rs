//! Hints as tables.

use serde_json::json;

use super::*;

fn of(counts: &str) -> Allocated {
    let pair = |word: &str| {
        let (zone, count) = word.split_once('=').expect("zone=count");
        (zone.to_owned(), count.parse().expect("a count"))
    };
    counts.split_whitespace().map(pair).collect()
}

/// `a=1 b=3`: zones by their part of the whole.
fn shares(counts: &str) -> Ratios {
    let counts = of(counts);
    let total = counts.values().sum::<i64>() as f64;
    counts.into_iter().map(|(zone, count)| (zone, count as f64 / total)).collect()
}

/// `a a>b !a ?`: an endpoint of zone a, one of zone a that is hinted at b, one that is not ready, one without a zone. A
/// leading `=` marks a slice that nothing else changes.
fn slots(text: &str) -> Slots {
    let slot = |word: &str| {
        let (place, hint) = word.split_once('>').map_or((word, None), |(place, hint)| (place, Some(hint)));
        Slot {
            ready: !place.starts_with('!'),
            zone: Some(place.trim_start_matches('!').to_owned()).filter(|zone| zone != "?"),
            hints: hint.into_iter().map(str::to_owned).collect(),
        }
    };
    let words = text.trim_start_matches('=').split_whitespace();
    Slots { unchanged: text.starts_with('='), slots: words.map(slot).collect() }
}

fn render(slices: &[Slots]) -> String {
    let slot = |slot: &Slot| {
        let place = format!("{}{}", if slot.ready { "" } else { "!" }, slot.zone.as_deref().unwrap_or("?"));
        slot.hints.iter().fold(place, |text, hint| format!("{text}>{hint}"))
    };
    let slice = |slice: &Slots| {
        let words: Vec<String> = slice.slots.iter().map(slot).collect();
        format!("{}{}", if slice.unchanged { "=" } else { "" }, words.join(" "))
    };
    slices.iter().map(slice).collect::<Vec<_>>().join(" | ")
}

#[test]
fn endpoints_are_hinted_at_the_zones_that_need_them() {
    for (name, ratios, slices, want) in [
        ("each at home", "a=1 b=1", "a b", "a>a b>b"),
        ("one zone has all", "a=1 b=1", "a a a a", "a>b a>b a>a a>a"),
        ("twice the cpu", "a=2 b=1", "a b b", "a>a b>a b>b"),
        ("not ready ones count for nothing", "a=1 b=1", "a !a b", "a>a !a b>b"),
        (
            "half an endpoint too many stays at home",
            "a=1 b=1",
            "a a a a b b b",
            "a>a a>a a>a a>a b>b b>b b>b",
        ),
        ("another zone than those of nodes gives nothing", "a=1 b=1", "a a b c", "a>a a>a b>b c>c"),
        ("an unchanged slice stays", "a=1 b=1", "=a>a b>b", "=a>a b>b"),
        ("hints at other zones than home stay", "a=1 b=1", "=a>a a>b", "=a>a a>b"),
        ("a hint is missing", "a=1 b=1", "=a>a b", "a>a b>b"),
        ("a zone that is gone", "a=1 b=1", "=a>a b>c", "a>a b>b"),
        ("too much for one zone", "a=1 b=1", "=a>a b>a a>a b>a", "a>a b>b a>a b>b"),
        ("new ones go where the unchanged leave room", "a=1 b=1", "=a>a a>a | a a", "=a>a a>a | a>b a>b"),
    ] {
        let mut slices: Vec<Slots> = slices.split(" | ").map(slots).collect();
        let allocated = assign(Some(&shares(ratios)), &mut slices).expect("hints");
        assert_eq!(render(&slices), want, "{name}");
        let mut counted = Allocated::new();
        for hint in slices.iter().flat_map(|slice| &slice.slots).flat_map(|slot| &slot.hints) {
            *counted.entry(hint.clone()).or_default() += 1;
        }
        let nonzero =
            |allocated: Allocated| allocated.into_iter().filter(|(_, n)| *n != 0).collect::<Allocated>();
        assert_eq!(nonzero(allocated), counted, "{name}: what is remembered is what was written");
    }
}

#[test]
fn where_hints_would_do_harm_there_are_none() {
    for (name, ratios, slices, want) in [
        ("nothing known of nodes", None, "a b", NO_NODES.to_owned()),
        ("fewer than zones", Some("a=1 b=1"), "a", format!("{FEW_ENDPOINTS} (1 endpoints, 2 zones)")),
        (
            "fewer ready than zones",
            Some("a=1 b=1"),
            "a !b",
            format!("{FEW_ENDPOINTS} (1 endpoints, 2 zones)"),
        ),
        ("nobody", Some("a=1 b=1"), "", format!("{FEW_ENDPOINTS} (0 endpoints, 2 zones)")),
        (
            "three for two to one to one",
            Some("a=2 b=1 c=1"),
            "a b c",
            format!("{WOULD_OVERLOAD} (3 endpoints, 3 zones)"),
        ),
        (
            "five for two alike",
            Some("a=1 b=1"),
            "a a a b b",
            format!("{WOULD_OVERLOAD} (5 endpoints, 2 zones)"),
        ),
        ("no zone", Some("a=1 b=1"), "a ?", NO_ZONE.to_owned()),
    ] {
        let ratios = ratios.map(shares);
        assert_eq!(assign(ratios.as_ref(), &mut [slots(slices)]), Err(want), "{name}");
    }
}

/// What zones need at least and may have at most.
#[test]
fn allocations_bear_a_fifth_too_much() {
    for (ratios, endpoints, want) in [
        ("a=1 b=1", 2, "a:1-1 b:1-1"),
        ("a=1 b=1", 10, "a:5-5 b:5-5"),
        ("a=1 b=1", 12, "a:5-7 b:5-7"),
        ("a=3 b=1", 20, "a:13-15 b:5-7"),
        ("a=5 b=3 c=2", 20, "a:9-11 b:5-7 c:4-6"),
    ] {
        let ratios = shares(ratios);
        let allocations = allocations(Some(&ratios), endpoints).expect("allocations");
        let words: Vec<String> =
            allocations.iter().map(|(zone, a)| format!("{zone}:{}-{}", a.minimum, a.maximum)).collect();
        assert_eq!(words.join(" "), want, "{ratios:?} {endpoints}");
    }
}

#[test]
fn what_zones_give_is_what_others_get() {
    for (name, ratios, endpoints, allocated, giving, receiving) in [
        ("even", "a=1 b=1", 4, "a=2 b=2", "", ""),
        ("one to another", "a=1 b=1", 4, "a=3 b=1", "a=1", "b=1"),
        ("one to two", "a=1 b=1 c=1", 6, "a=4 b=1 c=1", "a=2", "b=1 c=1"),
        ("less than one on both sides", "a=1 b=1", 7, "a=4 b=3", "", ""),
        ("nothing yet", "a=1 b=1", 4, "a=4", "a=2", "b=2"),
    ] {
        let ratios = shares(ratios);
        let allocations = allocations(Some(&ratios), endpoints).expect("allocations");
        assert_eq!(moves(&allocations, &of(allocated)), (of(giving), of(receiving)), "{name}");
    }
}

#[test]
fn an_overloaded_zone_is_seen() {
    for (name, allocated, ratios, want) in [
        ("nothing is known any more", "a=1 b=1", None, true),
        ("even", "a=1 b=1", Some("a=1 b=1"), false),
        ("a new zone", "a=1 b=1", Some("a=1 b=1 c=1"), true),
        ("a little too few", "a=5 b=6", Some("a=1 b=1"), false),
        ("far too few", "a=4 b=6", Some("a=1 b=1"), true),
    ] {
        assert_eq!(is_overloaded(&of(allocated), ratios.map(shares).as_ref()), want, "{name}");
    }
}

#[test]
fn zones_count_by_the_cpu_of_their_ready_nodes() {
    /// `zone/cpu/label`, not ready with a leading `!`.
    fn node(text: &str) -> Arc<Node> {
        let mut words = text.trim_start_matches('!').split('/');
        let (zone, cpu, label) = (words.next(), words.next(), words.next());
        let status = if text.starts_with('!') { "False" } else { "True" };
        let mut node = json!({"metadata": {"name": "n", "labels": {}},
            "status": {"conditions": [{"type": "Ready", "status": status}], "allocatable": {}}});
        if let Some(zone) = zone.filter(|zone| *zone != "-") {
            node["metadata"]["labels"][ZONE] = json!(zone);
        }
        if let Some(cpu) = cpu {
            node["status"]["allocatable"]["cpu"] = json!(cpu);
        }
        if let Some(label) = label {
            node["metadata"]["labels"][format!("node-role.kubernetes.io/{label}")] = json!("");
        }
        Arc::new(serde_json::from_value(node).expect("a node"))
    }
    for (name, nodes, want) in [
        ("none", "", None),
        ("one zone", "a/1 a/2", None),
        ("two", "a/1 a/2 b/1000m", Some("a=3 b=1")),
        ("one is not ready", "a/1 b/1 !a/2", Some("a=1 b=1")),
        ("a control plane has no part", "a/1 b/1 a/8/control-plane b/9/master", Some("a=1 b=1")),
        ("no zone anywhere", "a/1 b/1 -/1", None),
        ("no cpu", "a/1 b/1 b", None),
        ("no cpu at all", "a/1 b/0", None),
        ("what is not ready need not tell", "a/1 b/1 !-/1", Some("a=1 b=1")),
    ] {
        let nodes: Vec<Arc<Node>> = nodes.split_whitespace().map(node).collect();
        assert_eq!(ratios(&nodes), want.map(shares), "{name}");
    }
}

#[test]
fn a_service_is_told_when_hints_begin_and_end() {
    let (mut topology, key) = (Topology::default(), Key::from("x/web"));
    let hinted = || Some(vec![("IPv4".to_owned(), Ok(of("a=1 b=1")))]);
    let told = |notes: Vec<Note>| {
        notes.into_iter().map(|n| format!("{} {}", n.reason, n.message)).collect::<Vec<_>>()
    };

    assert_eq!(topology.update(&key, None), [], "never asked");
    let begun = ["TopologyAwareHintsEnabled Topology Aware Hints has been enabled, addressType: IPv4"];
    assert_eq!(told(topology.update(&key, hinted())), begun);
    assert_eq!(topology.update(&key, hinted()), [], "told once");
    assert_eq!(topology.set_ratios(Some(shares("a=1 b=1"))), Vec::<Key>::new());
    assert_eq!(topology.set_ratios(Some(shares("a=1 b=9"))), std::slice::from_ref(&key), "overloaded");

    let why = Some(vec![("IPv4".to_owned(), Err("because".to_owned()))]);
    assert_eq!(told(topology.update(&key, why)), ["TopologyAwareHintsDisabled because, addressType: IPv4"]);
    assert_eq!(topology.set_ratios(None), Vec::<Key>::new(), "nothing to take back");
    assert_eq!(told(topology.update(&key, hinted())), begun, "anew");
    let ended = ["TopologyAwareHintsDisabled Topology Aware Hints has been disabled, addressType: IPv4"];
    assert_eq!(told(topology.update(&key, None)), ended, "not asked any more");
    assert_eq!(topology.update(&key, None), []);
}

#[test]
fn who_asks() {
    for (annotations, want) in [
        (json!({}), false),
        (json!({MODE: "Auto"}), true),
        (json!({MODE: "auto"}), true),
        (json!({MODE: "Disabled"}), false),
        (json!({MODE_DEPRECATED: "Auto"}), true),
        (json!({MODE: "Auto", MODE_DEPRECATED: "Disabled"}), false),
    ] {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"annotations": annotations}})).expect("a service");
        assert_eq!(is_asked(&service), want, "{annotations}");
    }
}
