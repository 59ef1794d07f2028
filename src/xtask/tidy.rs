//! House rules that no compiler knows.
//!
//! * a file has at most [`LINES_MAX`] lines; exceptions stand in `tidy-exceptions.txt` and may only shrink;
//! * a line has at most [`COLUMNS_MAX`] columns unless it holds text that cannot be broken;
//! * a module says at its top what it is;
//! * nothing says "later".

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where Rust of ours lies.
const FOLDERS: [&str; 2] = ["src", "conformance"];
const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 140;

/// All findings; none: tidy.
pub fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut exceptions = exceptions(&root.join("src/xtask/tidy-exceptions.txt"))?;
    let mut findings = Vec::new();
    for file in FOLDERS
        .iter()
        .map(|folder| rust_files(&root.join(folder)))
        .collect::<anyhow::Result<Vec<_>>>()?
        .concat()
    {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let text = std::fs::read_to_string(&file).with_context(|| name.clone())?;
        check_file(&name, &text, exceptions.remove(&name), &mut findings);
    }
    findings.extend(
        exceptions.into_keys().map(|name| format!("{name}: is an exception but not there: remove it")),
    );
    Ok(findings)
}

fn check_file(name: &str, text: &str, allowed: Option<usize>, findings: &mut Vec<String>) {
    let lines = text.lines().count();
    match allowed {
        None if lines > LINES_MAX => {
            findings.push(format!("{name}: {lines} lines; at most {LINES_MAX}: give each subject a file"))
        }
        Some(most) if lines > most => {
            findings.push(format!("{name}: {lines} lines; its exception allows {most} and may only shrink"))
        }
        Some(_) if lines <= LINES_MAX => {
            findings.push(format!("{name}: {lines} lines: no exception is needed any more"))
        }
        _ => {}
    }
    if !text.starts_with("//!") {
        findings.push(format!("{name}: says nothing about itself (//! at its top)"));
    }
    // This file names the words that it looks for.
    if name.ends_with("xtask/tidy.rs") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{name}:{}", number + 1);
        // Text, addresses and rows of a table cannot be broken.
        let literal = line.contains('"') || line.contains("http") || line.trim_start().starts_with("//! |");
        if line.chars().count() > COLUMNS_MAX && !literal {
            findings.push(format!("{}: longer than {COLUMNS_MAX} columns", place()));
        }
        if ["TODO", "FIXME", "HACK:"].iter().any(|w| line.contains(w)) && !literal {
            findings.push(format!("{}: says 'later'", place()));
        }
    }
}

/// `path lines` a line.
fn exceptions(path: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (name, lines) = line.split_once(' ').with_context(|| line.to_string())?;
            Ok((name.to_string(), lines.parse().with_context(|| line.to_string())?))
        })
        .collect()
}

fn rust_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            out.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        assert_eq!(check(&crate::root()).expect("reads the tree"), Vec::<String>::new());
    }

    #[test]
    fn each_rule_can_fail() {
        let long = format!("//! x\n{}", "\n".repeat(LINES_MAX));
        for (text, allowed, want) in [
            ("//! x\n", None, ""),
            ("fn x() {}\n", None, "says nothing about itself"),
            ("//! x\n// TODO\n", None, "says 'later'"),
            (long.as_str(), None, "give each subject a file"),
            (long.as_str(), Some(LINES_MAX + 1), ""),
            (long.as_str(), Some(1), "may only shrink"),
            ("//! x\n", Some(1000), "no exception is needed"),
        ] {
            let mut findings = Vec::new();
            check_file("f.rs", text, allowed, &mut findings);
            assert!(
                findings.join("\n").contains(want) && findings.is_empty() == want.is_empty(),
                "{findings:?} {want}"
            );
        }
    }
}
