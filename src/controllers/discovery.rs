//! What the server serves: for controllers that deal with every kind.

use std::borrow::Cow;

use copepod_client::Client;
use copepod_client::rest::ResourceType;

/// A resource and what can be done with it.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// Where it is.
    pub resource: ResourceType,
    /// Kind of its objects.
    pub kind: String,
    /// Verbs.
    pub verbs: Vec<String>,
}

impl Discovered {
    /// Whether all of these can be done.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|known| known == verb))
    }
}

/// All resources, each in its group's preferred version, and the group-versions whose server did not answer.
pub async fn preferred(client: &Client) -> Result<(Vec<Discovered>, Vec<String>), kube::Error> {
    let mut found: Vec<Discovered> = Vec::new();
    let mut stale = Vec::new();
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    for group in core.items.into_iter().chain(groups.items) {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        let first_of_group = found.len();
        for version in group.versions {
            let version_name = version.version.unwrap_or_default();
            if version.freshness.as_deref() == Some("Stale") {
                stale.push(format!("{name}/{version_name}"));
            }
            for resource in version.resources {
                let plural = resource.resource.unwrap_or_default();
                // Versions come in the order of preference: the first one that has a resource counts.
                if found[first_of_group..].iter().any(|known| known.resource.plural == plural) {
                    continue;
                }
                found.push(Discovered {
                    resource: ResourceType {
                        group: Cow::Owned(name.clone()),
                        version: Cow::Owned(version_name.clone()),
                        plural: Cow::Owned(plural),
                        namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    },
                    kind: resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default(),
                    verbs: resource.verbs,
                });
            }
        }
    }
    Ok((found, stale))
}
