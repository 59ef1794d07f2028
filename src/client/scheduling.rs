//! The API's tolerations and taints in the words of [`copepod_meta::scheduling`], which decides.

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

#[cfg(test)]
mod tests {
    use super::*;

    /// `covers` has the table of rules; here it is that every field gets to where it belongs.
    #[test]
    fn every_word_of_both_sides_counts() {
        let taint = Taint {
            key: "disk".into(),
            value: Some("slow".into()),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
        for (key, operator, value, effect, want) in [
            ("disk", "Equal", "slow", "NoSchedule", true),
            ("disk", "", "slow", "", true),
            ("", "Exists", "", "", true),
            ("cpu", "Equal", "slow", "NoSchedule", false),
            ("disk", "Equal", "fast", "NoSchedule", false),
            ("disk", "Equal", "slow", "NoExecute", false),
            ("disk", "", "", "", false),
        ] {
            let toleration = Toleration {
                key: text(key),
                operator: text(operator),
                value: text(value),
                effect: text(effect),
                toleration_seconds: None,
            };
            assert_eq!(tolerates(&toleration, &taint), want, "{key} {operator} {value} {effect}");
        }
        let bare = Taint { value: None, ..taint };
        let same = Toleration { key: Some("disk".into()), ..Toleration::default() };
        assert!(tolerates(&same, &bare), "no value on either side is the same value");
    }
}
