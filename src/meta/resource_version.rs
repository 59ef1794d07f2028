//! Revisions of the store as clients see them.

use std::fmt;

/// A position in the store's history; etcd's revision. Zero means "none" or "any", as the place says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(pub u64);

/// A resourceVersion that is no decimal number, or one too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseUint: parsing {0:?}: {why}", why = self.why())]
pub struct ParseResourceVersionError(pub String);

impl ParseResourceVersionError {
    fn why(&self) -> &'static str {
        let digits = !self.0.is_empty() && self.0.bytes().all(|b| b.is_ascii_digit());
        if digits { "value out of range" } else { "invalid syntax" }
    }
}

impl ResourceVersion {
    /// Parses what a client sent; "" and "0" are zero.
    /// upstream: apiserver/pkg/storage/etcd3/api_object_versioner.go ParseResourceVersion
    pub fn parse(s: &str) -> Result<ResourceVersion, ParseResourceVersionError> {
        if s.is_empty() {
            return Ok(ResourceVersion(0));
        }
        // `u64::from_str` takes a leading plus sign, Go does not.
        if !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseResourceVersionError(s.into()));
        }
        s.parse().map(ResourceVersion).map_err(|_| ParseResourceVersionError(s.into()))
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
