//! Annotations that mean something to pods. upstream: validation.go ValidatePodSpecificAnnotations and its friends

use copepod_meta::pod_references::all_containers;
use copepod_meta::{ErrorList, Value};

use super::options::Options;
use super::spec::each_container;
use super::volumes::local_descending_path;
use crate::check::At;

/// Marks the mirror of a static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The cost of deleting a pod; an error if the annotation is no 32-bit integer in its plainest form.
/// upstream: pkg/apis/core/helper GetDeletionCostFromPodAnnotations
pub fn deletion_cost(annotations: &Value) -> Result<i32, ()> {
    let Some(text) = annotations.get(DELETION_COST).as_str() else { return Ok(0) };
    let first_digit = text.strip_prefix('-').unwrap_or(text);
    let plain = text == "0" || first_digit.starts_with(|c: char| ('1'..='9').contains(&c));
    if !plain {
        return Err(());
    }
    text.parse().map_err(|_| ())
}

/// upstream: ValidatePodSpecificAnnotations
pub fn validate(at: At, spec: &Value, opts: &Options, e: &mut ErrorList) {
    let mirror = at.key(MIRROR);
    if mirror.is_set() && spec.str_at(&["nodeName"]).is_empty() {
        mirror.invalid(e, "must set spec.nodeName if mirror pod annotation is set");
    }
    if !opts.invalid_deletion_cost && deletion_cost(at.value).is_err() {
        at.key(DELETION_COST).invalid(e, "must be a 32bit integer");
    }
    seccomp(at, e);
    app_armor(at, spec, e);
}

/// upstream: ValidateSeccompPodAnnotations
fn seccomp(at: At, e: &mut ErrorList) {
    let check = |key: &str, profile: &Value, e: &mut ErrorList| {
        let path = at.path.child(key);
        let at = At::new(profile, path);
        match at.str() {
            "runtime/default" | "docker/default" | "unconfined" => {}
            text => match text.strip_prefix("localhost/") {
                Some(rest) => local_descending_path(at.with(&rest.into()), e),
                None => at.invalid(e, "must be a valid seccomp profile"),
            },
        }
    };
    if let Some(profile) = at.map().get(SECCOMP_POD) {
        check(SECCOMP_POD, profile, e);
    }
    for (key, profile) in at.map().iter().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        check(key, profile, e);
    }
}

/// upstream: ValidateAppArmorPodAnnotations
fn app_armor(at: At, spec: &Value, e: &mut ErrorList) {
    for (key, profile) in at.entries() {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        if !all_containers(spec).any(|c| c.str_at(&["name"]) == container) {
            profile.invalid_str(e, container, "container not found");
        }
        let text = profile.str();
        if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with("localhost/") {
            let quoted = copepod_meta::field::quote(text);
            profile.invalid(e, format!("invalid AppArmor profile name: {quoted}"));
        }
    }
}

/// upstream: ValidatePodSpecificAnnotationUpdates
pub fn validate_update(at: At, old: &Value, spec: &Value, opts: &Options, e: &mut ErrorList) {
    for (key, was) in old.map_at(&[]).iter().filter(|(key, was)| at.value.get(key) != *was) {
        let _changed = was;
        if key.starts_with(APP_ARMOR) {
            at.key(key).forbidden(e, "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            at.key(key).forbidden(e, "may not remove or update mirror pod annotation");
        }
    }
    for (key, added) in at.entries().filter(|(key, _)| !old.map_at(&[]).contains_key(key)) {
        if key.starts_with(APP_ARMOR) {
            added.forbidden(e, "may not add AppArmor annotations");
        }
        if key == MIRROR {
            added.forbidden(e, "may not add mirror pod annotation");
        }
    }
    validate(at, spec, opts, e);
}

/// Annotations and fields must say the same at creation.
/// upstream: validateSeccompAnnotationsAndFields, validateAppArmorAnnotationsAndFieldsMatchOnCreate
pub fn match_fields(pod: &Value, spec: At, e: &mut ErrorList) {
    let annotations = pod.at(&["metadata", "annotations"]);
    let of_pod = spec.get("securityContext.seccompProfile");
    if let Some(annotation) = annotations.get(SECCOMP_POD).as_str() {
        seccomp_matches(of_pod, annotation, e);
    }
    each_container(spec, |container| {
        let key = format!("{SECCOMP_CONTAINER}{}", container.value.str_at(&["name"]));
        if let Some(annotation) = annotations.get(&key).as_str() {
            seccomp_matches(container.get("securityContext.seccompProfile"), annotation, e);
        }
    });
    if spec.value.str_at(&["os", "name"]) == "windows" {
        return;
    }
    let of_pod = spec.value.at(&["securityContext", "appArmorProfile"]);
    each_container(spec, |container| {
        let at = container.get("securityContext.appArmorProfile");
        let profile = if at.is_set() { at.value } else { of_pod };
        let key = format!("{APP_ARMOR}{}", container.value.str_at(&["name"]));
        if let Some(annotation) = annotations.get(&key).as_str() {
            app_armor_matches(at.with(profile), annotation, e);
        }
    });
}

fn seccomp_matches(at: At, annotation: &str, e: &mut ErrorList) {
    const TYPE: &str = "seccomp type in annotation and field must match";
    let local = annotation.strip_prefix("localhost/");
    let profile = at.get("localhostProfile");
    match at.get("type").str() {
        "Unconfined" if annotation != "unconfined" => at.get("type").forbidden(e, TYPE),
        "RuntimeDefault" if !matches!(annotation, "runtime/default" | "docker/default") => {
            at.get("type").forbidden(e, TYPE);
        }
        "Localhost" if local.is_none() => at.get("type").forbidden(e, TYPE),
        "Localhost" if local != profile.value.as_str() => {
            profile.forbidden(e, "seccomp profile in annotation and field must match");
        }
        _ => {}
    }
}

fn app_armor_matches(at: At, annotation: &str, e: &mut ErrorList) {
    const TYPE: &str = "apparmor type in annotation and field must match";
    let local = annotation.strip_prefix("localhost/");
    let profile = at.get("localhostProfile");
    match at.get("type").str() {
        "Unconfined" if annotation != "unconfined" => at.get("type").forbidden(e, TYPE),
        "RuntimeDefault" if annotation != "runtime/default" => at.get("type").forbidden(e, TYPE),
        "Localhost" if local.is_none() => at.get("type").forbidden(e, TYPE),
        "Localhost" if local != profile.value.as_str() => {
            profile.forbidden(e, "apparmor profile in annotation and field must match");
        }
        _ => {}
    }
}
