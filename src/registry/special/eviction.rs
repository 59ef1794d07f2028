//! `pods/eviction`: deletes a pod if its disruption budget allows.
//!
//! upstream: pkg/registry/core/pod/storage/eviction.go

use copepod_meta::selector::LabelSelector;
use copepod_meta::{Cause, GroupResource, Map, Reason, Status, Value};
use copepod_store::cache::ReadAt;

use super::{Answered, Ask, Special, admit_create, pod, success, validate_create};
use crate::api::{Answer, Body, Content, DeleteOptions, WriteOptions};
use crate::collection::now;
use crate::metadata::{ensure_namespace, is_deleting, wipe_system_fields};
use crate::options::WriteKind;
use crate::write::Update;

/// upstream: EvictionsRetry.Steps
const TRIES_MAX: usize = 20;
/// upstream: MaxDisruptedPodSize
const DISRUPTED_PODS_MAX: usize = 2000;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const BUDGET_CAUSE: &str = "DisruptionBudget";

pub(super) struct Eviction;

impl Special for Eviction {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(evict(ask, body, options))
    }
}

fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

fn budgets() -> GroupResource {
    GroupResource::new("policy", "poddisruptionbudgets")
}

async fn evict(ask: Ask<'_>, body: Body, options: &WriteOptions) -> Result<Answer, Status> {
    let mut eviction = ask.decode(&body, options)?;
    wipe_system_fields(&mut eviction);
    ensure_namespace(&mut eviction, &ask.target.namespace)?;
    let collection = ask.registry.collection(&pods())?;
    let call = ask.call(&collection, options, WriteKind::Create)?;
    admit_create(&call, &mut eviction).await?;
    if eviction.str_at(&["metadata", "name"]) != ask.target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let asked = delete_options(&eviction, options)?;
    validate_create(&call, &mut eviction).await?;
    for _ in 0..TRIES_MAX {
        match evict_once(ask, &asked).await {
            // The pod or its budget changed meanwhile.
            Err(status)
                if status.reason == Reason::Conflict && asked.preconditions.resource_version.is_none() => {}
            done => return done.map(|()| Answer::created(Content::Status(success()))),
        }
    }
    Err(Status::timeout("couldn't evict the pod due to conflicts", 10))
}

/// upstream: propagateDryRun
fn delete_options(eviction: &Value, options: &WriteOptions) -> Result<DeleteOptions, Status> {
    let mut asked = DeleteOptions::from_value(eviction.get("deleteOptions"));
    if asked.dry_run.is_empty() {
        asked.dry_run.clone_from(&options.dry_run);
    } else if !options.dry_run.is_empty() && asked.dry_run != options.dry_run {
        let why = format!(
            "Non-matching dry-run options in request and content: [{}] and [{}]",
            options.dry_run.join(" "),
            asked.dry_run.join(" ")
        );
        return Err(Status::new(500, Reason::Unknown, why));
    }
    Ok(asked)
}

async fn evict_once(ask: Ask<'_>, asked: &DeleteOptions) -> Result<(), Status> {
    let (namespace, name) = (ask.target.namespace.as_str(), ask.target.name.as_str());
    let found = ask.registry.read_hub(&pods(), namespace, name).await?;
    let pod = found.ok_or_else(|| Status::not_found(&pods(), name))?.object;
    let phase = pod.str_at(&["status", "phase"]);
    let is_over = matches!(phase, "Succeeded" | "Failed") || is_deleting(&pod);
    let at_this_revision = |options: &mut DeleteOptions| {
        let revision = pod.str_at(&["metadata", "resourceVersion"]).to_string();
        options.preconditions.resource_version.get_or_insert(revision);
    };
    let mut options = asked.clone();
    if is_over || phase == "Pending" {
        if !is_over {
            at_this_revision(&mut options);
        }
        return remove(ask, &options).await;
    }
    let mut guarded = None;
    for budget in ask.registry.list_hub(&budgets(), namespace, ReadAt::Latest).await? {
        let Ok(selector) = LabelSelector::from_value(budget.object.at(&["spec", "selector"])) else {
            continue;
        };
        if selector.matches_map(pod.map_at(&["metadata", "labels"]))
            && guarded.replace(budget.object).is_some()
        {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(500, Reason::Unknown, why));
        }
    }
    let Some(budget) = guarded else { return remove(ask, &options).await };
    if !pod::is_ready(&pod) && is_free_to_go(&budget) {
        at_this_revision(&mut options);
        let name = budget.str_at(&["metadata", "name"]);
        return match remove(ask, &options).await {
            Err(status)
                if status.reason == Reason::Conflict && asked.preconditions.resource_version.is_none() =>
            {
                Err(too_many(
                    format!("The disruption budget {name} is still being processed by the server."),
                    10,
                ))
            }
            done => done,
        };
    }
    spend(ask, &budget, asked.is_dry_run()).await?;
    remove(ask, &options).await
}

