//! The table of kinds that have something to say beyond their facts. The one place where a kind's file is named.

use crate::core;
use crate::strategy::Strategy;

/// A row: names, hub version, whether validation is complete, behaviour.
pub struct Entry {
    /// API group, "" for core.
    pub group: &'static str,
    /// Plural name.
    pub plural: &'static str,
    /// The version whose trees the strategy sees.
    pub hub: &'static str,
    /// Whether validation says all that upstream's says.
    pub fully_validated: bool,
    /// The behaviour.
    pub strategy: &'static dyn Strategy,
}

/// Upstream's validation is all there.
const fn full(
    group: &'static str,
    plural: &'static str,
    hub: &'static str,
    strategy: &'static dyn Strategy,
) -> Entry {
    Entry { group, plural, hub, fully_validated: true, strategy }
}

/// Prepared, defaulted and printed as upstream does; validation has gaps.
#[allow(dead_code, reason = "rows come and go here as validation is completed")]
const fn part(
    group: &'static str,
    plural: &'static str,
    hub: &'static str,
    strategy: &'static dyn Strategy,
) -> Entry {
    Entry { group, plural, hub, fully_validated: false, strategy }
}

/// Every kind with a strategy of its own.
pub static ROWS: &[Entry] =
    &[full("", "pods", "v1", &core::pod::Pod), full("", "configmaps", "v1", &core::config_map::ConfigMap)];
