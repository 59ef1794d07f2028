//! What strict decoding complains about: unknown and duplicate fields, in upstream's words, once each, a
//! hundred at most.
//! upstream: sigs.k8s.io/json internal/golang/encoding/json/kubernetes_patch.go saveStrictError

use std::collections::HashSet;

use copepod_meta::field::quote;

use crate::json::Frame;

/// upstream: the same place.
const ERRORS_MAX: usize = 100;

/// Complaints so far.
#[derive(Default)]
pub(crate) struct StrictErrors {
    messages: Vec<String>,
    seen: HashSet<String>,
    /// Inside hand-written types upstream decodes without looking for these.
    pub(crate) muted: bool,
}

impl StrictErrors {
    pub(crate) fn unknown(&mut self, frame: &Frame, name: &str) {
        self.add("unknown field", frame, name);
    }

    pub(crate) fn duplicate(&mut self, frame: &Frame, name: &str) {
        self.add("duplicate field", frame, name);
    }

    fn add(&mut self, what: &str, frame: &Frame, name: &str) {
        if self.muted || self.messages.len() >= ERRORS_MAX {
            return;
        }
        let mut path = frame.strict_path();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        let message = format!("{what} {}", quote(&path));
        if self.seen.insert(message.clone()) {
            self.messages.push(message);
        }
    }

    pub(crate) fn into_messages(self) -> Vec<String> {
        self.messages
    }
}
