//! Child processes that do not outlive who started them.

use std::process::Child;

/// A process that is killed and reaped when this is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // The process may have ended by itself; either way it is reaped.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
