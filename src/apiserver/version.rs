//! Who we say we are.

/// `GOOS/GOARCH`
pub const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// The Kubernetes version whose API is served, with our own behind the plus sign.
pub const GIT_VERSION: &str = concat!("v1.36.3+copepod.", env!("CARGO_PKG_VERSION"));

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
  "gitTreeState": "clean",
  "buildDate": "1970-01-01T00:00:00Z",
  "goVersion": "rustc",
  "compiler": "rustc",
  "platform": "{PLATFORM}"
}}"#
    )
}
