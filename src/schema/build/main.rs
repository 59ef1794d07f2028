//! Packs the facts of `api/` into one binary for `packed.rs`.
//!
//! Fails the build when the facts contradict themselves: an unknown type, a duplicate field, a malformed tag.

mod facts;
mod pack;
mod texts;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let api = root.join("../../api");
    println!("cargo::rerun-if-changed=build");
    for part in ["types", "resources.json", "feature-gates.json", "texts.json"] {
        println!("cargo::rerun-if-changed={}", api.join(part).display());
    }
    let facts =
        facts::Facts::load(&api).unwrap_or_else(|error| panic!("{}: {error}", Path::new("api").display()));
    fs::write(out.join("facts.bin"), pack::pack(&facts)).expect("OUT_DIR is writable");
    fs::write(out.join("texts.bin"), texts::pack(&facts.texts)).expect("OUT_DIR is writable");
}
