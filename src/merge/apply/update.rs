//! Ownership after a write: what the writer gains, what the others lose, and who is in the way.
//! upstream: structured-merge-diff/v6 merge/update.go

use std::collections::BTreeMap;

use copepod_meta::Value;

use super::compare::{Comparison, compare};
use super::field_set::{field_set, with_named_fields, without_items};
use super::managed::{Managed, Manager, Owned};
use super::merge::merge;
use super::path::Path;
use super::reconcile::reconcile;
use super::set::Set;
use super::shape::Shape;
use super::{ApplyError, Conflict, Context};

/// A version's shape, and objects in it.
pub(super) struct Updater<'c> {
    pub(super) context: &'c Context<'c>,
    pub(super) version: String,
}

impl<'c> Updater<'c> {
    fn shape(&self, version: &str) -> Option<Shape<'c>> {
        if version == self.version {
            return Some(Shape::root(self.context.universe, self.context.ty));
        }
        self.context.versions.type_of(version).map(|ty| Shape::root(self.context.universe, ty))
    }

    fn own_shape(&self) -> Shape<'c> {
        Shape::root(self.context.universe, self.context.ty)
    }

    /// An object of one version in another; none if that version is no more.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        if from == to { Some(object.clone()) } else { self.context.versions.convert(object, from, to) }
    }

    fn reset(&self) -> Option<&Set> {
        self.context.reset_fields
    }

    fn compare(&self, old: &Value, new: &Value, version: &str) -> Result<Option<Comparison>, String> {
        let comparison = if version == self.version {
            compare(old, new, self.own_shape())?
        } else {
            let converted = |object| self.convert(object, &self.version, version);
            let (Some(shape), Some(old), Some(new)) = (self.shape(version), converted(old), converted(new))
            else {
                return Ok(None);
            };
            compare(&old, &new, shape)?
        };
        Ok(Some(comparison.without(self.reset())))
    }

    /// Takes changed fields from their owners. Without `force` that is a conflict.
    fn take(
        &self,
        old: &Value,
        new: &Value,
        managed: &mut Managed,
        writer: &Manager,
        force: bool,
    ) -> Result<Comparison, ApplyError> {
        let failed = |e: String| ApplyError::Internal(format!("failed to compare objects: {e}"));
        let mut comparisons: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let own = self.compare(old, new, &self.version).map_err(failed)?;
        comparisons.insert(self.version.clone(), own);
        let mut conflicts: Vec<(Manager, Set)> = Vec::new();
        let mut gone = Vec::new();
        for (manager, owned) in managed.iter().filter(|(manager, _)| *manager != writer) {
            if !comparisons.contains_key(&owned.api_version) {
                let comparison = self.compare(old, new, &owned.api_version).map_err(failed)?;
                comparisons.insert(owned.api_version.clone(), comparison);
            }
            let Some(Some(comparison)) = comparisons.get(&owned.api_version) else {
                gone.push(manager.clone());
                continue;
            };
            let mut changed = owned.set.intersection(&comparison.modified);
            changed.absorb(owned.set.intersection(&comparison.added));
            if !changed.is_empty() {
                conflicts.push((manager.clone(), changed));
            }
        }
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(listed(&conflicts)));
        }
        for manager in gone {
            managed.remove(&manager);
        }
        for (manager, set) in &conflicts {
            if let Some(owned) = managed.get_mut(manager) {
                owned.set.subtract(set);
            }
        }
        for (_, owned) in managed.iter_mut().filter(|(manager, _)| *manager != writer) {
            if let Some(Some(comparison)) = comparisons.get(&owned.api_version) {
                owned.set.subtract(&comparison.removed);
            }
        }
        managed.retain(|_, owned| !owned.set.is_empty());
        Ok(comparisons.remove(&self.version).flatten().unwrap_or_default())
    }

    /// After create, update or patch: the writer owns what it changed.
    pub(super) fn update(
        &self,
        live: &Value,
        new: &Value,
        managed: &mut Managed,
        writer: &Manager,
    ) -> Result<(), ApplyError> {
        self.reconcile(managed);
        let comparison = self.take(live, new, managed, writer, true)?;
        let mut set = managed.remove(writer).map(|owned| owned.set).unwrap_or_default();
        set.subtract(&comparison.removed);
        set.absorb(comparison.modified);
        set.absorb(comparison.added);
        if let Some(reset) = self.reset() {
            set = set.recursive_difference(reset);
        }
        if !set.is_empty() {
            let owned = Owned { set, api_version: self.version.clone(), time: Value::Null };
            managed.insert(writer.clone(), owned);
        }
        Ok(())
    }

    /// Applies a checked configuration; none if the object stays as it is.
    pub(super) fn apply(
        &self,
        live: &Value,
        config: &Value,
        managed: &mut Managed,
        writer: &Manager,
        force: bool,
    ) -> Result<Option<Value>, ApplyError> {
        self.reconcile(managed);
        let shape = self.own_shape();
        let merged = merge(live, config, shape)
            .map_err(|e| ApplyError::Internal(format!("failed to merge config: {e}")))?;
        let mut set = field_set(config, shape);
        if let Some(reset) = self.reset() {
            set = set.recursive_difference(reset);
        }
        let before = managed.remove(writer);
        let time = before.as_ref().map(|owned| owned.time.clone()).unwrap_or_default();
        managed.insert(writer.clone(), Owned { set, api_version: self.version.clone(), time });
        let pruned = self.prune(merged, managed, before.as_ref())?;
        self.take(live, &pruned, managed, writer, force)?;
        Ok((pruned != *live).then_some(pruned))
    }

    /// Takes out what the writer applied last time and not now, unless somebody else owns it.
    fn prune(&self, merged: Value, managed: &Managed, before: Option<&Owned>) -> Result<Value, ApplyError> {
        let Some(before) = before.filter(|owned| !owned.set.is_empty()) else { return Ok(merged) };
        let version = &before.api_version;
        let converted = self.convert(&merged, &self.version, version);
        let (Some(converted), Some(shape)) = (converted, self.shape(version)) else { return Ok(merged) };
        let last = with_named_fields(&before.set, Some(shape));
        let pruned = without_items(&converted, &last, shape);
        let pruned = self.add_back_owned(&converted, pruned, version, managed);
        let named = |object: &Value| with_named_fields(&field_set(object, shape), Some(shape));
        // What came along with the pruned but was never the writer's stays.
        let dangling = named(&converted).difference(&named(&pruned)).intersection(&last);
        let pruned = without_items(&converted, &dangling, shape);
        self.convert(&pruned, version, &self.version).ok_or_else(|| {
            ApplyError::Internal(format!("failed to prune fields: no conversion from {version}"))
        })
    }

    /// Puts back what was pruned but is owned by somebody, version by version, that of the pruning first.
    fn add_back_owned(&self, merged: &Value, mut pruned: Value, version: &str, managed: &Managed) -> Value {
        let mut by_version: BTreeMap<&str, Set> = BTreeMap::new();
        for owned in managed.values() {
            let set = by_version.entry(&owned.api_version).or_default();
            *set = set.union(&owned.set);
        }
        let first = by_version.remove_entry(version);
        for (at, owned) in first.into_iter().chain(by_version) {
            let Some(shape) = self.shape(at) else { continue };
            let (Some(all), Some(left)) =
                (self.convert(merged, version, at), self.convert(&pruned, version, at))
            else {
                continue;
            };
            let named = |set: &Set| with_named_fields(set, Some(shape));
            let keep = named(&field_set(&left, shape)).union(&named(&owned));
            let kept = without_items(&all, &named(&field_set(&all, shape)).difference(&keep), shape);
            if let Some(back) = self.convert(&kept, at, version) {
                pruned = back;
            }
        }
        pruned
    }

    fn reconcile(&self, managed: &mut Managed) {
        managed.retain(|_, owned| match self.shape(&owned.api_version) {
            Some(shape) => {
                if let Some(set) = reconcile(&owned.set, shape) {
                    owned.set = set;
                }
                true
            }
            // A version that is no more.
            None => false,
        });
    }
}

/// Conflicts path by path, managers in order.
fn listed(conflicts: &[(Manager, Set)]) -> Vec<Conflict> {
    let mut listed = Vec::new();
    for (manager, set) in conflicts {
        set.each(&mut |path| {
            let path: Path = path.to_vec();
            listed.push(Conflict { manager: manager.clone(), path });
        });
    }
    listed
}
