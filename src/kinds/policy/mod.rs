//! policy: how much disruption workloads stand.

pub(crate) mod pod_disruption_budget;
