//! Scale: what a Table shows of it. It is never stored; `registry` makes it of workloads.
//!
//! upstream: pkg/printers/internalversion/printers.go printScale

use copepod_meta::Value;

use crate::cells;
use crate::strategy::{Column, Row, Strategy};

/// The strategy.
pub struct Scale;

impl Strategy for Scale {
    fn columns(&self) -> &'static [Column] {
        cells::columns("autoscaling/Scale")
    }
    fn row(&self, scale: &Value) -> Row {
        cells::row([
            cells::name(scale),
            scale.int_at(&["spec", "replicas"]).into(),
            scale.int_at(&["status", "replicas"]).into(),
            cells::age(scale),
        ])
    }
}
