//! What to do with one object, given how its owners are. Pure.
//!
//! upstream: pkg/controller/garbagecollector/garbagecollector.go attemptToDeleteItem

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// How an owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It is there.
    Solid,
    /// It is gone.
    Absent,
    /// It waits for its dependents to go.
    Waiting,
}

/// How an object is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Background,
    Foreground,
    Orphan,
}

impl Policy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It stays as it is.
    Keep,
    /// It stays, without these owners.
    Disown(Vec<String>),
    /// It goes.
    Delete(Policy),
    /// It goes and stops holding up its owners: a circle would never end otherwise.
    UnblockAndDelete,
}

/// What is known of the object itself.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// It has dependents of its own.
    pub has_dependents: bool,
    /// One of them waits for its own dependents.
    pub dependent_waits: bool,
    /// It has the finalizer `orphan`.
    pub orphan: bool,
    /// It has the finalizer `foregroundDeletion`.
    pub foreground: bool,
}

pub(super) fn decide(owners: &[(OwnerReference, OwnerState)], subject: &Subject) -> Decision {
    let any = |state: OwnerState| owners.iter().any(|(_, known)| *known == state);
    if owners.is_empty() {
        return Decision::Keep;
    }
    if any(OwnerState::Solid) {
        let gone = owners.iter().filter(|(_, state)| *state != OwnerState::Solid);
        let gone: Vec<String> = gone.map(|(owner, _)| owner.uid.clone()).collect();
        return if gone.is_empty() { Decision::Keep } else { Decision::Disown(gone) };
    }
    if any(OwnerState::Waiting) && subject.has_dependents {
        return if subject.dependent_waits {
            Decision::UnblockAndDelete
        } else {
            Decision::Delete(Policy::Foreground)
        };
    }
    Decision::Delete(match subject {
        Subject { orphan: true, .. } => Policy::Orphan,
        Subject { foreground: true, .. } => Policy::Foreground,
        _ => Policy::Background,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_follows_its_owners() {
        let plain = Subject::default;
        for (name, owners, subject, want) in [
            ("no owner", "", plain(), Decision::Keep),
            ("owner is there", "a:solid", plain(), Decision::Keep),
            ("owner is gone", "a:absent", plain(), Decision::Delete(Policy::Background)),
            ("all are gone", "a:absent b:absent", plain(), Decision::Delete(Policy::Background)),
            ("one of two is gone", "a:solid b:absent", plain(), Decision::Disown(vec!["b".into()])),
            ("one of two waits", "a:solid b:waiting", plain(), Decision::Disown(vec!["b".into()])),
            ("owner waits", "a:waiting", plain(), Decision::Delete(Policy::Background)),
            (
                "owner waits, it has dependents",
                "a:waiting",
                Subject { has_dependents: true, ..plain() },
                Decision::Delete(Policy::Foreground),
            ),
            (
                "a circle",
                "a:waiting",
                Subject { has_dependents: true, dependent_waits: true, ..plain() },
                Decision::UnblockAndDelete,
            ),
            ("it orphans", "a:absent", Subject { orphan: true, ..plain() }, Decision::Delete(Policy::Orphan)),
            (
                "it waits itself",
                "a:absent",
                Subject { foreground: true, ..plain() },
                Decision::Delete(Policy::Foreground),
            ),
        ] {
            let owners: Vec<(OwnerReference, OwnerState)> = owners
                .split_whitespace()
                .map(|word| {
                    let (uid, state) = word.split_once(':').expect("uid:state");
                    let state = match state {
                        "solid" => OwnerState::Solid,
                        "absent" => OwnerState::Absent,
                        _ => OwnerState::Waiting,
                    };
                    (OwnerReference { uid: uid.into(), ..OwnerReference::default() }, state)
                })
                .collect();
            assert_eq!(decide(&owners, &subject), want, "{name}");
        }
    }
}
