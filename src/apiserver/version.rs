//! Who we say we are.

/// `GOOS/GOARCH`
pub const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// The Kubernetes version whose API is served, with our own behind the plus sign.
pub const GIT_VERSION: &str = concat!("v1.36.3+copepod.", env!("CARGO_PKG_VERSION"));

/// What Go's linker would fill in and nobody does here: a build is the same whenever it is made.
pub const BUILD_DATE: &str = "1970-01-01T00:00:00Z";
/// The tree from which the build was made.
pub const TREE_STATE: &str = "clean";
/// In the place of Go's.
pub const COMPILER: &str = "rustc";

/// The document of `/version`, in upstream's layout.
pub fn document() -> String {
    format!(
        r#"{{
  "major": "1",
  "minor": "36",
  "emulationMajor": "1",
  "emulationMinor": "36",
  "minCompatibilityMajor": "1",
  "minCompatibilityMinor": "35",
  "gitVersion": "{GIT_VERSION}",
  "gitCommit": "",
  "gitTreeState": "{TREE_STATE}",
  "buildDate": "{BUILD_DATE}",
  "goVersion": "{COMPILER}",
  "compiler": "{COMPILER}",
  "platform": "{PLATFORM}"
}}"#
    )
}
