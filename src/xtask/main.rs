//! `cargo xtask`: the workspace's own tools.
//!
//! | command | what |
//! |---|---|
//! | `tidy` | house rules that no compiler knows: sizes, headers, words |
//! | `layers` | a crate uses lower floors only |
//! | `kinds` | kinds that still lack upstream's full validation |
//! | `conformance` | upstream's own e2e suite against a cluster, and its result as data |
//! | `diff` | the same requests to upstream's API server and to ours, and what differs |
//! | `bench` | paired benchmarks against upstream's programs |
//! | `measure-start PROGRAM` | start to /readyz and resident memory of the API server |
//! | `measure-pods PROGRAM IMAGE...` | POST to Running in a whole cluster against bare CRI calls; root only |
//!
//! `tidy` and `layers` are tests as well, so that nobody has to remember them.

mod bench;
mod child;
mod conformance;
mod diff;
mod layers;
mod measure;
mod pods;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

/// The workspace's folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["tidy"] => tidy::check(&root()),
        ["layers"] => layers::check(&root()),
        ["kinds"] => {
            copepod_kinds::lacking_full_validation().into_iter().for_each(|kind| println!("{kind}"));
            Ok(Vec::new())
        }
        ["conformance", rest @ ..] => conformance::command(&root(), rest),
        ["diff", rest @ ..] => diff::command(&root(), rest),
        ["bench", rest @ ..] => bench::command(&root(), rest),
        ["measure-start", program] => measure::start(program).map(|()| Vec::new()),
        ["measure-pods", program, images @ ..] => pods::measure(program, images).map(|()| Vec::new()),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | layers | kinds | conformance | diff | bench | measure-start PROGRAM | measure-pods PROGRAM IMAGE..."
            );
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            findings.iter().for_each(|f| eprintln!("{f}"));
            eprintln!("{} finding(s)", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
