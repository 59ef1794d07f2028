//! Files of a volume that lie on or below each other. upstream: pkg/api/pod/warnings.go warningsForOverlappingVirtualPaths

use copepod_meta::Value;
use copepod_meta::field::quote;

#[derive(Clone, PartialEq)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn text(&self) -> String {
        match self.source.as_str() {
            "" => quote(&self.path),
            source => format!("{} ({source})", quote(&self.path)),
        }
    }
}

/// Warns of each pair.
pub fn warnings(spec: &Value, out: &mut Vec<String>) {
    for volume in spec.list_at(&["volumes"]) {
        let name = quote(volume.str_at(&["name"]));
        for (source, member, described) in [
            ("configMap", "name", "ConfigMap"),
            ("secret", "secretName", "Secret"),
            ("downwardAPI", "", "DownwardAPI"),
        ] {
            let at = volume.get(source);
            if at.is_null() {
                continue;
            }
            let described = match member {
                "" => described.to_string(),
                member => format!("{described} {}", quote(at.str_at(&[member]))),
            };
            let mut seen = Vec::new();
            for file in files(at, "") {
                collide(&mut seen, file, &name, &described, out);
            }
        }
        let mut seen = Vec::new();
        for source in volume.list_at(&["projected", "sources"]) {
            if source.map_at(&[]).iter().all(|(_, v)| v.is_null()) {
                out.push(format!("volume {name} (Projected) has no sources provided"));
            }
            for file in projected(source) {
                collide(&mut seen, file, &name, "Projected", out);
            }
        }
    }
}

fn collide(seen: &mut Vec<File>, mut file: File, volume: &str, described: &str, out: &mut Vec<String>) {
    file.path.truncate(file.path.trim_end_matches('/').len());
    let below = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
    for other in seen.iter().filter(|o| !o.path.is_empty() && !file.path.is_empty()) {
        if below(&other.path, &file.path) || below(&file.path, &other.path) {
            let pair = format!("{} with {}", file.text(), other.text());
            out.push(format!("volume {volume} ({described}): overlapping paths: {pair}"));
        }
    }
    seen.push(file);
}

fn files(at: &Value, source: &str) -> Vec<File> {
    let items = at.list_at(&["items"]).iter();
    items.map(|i| File { path: i.str_at(&["path"]).into(), source: source.into() }).collect()
}

fn projected(source: &Value) -> Vec<File> {
    let one = |path: &str, source: String| File { path: path.into(), source };
    for (member, described) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        let at = source.get(member);
        if !at.list_at(&["items"]).is_empty() {
            return files(at, &format!("{described} {}", quote(at.str_at(&["name"]))));
        }
    }
    if !source.list_at(&["downwardAPI", "items"]).is_empty() {
        return files(source.get("downwardAPI"), "DownwardAPI");
    }
    let token = source.get("serviceAccountToken");
    if !token.is_null() {
        return vec![one(token.str_at(&["path"]), "ServiceAccountToken".into())];
    }
    let bundle = source.get("clusterTrustBundle");
    if !bundle.is_null() {
        let name = match bundle.get("name").as_str() {
            Some(name) => name,
            None => bundle.str_at(&["signerName"]),
        };
        return vec![one(bundle.str_at(&["path"]), format!("ClusterTrustBundle {}", quote(name)))];
    }
    let certificate = source.get("podCertificate");
    [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")]
        .into_iter()
        .map(|(member, what)| one(certificate.str_at(&[member]), format!("PodCertificate {what}")))
        .filter(|file| !file.path.is_empty())
        .collect()
}
