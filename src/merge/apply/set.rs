//! Sets of field paths, as a tree: members of this level, and subsets below path elements.
//!
//! Invariants: members and children are sorted, each element is there once. A child does not imply membership
//! of its element.
//! upstream: structured-merge-diff/v6 fieldpath/set.go

use std::cmp::Ordering;

use super::path::{Path, PathElement};

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) members: Vec<PathElement>,
    pub(super) children: Vec<(PathElement, Set)>,
}

impl Set {
    /// A set of member-name paths: what a strategy's reset fields are.
    pub fn of_fields<'p>(paths: impl IntoIterator<Item = &'p [&'p str]>) -> Set {
        let mut set = Set::default();
        for path in paths {
            let path: Path = path.iter().map(|name| PathElement::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Adds a path; its parents are not added. The empty path (the whole object) is owned by nobody.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            // Most sets are made in order.
            [last] if self.members.last().is_none_or(|member| member < last) => {
                self.members.push(last.clone());
            }
            [last] => {
                if let Err(at) = self.members.binary_search(last) {
                    self.members.insert(at, last.clone());
                }
            }
            [first, rest @ ..] => self.descend(first).insert(rest),
        }
    }

    /// The subset below an element, made if it is not there.
    pub(super) fn descend(&mut self, element: &PathElement) -> &mut Set {
        let last = self.children.last().map(|(e, _)| e.cmp(element));
        let found = match last {
            Some(Ordering::Equal) => Ok(self.children.len() - 1),
            None | Some(Ordering::Less) => Err(self.children.len()),
            Some(Ordering::Greater) => self.children.binary_search_by(|(e, _)| e.cmp(element)),
        };
        let at = match found {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (element.clone(), Set::default()));
                at
            }
        };
        &mut self.children[at].1
    }

    /// The subset below an element.
    pub(super) fn child(&self, element: &PathElement) -> Option<&Set> {
        self.children.binary_search_by(|(e, _)| e.cmp(element)).ok().map(|at| &self.children[at].1)
    }

    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.members.binary_search(element).is_ok()
    }

    /// Whether a path is in the set.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.child(first).is_some_and(|set| set.has(rest)),
        }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.iter().all(|(_, set)| set.is_empty())
    }

    /// Adds everything in another one.
    pub(super) fn absorb(&mut self, other: Set) {
        if self.members.is_empty() && self.children.is_empty() {
            *self = other;
        } else if !(other.members.is_empty() && other.children.is_empty()) {
            *self = self.union(&other);
        }
    }

    /// Takes everything away that is in `other`: see [`Set::difference`].
    pub(super) fn subtract(&mut self, other: &Set) {
        if !other.members.is_empty() {
            self.members.retain(|member| !other.has_member(member));
        }
        for (element, below) in &other.children {
            if let Ok(at) = self.children.binary_search_by(|(e, _)| e.cmp(element)) {
                self.children[at].1.subtract(below);
                if self.children[at].1.is_empty() {
                    self.children.remove(at);
                }
            }
        }
    }

    /// Everything in either.
    pub fn union(&self, other: &Set) -> Set {
        let members =
            zip(&self.members, &other.members, |e| e).filter_map(|(a, b)| a.or(b).cloned()).collect();
        let children = zip(&self.children, &other.children, |(e, _)| e)
            .filter_map(|pair| match pair {
                (Some((element, a)), Some((_, b))) => Some((element.clone(), a.union(b))),
                (one, other) => one.or(other).cloned(),
            })
            .collect();
        Set { members, children }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let members = zip(&self.members, &other.members, |e| e)
            .filter_map(|(a, b)| a.filter(|_| b.is_some()).cloned())
            .collect();
        let children = zip(&self.children, &other.children, |(e, _)| e)
            .filter_map(|(a, b)| {
                let ((element, a), (_, b)) = (a?, b?);
                Some((element.clone(), a.intersection(b))).filter(|(_, set)| !set.is_empty())
            })
            .collect();
        Set { members, children }
    }

    /// What is in this one only. A parent in `other` does not take its children away.
    pub fn difference(&self, other: &Set) -> Set {
        let children = zip(&self.children, &other.children, |(e, _)| e)
            .filter_map(|(a, b)| {
                let (element, a) = a?;
                match b {
                    None => Some((element.clone(), a.clone())),
                    Some((_, b)) => {
                        Some((element.clone(), a.difference(b))).filter(|(_, set)| !set.is_empty())
                    }
                }
            })
            .collect();
        Set { members: self.members_without(other), children }
    }

    /// What is in this one only, where a member of `other` takes everything below it away.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        let children = zip(&self.children, &other.children, |(e, _)| e)
            .filter_map(|(a, b)| {
                let (element, a) = a?;
                if other.has_member(element) {
                    return None;
                }
                match b {
                    None => Some((element.clone(), a.clone())),
                    Some((_, b)) => {
                        Some((element.clone(), a.recursive_difference(b))).filter(|(_, set)| !set.is_empty())
                    }
                }
            })
            .collect();
        Set { members: self.members_without(other), children }
    }

    fn members_without(&self, other: &Set) -> Vec<PathElement> {
        zip(&self.members, &other.members, |e| e)
            .filter_map(|(a, b)| a.filter(|_| b.is_none()).cloned())
            .collect()
    }

    /// Calls `visit` for every path: the members of a level first, then what is below its children.
    pub fn each(&self, visit: &mut impl FnMut(&[PathElement])) {
        self.each_below(&mut Vec::new(), visit);
    }

    fn each_below(&self, prefix: &mut Path, visit: &mut impl FnMut(&[PathElement])) {
        for member in &self.members {
            prefix.push(member.clone());
            visit(prefix);
            prefix.pop();
        }
        for (element, set) in &self.children {
            prefix.push(element.clone());
            set.each_below(prefix, visit);
            prefix.pop();
        }
    }
}

/// Walks two sorted lists side by side.
fn zip<'s, T>(
    left: &'s [T],
    right: &'s [T],
    element: impl Fn(&T) -> &PathElement,
) -> impl Iterator<Item = (Option<&'s T>, Option<&'s T>)> {
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        let order = match (left.get(i), right.get(j)) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => element(a).cmp(element(b)),
        };
        let a = order.is_le().then(|| &left[i]);
        let b = order.is_ge().then(|| &right[j]);
        i += usize::from(a.is_some());
        j += usize::from(b.is_some());
        Some((a, b))
    })
}
