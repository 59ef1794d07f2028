//! `copepod-apiserver`: the Kubernetes API over HTTPS.

/// Returns freed memory to the machine and keeps few arenas.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    copepod_serve::component::run_main(None, copepod_apiserver::command::run)
}
