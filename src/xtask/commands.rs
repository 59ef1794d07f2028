//! The program from outside. That this test exists makes `cargo test --workspace` build the program too, with the features
//! of all the other tests, so that `hack/test` has it without building its dependencies anew.

use std::process::Command;

fn xtask(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("the program runs")
}

#[test]
fn without_a_command_it_names_them() {
    let output = xtask(&[]);
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{told}");
    for command in ["tidy", "layers", "kinds", "conformance", "diff", "bench", "measure-start"] {
        assert!(told.contains(command), "{command}: {told}");
    }
}

#[test]
fn the_long_commands_explain_themselves() {
    for (command, option) in [("conformance", "--swap"), ("diff", "--seed"), ("bench", "--quick")] {
        let output = xtask(&[command, "--help"]);
        let told = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && told.contains(option), "{command}: {told}");
    }
}
