//! A process and all that it started, ended together.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::Child;

/// The leader of a process group (`process_group(0)`); the whole group is killed when this is dropped.
pub struct Group(pub Child);

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        if let Ok(id) = i32::try_from(self.0.id()) {
            let _gone = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _reaped = self.0.wait();
    }
}
