//! The files of volumes made of content: configMap, secret, downwardAPI, projected.
//!
//! upstream: pkg/volume/{configmap,secret,downwardapi,projected}

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::{
    VolumeError,
    atomic::{File, Files},
    ownership,
};
use crate::{
    container::downward::{self, NodeFacts},
    context::Context,
    pod::model::{names, spec, uid},
};

/// Mode of files whose volume names none.
const DEFAULT_MODE: i32 = 0o644;

/// What a volume is to contain.
#[derive(Debug, Default)]
pub struct Content {
    /// Its files.
    pub files: Files,
    /// Those of them that are tokens.
    pub tokens: Vec<String>,
    /// When the first token has to be renewed.
    pub refresh_at: Option<Timestamp>,
}

/// Collects a volume's files, fetching the objects it draws on.
pub async fn collect(
    context: &Context,
    pod: &Pod,
    volume: &Volume,
    pod_ips: &[String],
) -> Result<Content, VolumeError> {
    let facts = context.facts(pod_ips);
    let mut content = Content::default();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let map = config_map(context, pod, &source.name, source.optional).await?;
        content.files = config_map_files(map.as_deref(), source.items.as_deref(), mode, source.optional)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = secret(context, pod, name, source.optional).await?;
        content.files = secret_files(secret.as_deref(), source.items.as_deref(), mode, source.optional)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        content.files = downward_files(pod, source.items.as_deref().unwrap_or_default(), mode, &facts)?;
    } else if let Some(source) = &volume.projected {
        projected(context, pod, source, &facts, &mut content).await?;
    }
    Ok(content)
}

async fn projected(
    context: &Context,
    pod: &Pod,
    source: &ProjectedVolumeSource,
    facts: &NodeFacts,
    content: &mut Content,
) -> Result<(), VolumeError> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let parts = source.sources.iter().flatten().map(|part| projected_part(context, pod, part, mode, facts));
    // Asked for at once, merged in order: a later part wins.
    for part in futures::future::join_all(parts).await {
        let part = part?;
        content.files.extend(part.files);
        content.tokens.extend(part.tokens);
        content.refresh_at = match (content.refresh_at, part.refresh_at) {
            (Some(left), Some(right)) => Some(left.min(right)),
            (left, right) => left.or(right),
        };
    }
    Ok(())
}

async fn projected_part(
    context: &Context,
    pod: &Pod,
    part: &VolumeProjection,
    mode: i32,
    facts: &NodeFacts,
) -> Result<Content, VolumeError> {
    let files = if let Some(part) = &part.config_map {
        let map = config_map(context, pod, &part.name, part.optional).await?;
        config_map_files(map.as_deref(), part.items.as_deref(), mode, part.optional)?
    } else if let Some(part) = &part.secret {
        let secret = secret(context, pod, &part.name, part.optional).await?;
        secret_files(secret.as_deref(), part.items.as_deref(), mode, part.optional)?
    } else if let Some(part) = &part.downward_api {
        downward_files(pod, part.items.as_deref().unwrap_or_default(), mode, facts)?
    } else if let Some(part) = &part.service_account_token {
        return token(context, pod, part, mode).await;
    } else {
        return Err(VolumeError::Unsupported("projected source".into()));
    };
    Ok(Content { files, ..Content::default() })
}

async fn token(
    context: &Context,
    pod: &Pod,
    part: &ServiceAccountTokenProjection,
    mode: i32,
) -> Result<Content, VolumeError> {
    // A token belongs to its reader alone, unless nobody says who that is.
    let owned = ownership::fs_group(pod).is_some() || ownership::common_user(pod).is_some();
    let account = spec(pod).service_account_name.as_deref().unwrap_or("default");
    let audience = part.audience.as_deref().unwrap_or_default();
    let seconds = part.expiration_seconds.unwrap_or(3600);
    let got = context.tokens.get(&context.client, pod, account, audience, seconds).await;
    let token = got.map_err(VolumeError::Api)?;
    let file = File { data: token.token.into_bytes(), mode: if owned { 0o600 } else { unsigned(mode) } };
    Ok(Content {
        files: Files::from([(part.path.clone(), file)]),
        tokens: vec![part.path.clone()],
        refresh_at: Some(token.refresh_at),
    })
}

