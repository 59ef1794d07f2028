//! The machinery behind one stored resource.

/// One stored resource: its cache, keys and codecs.
pub struct Collection {}
