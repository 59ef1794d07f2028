//! `copepod-controller-manager`: all controllers as a program of its own.

fn main() -> std::process::ExitCode {
    copepod_serve::component::run_main(Some(1), copepod_controllers::command::run)
}
