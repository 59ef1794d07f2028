//! Taints and the tolerations that cover them.

use copepod_meta::scheduling::{TaintWords, covers};
use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn text(value: &Option<String>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    let words = TaintWords {
        key: text(&toleration.key),
        value: text(&toleration.value),
        effect: text(&toleration.effect),
    };
    let taint = TaintWords { key: &taint.key, value: text(&taint.value), effect: &taint.effect };
    covers(words, text(&toleration.operator), taint)
}
