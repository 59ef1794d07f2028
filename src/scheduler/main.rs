//! `copepod-scheduler`: the scheduler as a program of its own.

fn main() -> std::process::ExitCode {
    copepod_serve::component::run_main(Some(1), copepod_scheduler::command::run)
}
