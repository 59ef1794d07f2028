//! `--feature-gates`. upstream: component-base/featuregate/feature_gate.go
//!
//! The table of gates comes from `api/` and is handed in; here is only what a flag does to it.

use std::collections::BTreeMap;

use crate::flags::go_bool;

/// How mature a gate is; `AllAlpha` and `AllBeta` switch by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maturity {
    /// Off unless asked for.
    Alpha,
    /// Mostly on.
    Beta,
    /// Not switched by `AllAlpha` and `AllBeta`.
    Other,
}

/// A gate as upstream ships it.
#[derive(Clone, Debug)]
pub struct Gate {
    /// `SidecarContainers`
    pub name: String,
    /// Without a flag.
    pub default: bool,
    /// A flag may only confirm the default.
    pub locked: bool,
    /// For `AllAlpha` and `AllBeta`.
    pub maturity: Maturity,
}

/// Every gate and whether it is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    on: BTreeMap<String, bool>,
}

/// A flag that upstream would not take either; texts are upstream's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// No `=`.
    #[error("missing bool value for {0}")]
    MissingValue(String),
    /// Not a boolean.
    #[error("invalid value of {key}={value}, err: {why}")]
    InvalidValue {
        /// The gate.
        key: String,
        /// What was given.
        value: String,
        /// The parser's text.
        why: String,
    },
    /// No such gate.
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    /// The gate cannot be changed.
    #[error("cannot set feature gate {key} to {value}, feature is locked to {default}")]
    Locked {
        /// The gate.
        key: String,
        /// What was asked.
        value: bool,
        /// What it stays.
        default: bool,
    },
}

impl FeatureGates {
    /// Applies `A=true,kube:B=false` to the table.
    pub fn parse(text: &str, known: &[Gate]) -> Result<FeatureGates, FeatureError> {
        let mut asked = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| FeatureError::MissingValue(pair.into()))?;
            let key = key.trim().strip_prefix("kube:").unwrap_or(key.trim());
            let value = value.trim();
            let on = go_bool(value).map_err(|why| FeatureError::InvalidValue {
                key: key.into(),
                value: value.into(),
                why,
            })?;
            asked.insert(key.to_string(), on);
        }
        let all = |name| asked.get(name).copied();
        let (all_alpha, all_beta) = (all("AllAlpha"), all("AllBeta"));
        let mut on: BTreeMap<String, bool> = BTreeMap::new();
        for gate in known {
            let by_stage = match gate.maturity {
                Maturity::Alpha => all_alpha,
                Maturity::Beta => all_beta,
                Maturity::Other => None,
            };
            on.insert(
                gate.name.clone(),
                if gate.locked { gate.default } else { by_stage.unwrap_or(gate.default) },
            );
        }
        for (key, value) in asked {
            if key == "AllAlpha" || key == "AllBeta" {
                continue;
            }
            let Some(gate) = known.iter().find(|g| g.name == key) else {
                return Err(FeatureError::Unknown(key));
            };
            if gate.locked && value != gate.default {
                return Err(FeatureError::Locked { key, value, default: gate.default });
            }
            on.insert(key, value);
        }
        Ok(FeatureGates { on })
    }

    /// Whether a gate is on. A gate that does not exist is off.
    pub fn enabled(&self, name: &str) -> bool {
        self.on.get(name).copied().unwrap_or(false)
    }

    /// Every gate, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.on.iter().map(|(name, on)| (name.as_str(), *on))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_follow_the_flag_and_refuse_as_upstream() {
        let gate =
            |name: &str, default, locked, maturity| Gate { name: name.into(), default, locked, maturity };
        let known = [
            gate("Alpha", false, false, Maturity::Alpha),
            gate("Beta", true, false, Maturity::Beta),
            gate("Done", true, true, Maturity::Other),
        ];
        for (flag, want) in [
            ("", "Alpha=false Beta=true Done=true"),
            ("Alpha=true,kube:Beta=0", "Alpha=true Beta=false Done=true"),
            ("AllAlpha=true,AllBeta=false,Beta=true", "Alpha=true Beta=true Done=true"),
            ("Done=true", "Alpha=false Beta=true Done=true"),
            ("Done=false", "cannot set feature gate Done to false, feature is locked to true"),
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("Alpha", "missing bool value for Alpha"),
            ("Alpha=x", "invalid value of Alpha=x, err: strconv.ParseBool: parsing \"x\": invalid syntax"),
        ] {
            let got = match FeatureGates::parse(flag, &known) {
                Ok(gates) => gates.iter().map(|(n, on)| format!("{n}={on}")).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, want, "{flag}");
        }
    }
}
