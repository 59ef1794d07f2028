//! What a kind is beyond its facts: one row a kind in [`table`], one [`Strategy`] behind it, one file
//! `<group>/<kind>.rs`.
//!
//! Owns: preparation of writes, conditional defaults, conversions, validation, table columns, selectable fields, deletion
//! grace, reset fields. Does not: read, write, allocate, authorize (those hooks are the registry's `special/` modules), and
//! nothing that `api/` can say.
//!
//! Everything is pure. Trees are in the kind's hub version unless a method names one. A kind without a row gets
//! [`generic`]'s strategy, so that every kind is served; `lacking_full_validation` names those.

pub mod capabilities;
pub mod cells;
pub mod check;
mod diff;
pub mod equality;
pub mod generic;
mod go_json;
#[cfg(test)]
mod goldens;
pub mod metadata;
pub mod print;
pub mod strategy;
pub mod table;
#[cfg(test)]
mod testing;

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod flowcontrol;
mod networking;
mod node;
mod policy;
pub mod rbac;
mod resource;
mod scheduling;
mod storage;

pub use self::autoscaling::scale::Scale;
pub use self::core::cluster_ips;
pub use check::At;
pub use strategy::{Cell, Column, Context, DefaultPropagation, Graceful, Row, Strategy};

use copepod_meta::Value;
use copepod_schema::{Name, Resource, TypeId, Universe};

/// A kind: its names, the version in which its strategy sees objects, and the strategy.
#[derive(Clone)]
pub struct Kind {
    /// API group, "" for core.
    pub group: Name,
    /// Plural name, `pods`.
    pub plural: Name,
    /// The version whose trees the strategy works on; stands for upstream's internal type.
    pub hub: Name,
    /// Whether validation says all that upstream's says.
    pub fully_validated: bool,
    /// The behaviour.
    pub strategy: &'static dyn Strategy,
}

impl Kind {
    /// All defaults of one version, each once: the kind's own first, because some of them ask whether a field was left out that
    /// the facts would fill in (a StatefulSet's update strategy), then the unconditional ones of the facts.
    /// upstream: zz_generated.defaults.go calls a struct's SetDefaults function before it fills the struct's tags in
    pub fn default(&self, version: &str, universe: &Universe, ty: TypeId, object: &mut Value) {
        self.strategy.default(version, object);
        copepod_merge::defaults::apply_defaults(object, universe, ty);
    }
}

/// The kind of a built-in or custom resource: its row, or the generic strategy that its facts call for.
pub fn kind_of(resource: &Resource) -> Kind {
    kind(&resource.group, &resource.plural).unwrap_or_else(|| generic::kind(resource))
}

/// The kind that has a row of its own.
pub fn kind(group: &str, plural: &str) -> Option<Kind> {
    let row = table::ROWS.iter().find(|row| row.plural == plural && row.group == group)?;
    Some(Kind {
        group: Name::Borrowed(row.group),
        plural: Name::Borrowed(row.plural),
        hub: Name::Borrowed(row.hub),
        fully_validated: row.fully_validated,
        strategy: row.strategy,
    })
}

/// The built-in, stored resources whose validation is not (wholly) upstream's yet, as `plural.group`.
pub fn lacking_full_validation() -> Vec<String> {
    let stored = copepod_schema::resources().iter().filter(|r| r.storage.is_some());
    let lacking = stored.filter(|r| !kind(&r.group, &r.plural).is_some_and(|k| k.fully_validated));
    lacking.map(|r| copepod_meta::GroupResource::new(&r.group, &r.plural).to_string()).collect()
}
