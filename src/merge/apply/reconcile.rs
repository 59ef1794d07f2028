//! Field sets written when a type was granular that has become atomic since: its owner now owns the whole.
//! upstream: structured-merge-diff/v6 typed/reconcile_schema.go

use copepod_meta::Value;

use super::path::{Path, PathElement};
use super::set::Set;
use super::shape::{Form, Keys, Shape};

/// The set as of today's types; none if nothing changes.
pub(super) fn reconcile(set: &Set, shape: Shape) -> Option<Set> {
    let mut walker = Walker { path: Vec::new(), atomic: Set::default() };
    walker.node(Some(set), shape, false);
    if walker.atomic.is_empty() {
        return None;
    }
    Some(set.recursive_difference(&walker.atomic).union(&walker.atomic))
}

struct Walker {
    path: Path,
    /// Roots of what is atomic now and was owned in parts.
    atomic: Set,
}

impl Walker {
    fn node(&mut self, set: Option<&Set>, shape: Shape, is_leaf: bool) {
        if shape.is_deduced() {
            return;
        }
        match shape.form(&Value::Null) {
            Form::Scalar(_) => {}
            Form::List { keys: Keys::Atomic, .. } => {
                if !is_leaf {
                    self.atomic.insert(&self.path);
                }
            }
            Form::Object { atomic: true, .. } => {
                if !is_leaf && set.is_some_and(|set| !set.is_empty()) {
                    self.atomic.insert(&self.path);
                }
            }
            Form::List { element, .. } => self.each(set, |_| Some(element)),
            Form::Object { fields, element, .. } => self.each(set, |name| match name {
                PathElement::Field(name) => super::shape::member(fields, element, name),
                _ => element,
            }),
        }
    }

    fn each<'u>(&mut self, set: Option<&Set>, shape: impl Fn(&PathElement) -> Option<Shape<'u>>) {
        let Some(set) = set else { return };
        let children = set.children.iter().filter(|(name, _)| !set.has_member(name)).map(|(name, _)| name);
        for (name, is_member) in children.map(|n| (n, false)).chain(set.members.iter().map(|n| (n, true))) {
            let Some(shape) = shape(name) else { continue };
            let below = set.child(name);
            self.path.push(name.clone());
            self.node(below, shape, is_member && below.is_none());
            self.path.pop();
        }
    }
}
