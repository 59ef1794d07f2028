//! Verbs through `Api`, discovery, server-side apply, events.

use crate::{Case, Place, case};
use anyhow::{Context as _, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplate};
use k8s_openapi::api::events::v1::Event as StoredEvent;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::{Api, Resource as _, ResourceExt};
use serde_json::json;
use std::sync::Arc;

pub(crate) const CASES: &[Case] = &[
    case("create, get, replace, delete", |p| verbs(p).boxed()),
    case("errors have upstream's reasons", |p| errors(p).boxed()),
    case("pages of a list", |p| pages(p).boxed()),
    case("patches: merge, strategic, JSON", |p| patches(p).boxed()),
    case("server-side apply", |p| apply(p).boxed()),
    case("entry: and_modify, or_insert, commit", |p| entry(p).boxed()),
    case("discovery and dynamic objects", |p| discovery(p).boxed()),
    case("metadata only", |p| metadata(p).boxed()),
    case("an event recorder", |p| events(p).boxed()),
    case("a finalizer", |p| finalizers(p).boxed()),
];

async fn verbs(p: Place) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = p.api();
    let mut made = p.config_map("a").await?;
    ensure!(made.uid().is_some() && made.resource_version().is_some(), "{made:?}");
    ensure!(maps.get("a").await? == made, "get shows something else than create");
    ensure!(maps.get_opt("b").await?.is_none(), "b is there");
    made.data = Some([("k".to_string(), "v".to_string())].into());
    let replaced = maps.replace("a", &PostParams::default(), &made).await?;
    ensure!(
        replaced.resource_version() != made.resource_version() && replaced.data == made.data,
        "{replaced:?}"
    );
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let other = serde_json::from_value(json!({"metadata": {"name": "dry"}}))?;
    maps.create(&dry, &other).await?;
    ensure!(maps.get_opt("dry").await?.is_none(), "a dry run left something");
    for name in ["x", "y"] {
        p.config_map(name).await?;
    }
    let labelled = ListParams::default().labels("app=conformance").fields("metadata.name!=x");
    let names: Vec<String> = maps.list(&labelled).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(names == ["a", "y"], "{names:?}");
    // A status for what is gone at once, the object for what is yet to go.
    let gone = maps.delete("a", &DeleteParams::default()).await?;
    ensure!(gone.right().is_some_and(|status| status.is_success()), "delete answered no status");
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=conformance"))
        .await?;
    ensure!(maps.list(&ListParams::default().labels("app")).await?.items.is_empty(), "not all were deleted");
    Ok(())
}

/// What the API refused the request with: code, reason, message.
fn refusal<T>(result: kube::Result<T>) -> anyhow::Result<(u16, String, String)> {
    match result {
        Err(kube::Error::Api(status)) => Ok((status.code, status.reason.clone(), status.message.clone())),
        Err(error) => Err(error).context("no answer of the API"),
        Ok(_) => anyhow::bail!("it was not refused"),
    }
}

async fn errors(p: Place) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = p.api();
    let stale = p.config_map("a").await?;
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v"}}))).await?;
    let nonsense: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "A_B"}}))?;
    let wrong_uid = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("other".into()), ..Preconditions::default() }),
        ..DeleteParams::default()
    };
    for (got, code, reason, message) in [
        (refusal(maps.get("b").await)?, 404, "NotFound", "configmaps \"b\" not found"),
        (
            refusal(
                maps.create(
                    &PostParams::default(),
                    &ConfigMap { metadata: named("a"), ..ConfigMap::default() },
                )
                .await,
            )?,
            409,
            "AlreadyExists",
            "configmaps \"a\" already exists",
        ),
        (
            refusal(maps.replace("a", &PostParams::default(), &stale).await)?,
            409,
            "Conflict",
            "the object has been modified",
        ),
        (
            refusal(maps.create(&PostParams::default(), &nonsense).await)?,
            422,
            "Invalid",
            "ConfigMap \"A_B\" is invalid",
        ),
        (
            refusal(maps.delete("a", &wrong_uid).await)?,
            409,
            "Conflict",
            "the UID in the precondition (other) does not match",
        ),
        (
            refusal(maps.list(&ListParams::default().fields("data=x")).await)?,
            400,
            "BadRequest",
            "\"data\" is not a known field selector",
        ),
    ] {
        ensure!(
            got.0 == code && got.1 == reason && got.2.contains(message),
            "wanted {code} {reason} {message}: {got:?}"
        );
    }
    Ok(())
}

