//! Where a resource's types live: among the built-in ones, or in a universe of its own (custom resources).

use std::ops::Deref;
use std::sync::Arc;

use copepod_schema::Universe;

/// A universe, shared.
#[derive(Clone)]
pub enum Types {
    /// The built-in types.
    Builtin,
    /// Made at run time.
    Own(Arc<Universe>),
}

impl Deref for Types {
    type Target = Universe;
    fn deref(&self) -> &Universe {
        match self {
            Types::Builtin => Universe::builtin(),
            Types::Own(universe) => universe,
        }
    }
}
