//! Whether some rules grant all that others do: what escalation checks ask.
//!
//! upstream: component-helpers/auth/rbac/validation/policy_comparator.go Covers

use copepod_meta::Value;

/// The first rules that `owned` does not grant, one verb and resource each; none: everything is covered.
pub fn uncovered(owned: &[Value], wanted: &[Value]) -> Vec<Value> {
    let broken: Vec<Value> = wanted.iter().flat_map(break_down).collect();
    broken.into_iter().filter(|rule| !owned.iter().any(|o| covers(o, rule))).collect()
}

fn strings<'a>(rule: &'a Value, member: &str) -> Vec<&'a str> {
    rule.list_at(&[member]).iter().filter_map(Value::as_str).collect()
}

/// A rule as rules of one group, resource, verb and name each. upstream: BreakdownRule
fn break_down(rule: &Value) -> Vec<Value> {
    let one = |members: &[(&str, &str)]| {
        let mut out = Value::map();
        for (name, text) in members {
            out.set(&[name], vec![Value::string(text)]);
        }
        out
    };
    let mut out = Vec::new();
    for group in strings(rule, "apiGroups") {
        for resource in strings(rule, "resources") {
            for verb in strings(rule, "verbs") {
                let names = strings(rule, "resourceNames");
                let base = [("apiGroups", group), ("resources", resource), ("verbs", verb)];
                if names.is_empty() {
                    out.push(one(&base));
                }
                for name in names {
                    out.push(one(&[base[0], base[1], base[2], ("resourceNames", name)]));
                }
            }
        }
    }
    for url in strings(rule, "nonResourceURLs") {
        for verb in strings(rule, "verbs") {
            out.push(one(&[("nonResourceURLs", url), ("verbs", verb)]));
        }
    }
    out
}

/// upstream: ruleCovers
fn covers(owner: &Value, wanted: &Value) -> bool {
    let all = |member: &str| {
        let owned = strings(owner, member);
        owned.contains(&"*") || strings(wanted, member).iter().all(|w| owned.contains(w))
    };
    all("verbs")
        && all("apiGroups")
        && resources(&strings(owner, "resources"), &strings(wanted, "resources"))
        && names(&strings(owner, "resourceNames"), &strings(wanted, "resourceNames"))
        && urls(&strings(owner, "nonResourceURLs"), &strings(wanted, "nonResourceURLs"))
}

fn resources(owned: &[&str], wanted: &[&str]) -> bool {
    // `*/scale` grants that subresource of everything.
    let any_of = |resource: &str| {
        resource.split_once('/').is_some_and(|(_, sub)| owned.contains(&format!("*/{sub}").as_str()))
    };
    owned.contains(&"*") || wanted.iter().all(|w| owned.contains(w) || any_of(w))
}

fn names(owned: &[&str], wanted: &[&str]) -> bool {
    owned.is_empty() || (!wanted.is_empty() && wanted.iter().all(|w| owned.contains(w)))
}

fn urls(owned: &[&str], wanted: &[&str]) -> bool {
    let covered = |w: &str| {
        owned.iter().any(|o| *o == w || o.strip_suffix('*').is_some_and(|prefix| w.starts_with(prefix)))
    };
    wanted.iter().all(|w| covered(w))
}

#[cfg(test)]
mod tests {
    use super::uncovered;
    use crate::testing::json;

    #[test]
    fn a_grant_is_covered_verb_by_verb() {
        let owned = json(
            r#"[{"apiGroups":[""],"resources":["pods","*/scale"],"verbs":["get","list"]},
            {"nonResourceURLs":["/metrics/*"],"verbs":["get"]}]"#,
        );
        for (wanted, missing) in [
            (r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]"#, 0),
            (r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get","delete"]}]"#, 1),
            (r#"[{"apiGroups":[""],"resources":["pods"],"resourceNames":["a"],"verbs":["get"]}]"#, 0),
            (r#"[{"apiGroups":[""],"resources":["deployments/scale"],"verbs":["get"]}]"#, 0),
            (r#"[{"apiGroups":["*"],"resources":["pods"],"verbs":["get"]}]"#, 1),
            (r#"[{"nonResourceURLs":["/metrics/a"],"verbs":["get"]}]"#, 0),
            (r#"[{"nonResourceURLs":["/other"],"verbs":["get"]}]"#, 1),
        ] {
            assert_eq!(uncovered(owned.list_at(&[]), json(wanted).list_at(&[])).len(), missing, "{wanted}");
        }
    }
}
