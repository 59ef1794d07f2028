//! ClusterRoles with an aggregation rule get the rules of all roles that it selects.
//!
//! upstream: pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go

use std::sync::Arc;

use copepod_client::informer::Informer;
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::common::resources::CLUSTER_ROLES;
use crate::common::selector;
use crate::context::{Context, Work};
use crate::kinds::ClusterRole;

const NAME: &str = "clusterrole-aggregation-controller";
const FIELD_MANAGER: &str = "clusterrole-aggregation-controller";

/// The rules that a role should have, if it has other ones.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Value> {
    let rule = role.aggregation_rule.as_ref()?;
    let mut sources: Vec<&Arc<ClusterRole>> = all.iter().collect();
    sources.sort_by_key(|source| source.metadata.name().to_owned());
    let mut rules: Vec<Value> = Vec::new();
    for wish in &rule.cluster_role_selectors {
        let matching = sources.iter().filter(|source| {
            source.metadata.name() != role.metadata.name() && selector::matches(wish, &source.metadata)
        });
        for rule in matching.flat_map(|source| source.rules.as_array().into_iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    let current = role.rules.as_array().cloned().unwrap_or_default();
    (current != rules).then_some(Value::Array(rules))
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let roles: Arc<Informer<ClusterRole>> = context.informer();
    let queue = WorkQueue::<Key>::default();
    let (add, known) = (queue.clone(), roles.clone());
    // Any role may be a source: all aggregated ones are looked at, of which there are few.
    roles.on_change(move |_| {
        for role in known.list().iter().filter(|role| role.aggregation_rule.is_some()) {
            add.add(role.metadata.key());
        }
    });
    let client = context.client.clone();
    Box::pin(run_workers(NAME, queue, 5, context.shutdown.clone(), move |key: Key| {
        let rules = roles.get(&key).and_then(|role| plan(&role, &roles.list()));
        let client = client.clone();
        async move {
            let Some(rules) = rules else { return Ok(Next::Done) };
            // Server-side apply, so that the role's other fields stay their owner's.
            let body = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": &*key}, "rules": rules});
            let path = format!(
                "{}?fieldManager={FIELD_MANAGER}&force=true",
                CLUSTER_ROLES.object_path("", &key, "")
            );
            match rest::send::<IgnoredAny>(&client, "PATCH", &path, "application/apply-patch+yaml", &body)
                .await
            {
                Err(error) if matches!(rest::code(&error), Some(415 | 501)) => {
                    let patch = json!({"rules": rules});
                    rest::patch::<IgnoredAny>(
                        &client,
                        &CLUSTER_ROLES,
                        "",
                        &key,
                        "",
                        rest::PatchType::Merge,
                        &patch,
                    )
                    .await?;
                }
                Err(error) if rest::is_not_found(&error) => {}
                other => drop(other?),
            }
            Ok::<_, kube::Error>(Next::Done)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_joined_in_order_of_names_without_repetition() {
        let role = |name: &str, label: &str, rules: Value| -> Arc<ClusterRole> {
            let value = json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules});
            Arc::new(serde_json::from_value(value).expect("a role"))
        };
        let target = |rules: Value| -> ClusterRole {
            serde_json::from_value(json!({"metadata": {"name": "all"}, "rules": rules,
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "all"}}]}}))
            .expect("a role")
        };
        let (pods, nodes) = (json!({"resources": ["pods"]}), json!({"resources": ["nodes"]}));
        let all = [
            role("b", "all", json!([pods, nodes])),
            role("a", "all", json!([nodes])),
            role("c", "other", json!([{"resources": ["secrets"]}])),
        ];
        let want = json!([nodes, pods]);
        assert_eq!(plan(&target(json!([])), &all), Some(want.clone()));
        assert_eq!(plan(&target(want), &all), None, "already so");
        assert_eq!(plan(&all[0], &all), None, "not an aggregated role");
    }
}
