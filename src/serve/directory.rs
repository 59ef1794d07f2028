//! Knowing that something in a directory changed, by inotify.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Changes that matter to a reader of a growing file: writes, and files that come.
pub const GROWTH: AddWatchFlags =
    AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_CREATE).union(AddWatchFlags::IN_MOVED_TO);

/// Changes that matter to a reader of whole files: those that are finished, come or go.
pub const FILES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE);

/// Changes that matter to a reader of files that somebody may exchange by a symbolic link (a mounted Secret).
pub const EXCHANGES: AddWatchFlags = FILES.union(AddWatchFlags::IN_CREATE);

/// Watches directories.
pub struct DirectoryWatch {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl DirectoryWatch {
    /// Begins to watch for changes of these kinds.
    pub fn new(directory: &Path, kinds: AddWatchFlags) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(directory, kinds)?;
        let descriptor = inotify.as_fd().try_clone_to_owned()?;
        // The objection to `new` is types that give away a descriptor they do not own; an `OwnedFd` owns it.
        #[allow(deprecated)]
        let ready = AsyncFd::new(descriptor)?;
        Ok(DirectoryWatch { inotify, ready })
    }

    /// Watches one more directory for changes of these kinds.
    pub fn add(&self, directory: &Path, kinds: AddWatchFlags) -> std::io::Result<()> {
        self.inotify.add_watch(directory, kinds)?;
        Ok(())
    }

    /// Waits for a change since the last call. What changed is not said: the reader looks for itself.
    pub async fn changed(&self) -> std::io::Result<()> {
        let mut guard = self.ready.readable().await?;
        match self.inotify.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        guard.clear_ready();
        Ok(())
    }
}
