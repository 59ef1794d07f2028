//! Events: many, written once, read seldom, gone after an hour; never garbage-collected.

use super::Hooks;

pub(super) struct Event;

impl Hooks for Event {
    fn is_garbage_collected(&self) -> bool {
        false
    }
    fn is_read_seldom(&self) -> bool {
        true
    }
}
