//! The published schema of each built-in type, as text, inflated package by package while one document is
//! rendered.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;

use flate2::read::DeflateDecoder;

static BLOB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.bin"));

/// Schemas of the packages that were needed so far; lives as long as one rendering.
#[derive(Default)]
pub(super) struct Schemas {
    packages: BTreeMap<&'static str, Package>,
}

/// One inflated package and where its types are.
struct Package {
    text: String,
    types: BTreeMap<String, Range<usize>>,
}

/// Reads the formats of `build/openapi.rs`; both are products of our own build.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        taken
    }
    fn short(&mut self) -> usize {
        let b = self.take(2);
        usize::from(u16::from_le_bytes([b[0], b[1]]))
    }
    fn word(&mut self) -> usize {
        let b = self.take(4);
        u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize
    }
    fn str(&mut self, len: usize) -> &'a str {
        std::str::from_utf8(self.take(len)).expect("the build packs only UTF-8")
    }
}

impl Schemas {
    /// The schema of a type as OpenAPI v3 JSON.
    pub(super) fn get(&mut self, name: &str) -> Option<&str> {
        let (package, _) = name.rsplit_once('.')?;
        let package = match self.packages.get(package) {
            Some(_) => &self.packages[package],
            None => {
                let (key, loaded) = Package::load(package)?;
                self.packages.entry(key).or_insert(loaded)
            }
        };
        package.types.get(name).map(|range| &package.text[range.clone()])
    }
}

impl Package {
    fn load(wanted: &str) -> Option<(&'static str, Package)> {
        let mut index = Cursor { bytes: BLOB, at: 0 };
        let mut found = None;
        for _ in 0..index.word() {
            let len = index.short();
            let name = index.str(len);
            let (offset, len) = (index.word(), index.word());
            if name == wanted {
                found = Some((name, offset, len));
            }
        }
        let (name, offset, len) = found?;
        let start = index.at + offset;
        let mut text = String::new();
        let mut decoder = DeflateDecoder::new(&BLOB[start..start + len]);
        let mut bytes = Vec::new();
        decoder.read_to_end(&mut bytes).expect("the build packs whole chunks");
        let mut types = BTreeMap::new();
        let mut cursor = Cursor { bytes: &bytes, at: 0 };
        while cursor.at < bytes.len() {
            let len = cursor.short();
            let name = cursor.str(len).to_owned();
            let len = cursor.word();
            let from = text.len();
            text.push_str(cursor.str(len));
            types.insert(name, from..text.len());
        }
        Some((name, Package { text, types }))
    }
}
