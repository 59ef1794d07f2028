//! Knowing that something in a directory changed; the watch itself is everybody's.

pub use copepod_serve::directory::{DirectoryWatch, FILES, GROWTH};
