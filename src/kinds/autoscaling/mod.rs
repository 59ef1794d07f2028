//! autoscaling: how many pods there should be.

mod convert;
pub(crate) mod horizontal_pod_autoscaler;
mod metrics;
pub(crate) mod scale;
