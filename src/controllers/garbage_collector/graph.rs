//! Who owns whom. Pure: changes in, objects to look at out.
//!
//! upstream: pkg/controller/garbagecollector/graph_builder.go processGraphChanges

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use copepod_client::object::MetaExt;
use copepod_client::rest::ResourceType;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{FOREGROUND, ORPHAN};

/// An object, reduced to what ownership needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it is.
    pub resource: Arc<ResourceType>,
    /// Its namespace, or "".
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Who owns it.
    pub owners: Vec<OwnerReference>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Whether it waits for its dependents.
    pub foreground: bool,
    /// Whether it lets its dependents go free first.
    pub orphan: bool,
}

impl Node {
    /// From metadata.
    pub fn new(resource: &Arc<ResourceType>, meta: &ObjectMeta) -> Self {
        let deleting = meta.deleting();
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|known| known == finalizer);
        Self {
            resource: resource.clone(),
            namespace: MetaExt::namespace(meta).to_owned(),
            name: MetaExt::name(meta).to_owned(),
            uid: MetaExt::uid(meta).to_owned(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphan: deleting && has(ORPHAN),
        }
    }
}

/// An object to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Should it go?
    Judge(String),
    /// Let its dependents go free.
    Orphan(String),
}

/// All objects.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// By the uid of an owner, which need not be known.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    /// An object.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Uids of the objects of a resource.
    pub fn of_resource(&self, resource: &ResourceType) -> Vec<String> {
        let of = self.nodes.values().filter(|node| *node.resource == *resource);
        of.map(|node| node.uid.clone()).collect()
    }

    /// What an object owns.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Node> + 'a {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid))
    }

    /// Dependents that hold up the foreground deletion of their owner.
    pub fn blocking<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Node> + 'a {
        self.dependents(owner).filter(move |node| {
            node.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
        })
    }

    /// Takes in a new state of an object.
    pub fn apply(&mut self, node: Node) -> Vec<Work> {
        let mut work = BTreeSet::new();
        let uid = node.uid.clone();
        let before = self.nodes.remove(&uid);
        let old_owners = before.as_ref().map_or(&[][..], |before| &before.owners);
        for owner in old_owners.iter().filter(|old| !node.owners.iter().any(|new| new.uid == old.uid)) {
            self.unlink(&owner.uid, &uid);
        }
        // An owner that waits for this object may have nothing to wait for any more.
        for old in old_owners {
            let still =
                node.owners.iter().any(|new| new.uid == old.uid && new.block_owner_deletion == Some(true));
            if !still && self.nodes.get(&old.uid).is_some_and(|owner| owner.foreground) {
                work.insert(Work::Judge(old.uid.clone()));
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            let gone_or_going = self.nodes.get(&owner.uid).is_none_or(|owner| owner.foreground);
            let new = !old_owners.iter().any(|old| old.uid == owner.uid);
            if gone_or_going && new && owner.uid != uid {
                work.insert(Work::Judge(uid.clone()));
            }
        }
        let was = |of: fn(&Node) -> bool| before.as_ref().is_some_and(of);
        if node.orphan && !was(|node| node.orphan) {
            work.insert(Work::Orphan(uid.clone()));
        }
        if node.foreground && !was(|node| node.foreground) {
            work.insert(Work::Judge(uid.clone()));
            work.extend(self.dependents(&uid).map(|dependent| Work::Judge(dependent.uid.clone())));
        }
        self.nodes.insert(uid, node);
        work.into_iter().collect()
    }

    /// Takes an object out.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        let mut work: BTreeSet<Work> =
            self.dependents.get(uid).into_iter().flatten().cloned().map(Work::Judge).collect();
        if let Some(gone) = self.nodes.remove(uid) {
            for owner in &gone.owners {
                self.unlink(&owner.uid, uid);
                if self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                    work.insert(Work::Judge(owner.uid.clone()));
                }
            }
        }
        work.into_iter().collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `uid[!] [owner[*] ...]`: `!` being deleted in the foreground, `?` orphaning, `*` blocking.
    fn node(text: &str) -> Node {
        let mut words = text.split_whitespace();
        let name = words.next().expect("a name");
        let uid = name.trim_end_matches(['!', '?']);
        let owners = words.map(|owner| OwnerReference {
            uid: owner.trim_end_matches('*').to_owned(),
            block_owner_deletion: Some(owner.ends_with('*')),
            ..OwnerReference::default()
        });
        Node {
            resource: Arc::new(ResourceType::namespaced("", "v1", "things")),
            namespace: "x".into(),
            name: uid.into(),
            uid: uid.into(),
            owners: owners.collect(),
            deleting: name != uid,
            foreground: name.ends_with('!'),
            orphan: name.ends_with('?'),
        }
    }

    /// Steps: `+node` applies, `-uid` removes. The work of the last step comes out.
    #[test]
    fn changes_say_what_to_look_at() {
        for (name, steps, want) in [
            ("an owner that is there", "+a / +b a", ""),
            ("an owner that is not known", "+b a", "judge b"),
            ("an owner goes", "+a / +b a / +c a / -a", "judge b, judge c"),
            ("a dependent goes", "+a / +b a / -b", ""),
            ("an unknown owner goes", "+b a / -a", "judge b"),
            ("foreground begins", "+a / +b a* / +a!", "judge a, judge b"),
            ("its last dependent goes", "+a! / +b a* / -b", "judge a"),
            ("a dependent stops blocking", "+a! / +b a* / +b a", "judge a"),
            ("a dependent comes while it waits", "+a! / +b a*", "judge b"),
            ("orphaning begins", "+a / +b a / +a?", "orphan a"),
            ("nothing new", "+a! / +a!", ""),
            ("an owner is dropped", "+a / +b a / +b / -a", ""),
        ] {
            let mut graph = Graph::default();
            let mut work = Vec::new();
            for step in steps.split(" / ") {
                work = match step.strip_prefix('-') {
                    Some(uid) => graph.remove(uid),
                    None => graph.apply(node(&step[1..])),
                };
            }
            let shown: Vec<String> = work
                .iter()
                .map(|work| match work {
                    Work::Judge(uid) => format!("judge {uid}"),
                    Work::Orphan(uid) => format!("orphan {uid}"),
                })
                .collect();
            assert_eq!(shown.join(", "), want, "{name}");
        }
    }
}
