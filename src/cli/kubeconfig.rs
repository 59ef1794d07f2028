//! The administrator's kubeconfig: printed, or merged into the user's own.

use crate::layout::Layout;
use crate::settings::Settings;
use anyhow::{Context as _, bail};
use copepod_pki::files::{self, Mode};
use copepod_pki::kubeconfig::Kubeconfig;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The kubeconfig of the holder of certificate `leaf`.
pub fn render(layout: &Layout, settings: &Settings, leaf: &str) -> anyhow::Result<String> {
    let read = |name: &str| -> anyhow::Result<String> {
        let path = layout.pki().join(name);
        files::read(&path)?.with_context(|| format!("{} is missing: run 'copepod up'", path.display()))
    };
    let (ca_pem, certificate_pem, key_pem) =
        (read("ca.crt")?, read(&format!("{leaf}.crt"))?, read(&format!("{leaf}.key"))?);
    let server = settings.server();
    let config = Kubeconfig {
        name: &settings.context,
        server: &server,
        ca_pem: &ca_pem,
        certificate_pem: &certificate_pem,
        key_pem: &key_pem,
    };
    Ok(config.to_yaml())
}

/// `copepod kubeconfig`
pub fn print(layout: &Layout) -> anyhow::Result<()> {
    print!("{}", render(layout, &Settings::load(layout)?, "admin")?);
    Ok(())
}

/// The file that kubectl would write to: the first of `KUBECONFIG`, otherwise `~/.kube/config`.
pub fn user_file() -> Option<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) {
        return std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty());
    }
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config"))
}

/// How to call kubectl for this cluster: by its context, if the user's kubeconfig has that with this cluster's server.
pub fn command(layout: &Layout, settings: &Settings) -> anyhow::Result<String> {
    match user_file() {
        Some(file) if has_context(settings, &file)? => Ok(format!("kubectl --context {}", settings.context)),
        _ => Ok(format!("kubectl --kubeconfig {}", layout.kubeconfig("admin").display())),
    }
}

/// Whether the file has the cluster's context, with this cluster's server.
fn has_context(settings: &Settings, file: &Path) -> anyhow::Result<bool> {
    let Some(text) = files::read(file)?.filter(|text| !text.trim().is_empty()) else { return Ok(false) };
    let config: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not a kubeconfig", file.display()))?;
    let ours = |entry: &Value| {
        entry["name"] == json!(settings.context) && entry["cluster"]["server"] == json!(settings.server())
    };
    Ok(config["clusters"].as_array().is_some_and(|clusters| clusters.iter().any(ours)))
}

/// Puts the cluster's context into the user's kubeconfig and makes it the current one if there was none.
pub fn merge(layout: &Layout, settings: &Settings, file: &Path) -> anyhow::Result<()> {
    let own: Value = serde_saphyr::from_str(&render(layout, settings, "admin")?)?;
    edit(file, |config| {
        for list in ["clusters", "contexts", "users"] {
            let entries = entries(config, list)?;
            entries.retain(|e| e["name"] != json!(settings.context));
            entries.extend(own[list].as_array().into_iter().flatten().cloned());
        }
        let none = config.get("current-context").and_then(Value::as_str).unwrap_or("").is_empty();
        if none {
            config.insert("current-context".into(), json!(settings.context));
        }
        Ok(())
    })
}

/// Takes the cluster's context out again. A context of that name that leads elsewhere is another cluster's and stays.
pub fn remove(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    if !has_context(settings, file)? {
        return Ok(());
    }
    edit(file, |config| {
        for list in ["clusters", "contexts", "users"] {
            entries(config, list)?.retain(|e| e["name"] != json!(settings.context));
        }
        if config.get("current-context") == Some(&json!(settings.context)) {
            config.insert("current-context".into(), json!(""));
        }
        Ok(())
    })
}

fn entries<'a>(config: &'a mut Map<String, Value>, list: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    let value = config.entry(list).or_insert_with(|| json!([]));
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().with_context(|| format!("'{list}' is not a list"))
}

fn edit(
    file: &Path,
    change: impl FnOnce(&mut Map<String, Value>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let shown = file.display();
    let text = files::read(file)?.unwrap_or_default();
    let mut config: Value = match text.trim() {
        "" => json!({ "apiVersion": "v1", "kind": "Config", "preferences": {} }),
        text => serde_saphyr::from_str(text).with_context(|| format!("{shown} is not a kubeconfig"))?,
    };
    let Some(map) = config.as_object_mut() else { bail!("{shown} is not a kubeconfig") };
    change(map).with_context(|| format!("{shown} is not a kubeconfig"))?;
    let rendered = serde_saphyr::to_string(&config)?;
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
    }
    Ok(files::write(file, rendered.as_bytes(), Mode::Private)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_comes_and_goes_and_others_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(dir.path().into());
        std::fs::create_dir(layout.pki()).expect("a folder");
        for name in ["ca.crt", "admin.crt", "admin.key"] {
            std::fs::write(layout.pki().join(name), "pem").expect("a file");
        }
        let settings = Settings::fresh(0, 0, "n".into(), [127, 0, 0, 1].into());
        let file = dir.path().join("kube/config");
        std::fs::create_dir(dir.path().join("kube")).expect("a folder");
        let other = "apiVersion: v1\nkind: Config\ncurrent-context: mine\nusers:\n- name: mine\n  user:\n    token: x\n    extra-field: kept\n";
        std::fs::write(&file, other).expect("a file");
        let names = |list: &str| {
            let text = std::fs::read_to_string(&file).expect("a file");
            let config: Value = serde_saphyr::from_str(&text).expect("YAML");
            let entries = config[list].as_array().cloned().unwrap_or_default();
            let names =
                entries.iter().map(|e| e["name"].as_str().unwrap_or("").to_string()).collect::<Vec<_>>();
            (names.join(","), text)
        };
        merge(&layout, &settings, &file).expect("merges");
        merge(&layout, &settings, &file).expect("merges again");
        let (users, text) = names("users");
        assert_eq!(users, "mine,copepod");
        assert!(text.contains("extra-field: kept") && text.contains("current-context: mine"), "{text}");
        assert!(text.contains("https://127.0.0.1:6443"), "{text}");
        let elsewhere = Settings { secure_port: 1, ..settings.clone() };
        remove(&elsewhere, &file).expect("another cluster of that name");
        assert_eq!(names("users").0, "mine,copepod");
        remove(&settings, &file).expect("removes");
        assert_eq!(names("users").0, "mine");
        assert_eq!(names("clusters").0, "");
    }
}
