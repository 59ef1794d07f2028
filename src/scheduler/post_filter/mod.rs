//! After all nodes said no: can room be made?

pub mod default_preemption;
