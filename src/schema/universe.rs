//! A universe: types that refer to each other by index, and the ways to find one.
//!
//! Owns the types. Built-in types are decoded from the packed facts one at a time, when first asked for, so
//! that a start pays for nothing it does not use. A custom resource's universe is built whole.
//!
//! Invariant: a [`TypeId`] handed out by a universe is valid for as long as the universe lives; types never
//! change.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use copepod_meta::Gvk;

use crate::crd::Constraints;
use crate::packed;
use crate::types::{Field, Name, Omit, StructType, Type, TypeId};

/// Types that refer to each other by [`TypeId`].
pub struct Universe {
    slots: Box<[OnceLock<Type>]>,
    source: Source,
    /// Custom resources: what the schema demands at each position.
    constraints: HashMap<TypeId, Constraints>,
}

enum Source {
    /// Decoded on demand from the packed facts.
    Packed,
    /// Everything is in `slots` already.
    Built { by_name: HashMap<Name, TypeId>, by_gvk: HashMap<Gvk, TypeId> },
}

static BUILTIN: LazyLock<Universe> = LazyLock::new(|| Universe {
    slots: (0..packed::type_count()).map(|_| OnceLock::new()).collect(),
    source: Source::Packed,
    constraints: HashMap::new(),
});

impl Universe {
    /// The built-in types.
    pub fn builtin() -> &'static Universe {
        &BUILTIN
    }

    /// A universe of types made at run time; `types[i]` is `TypeId(i)`.
    pub fn from_types(types: Vec<Type>, by_gvk: HashMap<Gvk, TypeId>) -> Universe {
        let mut by_name = HashMap::new();
        for (i, ty) in types.iter().enumerate() {
            if let Type::Struct(s) = ty
                && !s.name.is_empty()
            {
                by_name.insert(s.name.clone(), TypeId(i as u32));
            }
        }
        Universe {
            slots: types.into_iter().map(OnceLock::from).collect(),
            source: Source::Built { by_name, by_gvk },
            constraints: HashMap::new(),
        }
    }

    pub(crate) fn set_constraints(&mut self, constraints: HashMap<TypeId, Constraints>) {
        self.constraints = constraints;
    }

    /// What a custom resource's schema demands of the value at this position; built-in types have none here.
    pub fn constraints(&self, id: TypeId) -> Option<&Constraints> {
        self.constraints.get(&id)
    }

    /// The type with this index.
    ///
    /// # Panics
    /// If the index is another universe's: a programming error.
    pub fn get(&self, id: TypeId) -> &Type {
        self.slots[id.0 as usize].get_or_init(|| packed::decode_type(id))
    }

    /// The struct with this index, if it is a struct.
    pub fn get_struct(&self, id: TypeId) -> Option<&StructType> {
        self.get(id).as_struct()
    }

    /// Which of a struct's first 64 fields JSON shows of an object that does not have them, a bit each: null, or Go's zero value.
    pub fn always_written(&self, ty: &StructType) -> u64 {
        *ty.always_written.get_or_init(|| {
            let shows = |field: &Field| match field.omit {
                Omit::Never => true,
                // Structs to Go, so never empty.
                Omit::Empty => {
                    !field.pointer && matches!(self.get(field.ty), Type::Struct(_) | Type::Special(_))
                }
                Omit::Zero => false,
            };
            let fields = ty.fields.iter().take(64).enumerate();
            fields.filter(|(_, field)| shows(field)).fold(0, |mask, (index, _)| mask | 1 << index)
        })
    }

    /// The type registered for a kind.
    pub fn by_gvk(&self, gvk: &Gvk) -> Option<TypeId> {
        match &self.source {
            Source::Packed => packed::find_gvk(&gvk.group, &gvk.version, &gvk.kind),
            Source::Built { by_gvk, .. } => by_gvk.get(gvk).copied(),
        }
    }

    /// The type with this OpenAPI-like name, `io.k8s.api.core.v1.Pod`.
    pub fn by_name(&self, name: &str) -> Option<TypeId> {
        match &self.source {
            Source::Packed => packed::find_name(name),
            Source::Built { by_name, .. } => by_name.get(name).copied(),
        }
    }

    /// How many types there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True for a universe without types.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// True for a custom resource's universe: values keep nulls and everything the schema allows, fields are
    /// written in key order, nothing is left out for being empty.
    pub fn is_unstructured(&self) -> bool {
        matches!(self.source, Source::Built { .. })
    }
}
