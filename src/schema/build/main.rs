//! Packs the facts of `api/` into one binary for `packed.rs`.
//!
//! Fails the build when the facts contradict themselves: an unknown type, a duplicate field, a malformed tag.

#![allow(clippy::panic, reason = "a build script fails by panicking, and cargo shows the words")]

mod facts;
mod openapi;
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
    let packed = pack::pack(&facts);
    let texts = texts::collect(&facts.texts);
    let openapi = openapi::pack(&facts, &texts);
    println!("cargo::rustc-env=COPEPOD_FACTS_HASH={}", hash(&[&packed, &openapi]));
    fs::write(out.join("facts.bin"), packed).expect("OUT_DIR is writable");
    fs::write(out.join("openapi.bin"), openapi).expect("OUT_DIR is writable");
}

/// FNV-1a over all parts: names a state, guards nothing.
fn hash(parts: &[&[u8]]) -> String {
    let mut state: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        state = (state ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    }
    format!("{state:032X}")
}
