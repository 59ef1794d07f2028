//! Child processes that do not outlive who started them.
//!
//! Three ends are covered: a value that is dropped ([`Killed`]); SIGINT and SIGTERM, which drop everything in order when
//! the work runs under [`unless_interrupted`]; and any other death of this process, SIGKILL too, on which the kernel kills
//! the children that [`Killed::spawn`] started. Grandchildren are the children's own affair.

use anyhow::bail;
use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::signal::unix::{SignalKind, signal};

/// Commands that wait for the thread that starts them; whoever sends one waits for its child.
const COMMANDS_MAX: usize = 1;

/// A process that is killed and reaped when this is dropped.
pub struct Killed(pub Child);

impl Killed {
    /// Starts a process that dies with this one, however this one ends.
    pub fn spawn(command: Command) -> io::Result<Killed> {
        let (answer, child) = sync_channel(1);
        let gone = |_| io::Error::other("the thread that starts processes is gone");
        spawner()?.send((command, answer)).map_err(|_| gone(()))?;
        child.recv().map_err(|_| gone(()))?.map(Killed)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // The process may have ended by itself; either way it is reaped.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// The thread that starts processes. The kernel ties a child to the thread, not to the process, that made it: one that
/// lives as long as the process has to do it, and a runtime's worker is none.
fn spawner() -> io::Result<SyncSender<Order>> {
    static SPAWNER: OnceLock<SyncSender<Order>> = OnceLock::new();
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender.clone());
    }
    let (sender, orders) = sync_channel::<Order>(COMMANDS_MAX);
    std::thread::Builder::new().name("spawner".into()).spawn(move || {
        for (mut command, answer) in orders {
            die_with_this_process(&mut command);
            // Whoever asked may have given up; the child is then nobody's and ends with this process.
            let _unwanted = answer.send(command.spawn());
        }
    })?;
    // Of two threads that come here at once one keeps a spawner of its own; that ends when its sender is dropped, so
    // the one that stays is used.
    Ok(SPAWNER.get_or_init(|| sender).clone())
}

#[allow(unsafe_code, reason = "what a child does before it becomes the program can be told in no safe way")]
fn die_with_this_process(command: &mut Command) {
    use nix::sys::{prctl::set_pdeathsig, signal::Signal};
    use std::os::unix::process::CommandExt as _;
    let parent = nix::unistd::getpid();
    let before_exec = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            // Died before the kernel was asked; an error without allocation, as this place demands.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only prctl and getppid are called; both are async-signal-safe, nothing allocates.
    unsafe { command.pre_exec(before_exec) };
}

/// Does `work`; on SIGINT or SIGTERM it is dropped, with all children and folders that it holds, and this fails.
pub async fn unless_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    /// True while a process runs (a zombie does not).
    fn runs(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    fn sleeper() -> Killed {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        Killed::spawn(command).expect("sleep starts")
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it_and_ends_when_dropped() {
        let child = std::thread::spawn(sleeper).join().expect("started");
        let pid = child.0.id();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(runs(pid));
        drop(child);
        assert!(!runs(pid));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(Killed::spawn(Command::new("/nonexistent/program")).is_err());
    }

    /// Runs this test binary with the test below, which starts a child and is killed by force.
    #[test]
    fn a_child_ends_when_the_process_is_killed() {
        use std::io::{BufRead as _, BufReader};
        let test = std::env::current_exe().expect("this program");
        let mut parent = Command::new(test)
            .args(["--ignored", "--exact", "child::tests::holds_a_child", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(parent.stdout.take().expect("a pipe")).lines();
        let pid = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("child ")?.parse::<u32>().ok())
            .expect("a child's number");
        assert!(runs(pid));
        parent.kill().expect("killed");
        parent.wait().expect("reaped");
        let start = std::time::Instant::now();
        while runs(pid) && start.elapsed().as_secs() < 5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(!runs(pid), "{pid} outlived its parent");
    }

    #[test]
    #[ignore = "a part of the test above, in a process of its own"]
    fn holds_a_child() {
        let child = sleeper();
        println!("\nchild {}", child.0.id());
        std::thread::sleep(std::time::Duration::from_secs(60));
        drop(child);
    }
}