type Found<T> = Option<std::sync::Arc<T>>;

async fn config_map(
    context: &Context,
    pod: &Pod,
    name: &str,
    optional: Option<bool>,
) -> Result<Found<ConfigMap>, VolumeError> {
    let (namespace, _) = names(pod);
    let found = context.objects.config_map(uid(pod), namespace, name).await.map_err(VolumeError::Api)?;
    if found.is_none() && optional != Some(true) {
        return Err(VolumeError::Missing("configmap", name.into()));
    }
    Ok(found)
}

async fn secret(
    context: &Context,
    pod: &Pod,
    name: &str,
    optional: Option<bool>,
) -> Result<Found<Secret>, VolumeError> {
    let (namespace, _) = names(pod);
    let found = context.objects.secret(uid(pod), namespace, name).await.map_err(VolumeError::Api)?;
    if found.is_none() && optional != Some(true) {
        return Err(VolumeError::Missing("secret", name.into()));
    }
    Ok(found)
}

fn unsigned(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

/// All keys, or those the items name.
fn pick(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
    kind: &'static str,
) -> Result<Files, VolumeError> {
    let file = |data: &[u8], mode: i32| File { data: data.to_vec(), mode: unsigned(mode) };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.iter().map(|(key, data)| ((*key).to_owned(), file(data, mode))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(data) => {
                files.insert(item.path.clone(), file(data, item.mode.unwrap_or(mode)));
            }
            None if optional == Some(true) => {}
            None => return Err(VolumeError::Key { kind, key: item.key.clone() }),
        }
    }
    Ok(files)
}

fn config_map_files(
    map: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
) -> Result<Files, VolumeError> {
    let Some(map) = map else { return Ok(Files::new()) };
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    pick(&text.chain(binary).collect(), items, mode, optional, "config")
}

fn secret_files(
    secret: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
) -> Result<Files, VolumeError> {
    let Some(secret) = secret else { return Ok(Files::new()) };
    let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    pick(&data.collect(), items, mode, optional, "secret")
}

fn downward_files(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    facts: &NodeFacts,
) -> Result<Files, VolumeError> {
    let mut files = Files::new();
    for item in items {
        let value = if let Some(selector) = &item.field_ref {
            downward::field(selector, pod, facts)?
        } else if let Some(selector) = &item.resource_field_ref {
            downward::resource(selector, pod, None, facts)?
        } else {
            continue;
        };
        let file = File { data: value.into_bytes(), mode: unsigned(item.mode.unwrap_or(mode)) };
        files.insert(item.path.clone(), file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_files() {
        let map: ConfigMap = serde_json::from_value(serde_json::json!({
            "data": {"a": "1", "b": "2"}, "binaryData": {"c": "Aw=="}
        }))
        .expect("a map");
        let items =
            |json: serde_json::Value| -> Vec<KeyToPath> { serde_json::from_value(json).expect("items") };
        let show = |files: Files| {
            files.iter().map(|(path, file)| format!("{path}:{:o}", file.mode)).collect::<Vec<_>>().join(" ")
        };
        let all = config_map_files(Some(&map), None, 0o644, None).expect("files");
        assert_eq!(all["c"].data, [3]);
        assert_eq!(show(all), "a:644 b:644 c:644");
        let some =
            items(serde_json::json!([{"key": "a", "path": "x/a", "mode": 256}, {"key": "b", "path": "b"}]));
        assert_eq!(
            show(config_map_files(Some(&map), Some(&some), 0o644, None).expect("files")),
            "b:644 x/a:400"
        );
        let none = items(serde_json::json!([{"key": "no", "path": "p"}]));
        let error = config_map_files(Some(&map), Some(&none), 0o644, None).expect_err("no such key");
        assert_eq!(error.to_string(), "references non-existent config key: no");
        assert!(config_map_files(Some(&map), Some(&none), 0o644, Some(true)).expect("optional").is_empty());
    }
}
