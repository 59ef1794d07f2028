//! `copepod-kubelet`: the node agent as a program of its own.

fn main() -> std::process::ExitCode {
    copepod_serve::component::run_main(Some(2), copepod_kubelet::command::run)
}
