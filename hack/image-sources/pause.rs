//! The process of a pod's sandbox: holds its namespaces, reaps orphans of a shared process namespace, ends when asked to.

use std::ffi::c_int;

unsafe extern "C" {
    fn pause() -> c_int;
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
}

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

extern "C" fn end(_: c_int) {
    // SAFETY: _exit may be called from a signal handler.
    unsafe { _exit(0) }
}

extern "C" fn reap(_: c_int) {
    // SAFETY: waitpid may be called from a signal handler; a null status is allowed.
    while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
}

fn main() {
    // SAFETY: the handlers only call functions that are allowed in handlers; pause has no preconditions.
    unsafe {
        signal(SIGINT, end);
        signal(SIGTERM, end);
        signal(SIGCHLD, reap);
        loop {
            pause();
        }
    }
}
