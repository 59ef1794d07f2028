//! Numbers by topology domain: a label's key, then its value.
//!
//! Terms of all pods together name few keys and many values, so that a node is judged with one lookup a key, however many
//! pods were counted.

use std::collections::HashMap;

use super::NodeInfo;

/// A number for each domain that something was added to.
#[derive(Clone, Debug, Default)]
pub struct Domains(Vec<(String, HashMap<String, i64>)>);

impl Domains {
    /// Adds to the domain that a node is in by this key; a node without the label is in none.
    pub fn add(&mut self, node: &NodeInfo, key: &str, amount: i64) {
        let Some(value) = node.labels.get(key) else { return };
        let at = self.0.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            self.0.push((key.to_owned(), HashMap::new()));
            self.0.len() - 1
        });
        let values = &mut self.0[at].1;
        match values.get_mut(value) {
            Some(number) => *number += amount,
            None => drop(values.insert(value.to_owned(), amount)),
        }
    }

    /// The number of a node's domain by this key.
    pub fn get(&self, node: &NodeInfo, key: &str) -> i64 {
        let values = self.0.iter().find(|(known, _)| known == key).map(|(_, values)| values);
        values.zip(node.labels.get(key)).and_then(|(values, value)| values.get(value)).copied().unwrap_or(0)
    }

    /// The numbers of all domains that a node is in.
    pub fn of(&self, node: &NodeInfo) -> impl Iterator<Item = i64> {
        self.0.iter().filter_map(|(key, values)| values.get(node.labels.get(key)?).copied())
    }

    /// All numbers.
    pub fn numbers(&self) -> impl Iterator<Item = i64> {
        self.0.iter().flat_map(|(_, values)| values.values().copied())
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