/// Whether a pod that is not ready goes without being counted.
fn is_free_to_go(budget: &Value) -> bool {
    let number = |member| budget.int_at(&["status", member]);
    budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
        || (number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0)
}

fn too_many(message: String, retry_after_seconds: u32) -> Status {
    let mut status = Status::too_many_requests(VIOLATES, retry_after_seconds);
    let cause = Cause { reason: BUDGET_CAUSE.into(), message, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

/// upstream: checkAndDecrement
fn check(budget: &Value) -> Result<(), Status> {
    let number = |member| budget.int_at(&["status", member]);
    let name = budget.str_at(&["metadata", "name"]);
    if number("observedGeneration") < budget.int_at(&["metadata", "generation"]) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(why, 10));
    }
    let resource = GroupResource::new("policy", "poddisruptionbudget");
    if number("disruptionsAllowed") < 0 {
        return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    if budget.map_at(&["status", "disruptedPods"]).len() > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&resource, name, why));
    }
    if number("disruptionsAllowed") > 0 {
        return Ok(());
    }
    let mut conditions = budget.list_at(&["status", "conditions"]).iter();
    let refusing = conditions.find(|c| {
        c.str_at(&["type"]) == "DisruptionAllowed"
            && c.str_at(&["status"]) == "False"
            && !c.str_at(&["message"]).is_empty()
    });
    let why = match refusing {
        Some(c) if c.str_at(&["reason"]) == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            c.str_at(&["message"])
        ),
        _ if number("currentHealthy") <= number("desiredHealthy") => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        ),
        Some(c) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            c.str_at(&["reason"]),
            c.str_at(&["message"])
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    };
    Err(too_many(why, 0))
}

/// Takes one disruption off the budget and notes for whom.
async fn spend(ask: Ask<'_>, budget: &Value, dry_run: bool) -> Result<(), Status> {
    check(budget)?;
    if dry_run {
        return Ok(());
    }
    let text = |member| budget.str_at(&["metadata", member]);
    let target = ask.registry.own_target(&budgets(), text("namespace"), text("name"), "status")?;
    let change = |old: Option<&Value>| {
        let mut budget = old.cloned().unwrap_or_default();
        check(&budget)?;
        let left = budget.int_at(&["status", "disruptionsAllowed"]) - 1;
        budget.set(&["status", "disruptionsAllowed"], left);
        if left == 0 {
            let condition = Map::from_iter([
                ("type", "DisruptionAllowed"),
                ("status", "False"),
                ("reason", "InsufficientPods"),
                ("message", ""),
            ]);
            let generation = budget.int_at(&["metadata", "generation"]);
            pod::set_condition(&mut budget, condition, &now());
            note_generation(&mut budget, generation);
        }
        budget.make(&["status", "disruptedPods"]).make_map().insert(ask.target.name.as_str(), now());
        Ok(budget)
    };
    let update = Update { change: &change, uid: None, revision: None, force_create: false };
    ask.registry.update_own(&target, &update).await.map(drop)
}

fn note_generation(budget: &mut Value, generation: i64) {
    let conditions = budget.at_mut(&["status", "conditions"]).and_then(Value::as_list_mut);
    for condition in conditions.into_iter().flatten() {
        if condition.str_at(&["type"]) == "DisruptionAllowed" {
            condition.set(&["observedGeneration"], generation);
        }
    }
}

/// Marks the pod as disrupted, then deletes it. upstream: addConditionAndDeletePod
async fn remove(ask: Ask<'_>, options: &DeleteOptions) -> Result<(), Status> {
    let mut options = options.clone();
    let target = ask.registry.own_target(&pods(), &ask.target.namespace, &ask.target.name, "status")?;
    if !options.is_dry_run() {
        let change = |old: Option<&Value>| {
            let mut pod = old.cloned().unwrap_or_default();
            let condition = Map::from_iter([
                ("type", "DisruptionTarget"),
                ("status", "True"),
                ("reason", "EvictionByEvictionAPI"),
                ("message", "Eviction API: evicting"),
            ]);
            pod::set_condition(&mut pod, condition, &now());
            Ok(pod)
        };
        let update = Update {
            change: &change,
            uid: options.preconditions.uid.as_deref(),
            revision: options.preconditions.resource_version.as_deref(),
            force_create: false,
        };
        let marked = ask.registry.update_own(&target, &update).await?;
        if let Some(revision) = &mut options.preconditions.resource_version {
            *revision = marked.revision().to_string();
        }
    }
    let target = ask.registry.own_target(&pods(), &ask.target.namespace, &ask.target.name, "")?;
    // The eviction was admitted; the deletion is its consequence.
    let collection = ask.registry.collection(&pods())?;
    let dry_run = options.is_dry_run();
    let mut call = crate::call::Call::special(
        ask.registry,
        ask.caller,
        &target,
        &collection,
        options.to_value(),
        dry_run,
    );
    call.internal = true;
    call.delete(&options, &ask.target.name).await.map(drop)
}
