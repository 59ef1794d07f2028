//! node.k8s.io: how nodes run pods.

pub(crate) mod runtime_class;
