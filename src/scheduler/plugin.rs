//! The plugins by name, and sets of them.

use std::ops::{BitOr, BitOrAssign};

/// A set of plugins: who rejected a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginSet(u16);

macro_rules! plugins {
    ($($constant:ident = $bit:literal, $name:literal;)*) => {
        #[allow(missing_docs)]
        impl PluginSet {
            $(pub const $constant: Self = Self(1 << $bit);)*
            /// Each plugin with upstream's name for it.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$constant, $name)),*];
        }
    };
}

plugins! {
    NODE_UNSCHEDULABLE = 0, "NodeUnschedulable";
    NODE_NAME = 1, "NodeName";
    TAINT_TOLERATION = 2, "TaintToleration";
    NODE_AFFINITY = 3, "NodeAffinity";
    NODE_PORTS = 4, "NodePorts";
    NODE_RESOURCES_FIT = 5, "NodeResourcesFit";
    POD_TOPOLOGY_SPREAD = 6, "PodTopologySpread";
    INTER_POD_AFFINITY = 7, "InterPodAffinity";
    SCHEDULING_GATES = 8, "SchedulingGates";
}

impl PluginSet {
    /// No plugin.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names, ordered as the plugins run.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(move |(plugin, _)| self.contains(*plugin)).map(|(_, name)| *name)
    }
}

impl BitOr for PluginSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for PluginSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
