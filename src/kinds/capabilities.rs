//! What the whole server allows, set once at start from its flags. upstream: pkg/capabilities

use std::sync::atomic::{AtomicBool, Ordering};

static PRIVILEGED: AtomicBool = AtomicBool::new(true);

/// `--allow-privileged`: whether containers may be privileged.
pub fn allow_privileged(allowed: bool) {
    PRIVILEGED.store(allowed, Ordering::Relaxed);
}

/// Whether containers may be privileged.
pub fn privileged_allowed() -> bool {
    PRIVILEGED.load(Ordering::Relaxed)
}