fn named(name: &str) -> kube::core::ObjectMeta {
    kube::core::ObjectMeta { name: Some(name.into()), ..kube::core::ObjectMeta::default() }
}

async fn pages(p: Place) -> anyhow::Result<()> {
    for i in 0..12 {
        p.config_map(&format!("m{i:02}")).await?;
    }
    let maps: Api<ConfigMap> = p.api();
    let (mut names, mut params) = (Vec::new(), ListParams::default().limit(5).labels("app=conformance"));
    let mut version = None;
    loop {
        let page = maps.list(&params).await?;
        ensure!(page.items.len() <= 5, "{} in a page", page.items.len());
        ensure!(version.is_none() || version == page.metadata.resource_version, "pages of several states");
        version.clone_from(&page.metadata.resource_version);
        names.extend(page.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    let all: Vec<String> = (0..12).map(|i| format!("m{i:02}")).collect();
    ensure!(names == all, "{names:?}");
    let wrong = refusal(maps.list(&ListParams::default().limit(5).continue_token("nonsense")).await)?;
    ensure!(wrong.0 == 400 && wrong.2.contains("continue key is not valid"), "{wrong:?}");
    Ok(())
}

fn containers(template: &PodTemplate) -> Vec<(&str, Option<&str>)> {
    let spec = template.template.as_ref().and_then(|t| t.spec.as_ref());
    spec.map(|s| s.containers.iter().map(|c| (c.name.as_str(), c.image.as_deref())).collect())
        .unwrap_or_default()
}

async fn patches(p: Place) -> anyhow::Result<()> {
    let templates: Api<PodTemplate> = p.api();
    let template = serde_json::from_value(json!({"metadata": {"name": "t"},
        "template": {"spec": {"containers": [{"name": "one", "image": "x"}, {"name": "two", "image": "y"}]}}}))?;
    templates.create(&PostParams::default(), &template).await?;
    let params = PatchParams::default();
    let strategic = json!({"template": {"spec": {"containers": [{"name": "two", "image": "z"}]}}});
    let got = templates.patch("t", &params, &Patch::Strategic(strategic)).await?;
    ensure!(
        containers(&got) == [("two", Some("z")), ("one", Some("x"))]
            || containers(&got) == [("one", Some("x")), ("two", Some("z"))],
        "{got:?}"
    );
    let merge = json!({"template": {"spec": {"containers": [{"name": "three", "image": "x"}]}}});
    let got = templates.patch("t", &params, &Patch::Merge(merge)).await?;
    ensure!(containers(&got) == [("three", Some("x"))], "{got:?}");
    let metadata = json!({"metadata": {"labels": {"l": "m"}}});
    let got = templates.patch_metadata("t", &params, &Patch::Merge(metadata)).await?;
    ensure!(got.labels().get("l").is_some_and(|v| v == "m"), "{got:?}");
    Ok(())
}

async fn apply(p: Place) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = p.api();
    let map = |data: serde_json::Value| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": data}),
        )
    };
    let first = maps.patch("s", &PatchParams::apply("first"), &map(json!({"k": "1", "l": "1"}))).await?;
    let fields = first.managed_fields();
    ensure!(
        fields.len() == 1
            && fields[0].manager.as_deref() == Some("first")
            && fields[0].operation.as_deref() == Some("Apply"),
        "{fields:?}"
    );
    let conflict = refusal(maps.patch("s", &PatchParams::apply("second"), &map(json!({"k": "2"}))).await)?;
    ensure!(conflict.0 == 409 && conflict.2.contains("conflict with \"first\": .data.k"), "{conflict:?}");
    let forced = maps.patch("s", &PatchParams::apply("second").force(), &map(json!({"k": "2"}))).await?;
    ensure!(forced.data == Some([("k".into(), "2".into()), ("l".into(), "1".into())].into()), "{forced:?}");
    let left = maps.patch("s", &PatchParams::apply("first"), &map(json!({}))).await?;
    ensure!(left.data == Some([("k".into(), "2".into())].into()), "{left:?}");
    let again = maps.patch("s", &PatchParams::apply("first"), &map(json!({}))).await?;
    ensure!(again.resource_version() == left.resource_version(), "an apply without a change was written");
    Ok(())
}

