//! Other programs of the machine, run to their end.

use crate::doctor::find_program;
use anyhow::{Context as _, ensure};
use std::process::{Command, Output};

/// Runs a program and gives what it said, whether it succeeded or not.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let path = find_program(program).with_context(|| format!("there is no program {program:?}"))?;
    Command::new(path).args(arguments).output().with_context(|| format!("could not run {program}"))
}

/// Runs a program that has to succeed; the error holds what it complained of.
pub fn must(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = run(program, arguments)?;
    let told = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), told());
    Ok(())
}
