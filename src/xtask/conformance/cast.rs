//! Who plays which component: ours, upstream's, or nobody.

use anyhow::bail;
use std::collections::BTreeMap;

/// Who plays a component.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Player {
    /// Copepod.
    Ours,
    /// Kubernetes' own program.
    Upstream,
    /// The cluster goes without.
    Nobody,
}

/// Components and who plays them unless told otherwise. Copepod has no service proxy and no DNS yet.
const COMPONENTS: [(&str, Player); 6] = [
    ("apiserver", Player::Ours),
    ("controller-manager", Player::Ours),
    ("scheduler", Player::Ours),
    ("kubelet", Player::Ours),
    ("proxy", Player::Nobody),
    ("dns", Player::Nobody),
];

/// Who plays each component.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast(BTreeMap<&'static str, Player>);

/// Whether there is a component of this name.
pub fn is_component(name: &str) -> bool {
    COMPONENTS.iter().any(|(known, _)| *known == name)
}

/// Whether upstream plays this component where results of this name come from; see [`Cast::suite`].
pub fn upstream_plays(suite: &str, component: &str) -> bool {
    let swapped = suite.strip_prefix("upstream").unwrap_or("none");
    is_component(component)
        && (swapped.is_empty() || format!("{swapped}-").contains(&format!("-{component}-")))
}

impl Cast {
    /// All ours or all upstream's, but for the swaps: `kubelet=upstream`.
    pub fn new(upstream: bool, swaps: &[String]) -> anyhow::Result<Cast> {
        let all = |(name, ours)| (name, if upstream { Player::Upstream } else { ours });
        let mut cast = Cast(COMPONENTS.into_iter().map(all).collect());
        for swap in swaps {
            let (name, player) = swap.split_once('=').unwrap_or((swap, ""));
            let known = COMPONENTS.iter().find(|(known, _)| *known == name);
            let Some((known, ours)) = known else {
                let names = COMPONENTS.map(|(name, _)| name);
                bail!("--swap {swap}: no such component; there are {}", names.join(", "));
            };
            let player = match player {
                "ours" if *ours == Player::Nobody => bail!("--swap {swap}: Copepod has no {name} yet"),
                "ours" => Player::Ours,
                "upstream" => Player::Upstream,
                "none" if *ours == Player::Nobody => Player::Nobody,
                _ => bail!("--swap {swap}: it is 'ours' or 'upstream', and 'none' for proxy and dns"),
            };
            cast.0.insert(known, player);
        }
        Ok(cast)
    }

    /// Whether upstream plays this component.
    pub fn upstream(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Player::Upstream)
    }

    /// What `copepod up` leaves out.
    pub fn without(&self) -> Vec<&'static str> {
        let ours = COMPONENTS.iter().filter(|(_, ours)| *ours == Player::Ours);
        ours.map(|(name, _)| *name).filter(|name| self.upstream(name)).collect()
    }

    /// The name of its results.
    pub fn suite(&self) -> String {
        let swapped: Vec<&str> =
            COMPONENTS.iter().map(|(name, _)| *name).filter(|name| self.upstream(name)).collect();
        match swapped.len() {
            0 => super::OWN.into(),
            all if all == COMPONENTS.len() => "upstream".into(),
            _ => format!("upstream-{}", swapped.join("-")),
        }
    }
}