async fn entry(p: Place) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = p.api();
    for round in ["1", "2"] {
        let mut entry =
            maps.entry("e").await?.or_insert(|| ConfigMap { metadata: named("e"), ..ConfigMap::default() });
        entry.get_mut().data = Some([("round".to_string(), round.to_string())].into());
        entry.commit(&PostParams::default()).await?;
    }
    let data = maps.get("e").await?.data.unwrap_or_default();
    ensure!(data.get("round").is_some_and(|r| r == "2"), "{data:?}");
    Ok(())
}

async fn discovery(p: Place) -> anyhow::Result<()> {
    let found = kube::Discovery::new(p.client.clone()).run_aggregated().await?;
    let old = kube::Discovery::new(p.client.clone()).run().await?;
    ensure!(old.groups().count() == found.groups().count(), "the two forms of discovery differ");
    let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, capabilities) = found.resolve_gvk(&kind).context("no Deployment")?;
    ensure!(resource.plural == "deployments" && capabilities.supports_operation("watch"), "{resource:?}");
    ensure!(
        capabilities.subresources.iter().any(|(r, _)| r.plural == "scale"),
        "{:?}",
        capabilities.subresources
    );
    let deployments: Api<DynamicObject> = Api::namespaced_with(p.client.clone(), &p.namespace, &resource);
    let object = DynamicObject::new("d", &resource).data(json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}}));
    let made = deployments.create(&PostParams::default(), &object).await?;
    ensure!(made.data["spec"]["strategy"]["type"] == "RollingUpdate", "{:?}", made.data);
    let scale = deployments.get_scale("d").await?;
    // Zero is left out on the wire.
    let replicas = scale.spec.and_then(|s| s.replicas).unwrap_or_default();
    ensure!(
        replicas == 0 && scale.status.is_some_and(|s| s.selector.as_deref() == Some("a=b")),
        "{replicas}"
    );
    let version = p.client.apiserver_version().await?;
    ensure!(version.major == "1" && version.minor == "36", "{version:?}");
    Ok(())
}

async fn metadata(p: Place) -> anyhow::Result<()> {
    let made = p.config_map("a").await?;
    let maps: Api<ConfigMap> = p.api();
    let got = maps.get_metadata("a").await?;
    ensure!(
        got.uid() == made.uid() && got.types.as_ref().is_some_and(|t| t.kind == "PartialObjectMetadata"),
        "{got:?}"
    );
    let list = maps.list_metadata(&ListParams::default().labels("app=conformance")).await?;
    ensure!(list.items.len() == 1 && list.types.kind == "PartialObjectMetadataList", "{list:?}");
    Ok(())
}

async fn events(p: Place) -> anyhow::Result<()> {
    let subject = p.config_map("subject").await?;
    let recorder = Recorder::new(
        p.client.clone(),
        Reporter { controller: "conformance".into(), instance: Some("one".into()) },
    );
    let event = Event {
        type_: EventType::Normal,
        reason: "Tested".into(),
        note: Some("it was tested".into()),
        action: "Testing".into(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &subject.object_ref(&())).await?;
    }
    let stored = p.api::<StoredEvent>().list(&ListParams::default().fields("reason=Tested")).await?.items;
    ensure!(
        stored.len() == 1 && stored[0].regarding.as_ref().and_then(|r| r.uid.clone()) == subject.uid(),
        "{stored:?}"
    );
    ensure!(stored[0].series.as_ref().is_some_and(|s| s.count == 3), "{stored:?}");
    Ok(())
}

async fn finalizers(p: Place) -> anyhow::Result<()> {
    const NAME: &str = "conformance.copepod.dev/kube-rs";
    let maps: Api<ConfigMap> = p.api();
    let made = p.config_map("kept").await?;
    let nothing = |_: Finalizer<ConfigMap>| async {
        Ok::<_, std::io::Error>(kube::runtime::controller::Action::await_change())
    };
    finalizer(&maps, NAME, Arc::new(made), nothing).await?;
    let held = maps.get("kept").await?;
    ensure!(held.finalizers() == [NAME], "{held:?}");
    maps.delete("kept", &DeleteParams::default()).await?;
    let going = maps.get("kept").await?;
    ensure!(going.meta().deletion_timestamp.is_some(), "{going:?}");
    finalizer(&maps, NAME, Arc::new(going), nothing).await?;
    ensure!(maps.get_opt("kept").await?.is_none(), "it is still there");
    Ok(())
}
