//! Two answers side by side: what differs, and the cause by which differences are grouped.

use regex::Regex;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Headers that clients act on. Of the last group only the presence counts: each server has values of its own.
const HEADERS: [&str; 11] = [
    "content-type",
    "warning",
    "retry-after",
    "allow",
    "cache-control",
    "etag",
    "content-encoding",
    "location",
    "x-content-type-options",
    "www-authenticate",
    "vary",
];
const HEADERS_PRESENT: [&str; 3] =
    ["audit-id", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];
/// Of one answer; more says nothing more.
const PLACES_MAX: usize = 20;

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Index of the step; the number of steps for what is seen at the end (etcd).
    pub step: usize,
    /// By which differences are grouped: verb, place and message in general terms.
    pub cause: String,
    /// The resource that shows it.
    pub resource: String,
    /// Upstream's answer, normalised.
    pub upstream: String,
    /// Ours.
    pub ours: String,
    /// What follows in the script follows from this.
    pub hard: bool,
}

/// An answer, normalised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Status code.
    pub code: u16,
    /// Headers that matter.
    pub headers: Vec<(String, String)>,
    /// Normalised text.
    pub body: String,
}

impl Seen {
    /// The headers that matter of an answer, `normalise` being applied to values.
    pub fn headers(
        answer: &super::server::Answer,
        mut normalise: impl FnMut(&str) -> String,
    ) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for name in HEADERS {
            headers.extend(answer.header(name).iter().map(|v| (name.to_string(), normalise(v))));
        }
        for name in HEADERS_PRESENT {
            if !answer.header(name).is_empty() {
                headers.push((name.into(), "present".into()));
            }
        }
        headers
    }
}

/// Compares the answers to one step, which asks for `verb` of `resource`.
pub fn answers(step: usize, (verb, resource): (&str, &str), upstream: &Seen, ours: &Seen) -> Vec<Difference> {
    let difference = |cause: String, hard| Difference {
        step,
        cause: format!("{verb}: {cause}"),
        resource: resource.into(),
        upstream: format!("{}\n{}", head(upstream), upstream.body),
        ours: format!("{}\n{}", head(ours), ours.body),
        hard,
    };
    if upstream.code != ours.code {
        let message = |seen: &Seen| {
            let tree: Json = serde_json::from_str(&seen.body).unwrap_or_default();
            let message = tree["message"].as_str().map(shape);
            message.filter(|_| seen.code >= 400).map(|m| format!(" ({m})")).unwrap_or_default()
        };
        let cause = format!("code {}{} but {}{}", upstream.code, message(upstream), ours.code, message(ours));
        return vec![difference(cause, true)];
    }
    let mut out = Vec::new();
    for name in HEADERS.iter().chain(&HEADERS_PRESENT) {
        let values = |seen: &Seen| -> Vec<String> {
            seen.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
        };
        let (theirs, own) = (values(upstream), values(ours));
        if theirs != own {
            let text = |values: &[String]| values.iter().map(|v| shape(v)).collect::<Vec<_>>().join(" | ");
            let mut found =
                difference(format!("header {name} '{}' but '{}'", text(&theirs), text(&own)), false);
            if HEADERS_PRESENT.contains(name) {
                // The same for whatever is asked.
                found.cause = format!("header {name} '{}' but '{}'", text(&theirs), text(&own));
            }
            out.push(found);
        }
    }
    out.extend(bodies(&upstream.body, &ours.body).into_iter().map(|cause| difference(cause, false)));
    out
}

fn head(seen: &Seen) -> String {
    let headers: Vec<String> = seen.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
    format!("{}\n{}", seen.code, headers.join("\n"))
}

/// What differs in two normalised bodies.
pub fn bodies(upstream: &str, ours: &str) -> Vec<String> {
    if upstream == ours {
        return Vec::new();
    }
    let parse = |text: &str| serde_json::from_str::<Json>(text.trim());
    let (Ok(theirs), Ok(own)) = (parse(upstream), parse(ours)) else {
        return vec![format!("text '{}' but '{}'", shape(first_line(upstream)), shape(first_line(ours)))];
    };
    let kind = |tree: &Json| tree["kind"].as_str().unwrap_or("").to_string();
    if kind(&theirs) != kind(&own) {
        return vec![format!("a {} but a {}", kind(&theirs), kind(&own))];
    }
    let mut places = Vec::new();
    trees("", &theirs, &own, &mut places);
    if places.is_empty() && theirs == own {
        return vec!["the same tree in another layout".into()];
    }
    let unique: BTreeSet<String> = places.into_iter().collect();
    unique.into_iter().take(PLACES_MAX).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

fn trees(place: &str, upstream: &Json, ours: &Json, out: &mut Vec<String>) {
    match (upstream, ours) {
        (Json::Object(theirs), Json::Object(own)) => {
            if let (Some(t), Some(o)) = (theirs.get("causes"), own.get("causes"))
                && t != o
            {
                causes(t, o, out);
                // The message and the details repeat the causes.
                return;
            }
            // The message repeats the causes, in their order.
            let reordered = reordered(&upstream["details"]["causes"], &ours["details"]["causes"]);
            for (key, value) in theirs.iter().filter(|(key, _)| !(reordered && *key == "message")) {
                let place = format!("{place}/{}", word(key));
                match own.get(key) {
                    Some(other) => trees(&place, value, other, out),
                    None => {
                        // What a member means often hangs on the type beside it.
                        let of = theirs.get("type").and_then(Json::as_str);
                        let of = of.map_or(String::new(), |of| format!(", type {of}"));
                        out.push(format!("{place} is missing ({}{of})", brief(value)));
                    }
                }
            }
            for (key, value) in own.iter().filter(|(k, _)| !theirs.contains_key(*k)) {
                out.push(format!("{place}/{} is too much ({})", word(key), brief(value)));
            }
            // A Status: its causes tell more than its message.
            if out.iter().any(|o| o.contains("cause ")) {
                out.retain(|o| !o.starts_with("/message"));
            }
        }
        (Json::Array(theirs), Json::Array(own)) => {
            if theirs.len() != own.len() {
                out.push(format!("{place} has another length"));
                return;
            }
            for (value, other) in theirs.iter().zip(own) {
                trees(&format!("{place}/*"), value, other, out);
            }
        }
        (Json::String(their), Json::String(own)) if their != own => {
            out.push(format!("{place} {}", words(their, own)));
        }
        _ if upstream != ours => {
            out.push(format!("{place} {} but {}", brief(upstream), brief(ours)));
        }
        _ => {}
    }
}

/// The causes of a Status as a set, then their order.
fn causes(upstream: &Json, ours: &Json, out: &mut Vec<String>) {
    let list = |causes: &Json| -> Vec<String> {
        causes
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| {
                let text = |name: &str| c[name].as_str().unwrap_or("").to_string();
                format!("{} {}: {}", text("reason"), shape(&text("field")), shape(&text("message")))
            })
            .collect()
    };
    let (theirs, own) = (list(upstream), list(ours));
    out.extend(theirs.iter().filter(|c| !own.contains(c)).map(|c| format!("cause missing: {c}")));
    out.extend(own.iter().filter(|c| !theirs.contains(c)).map(|c| format!("cause too much: {c}")));
    if theirs != own {
        let steady = |causes: &[String]| -> Vec<String> {
            causes.iter().filter(|c| !is_of_a_map(c)).cloned().collect()
        };
        if reordered(upstream, ours) && steady(&theirs) != steady(&own) {
            out.push("causes in another order".into());
        }
    } else {
        let pairs = upstream.as_array().into_iter().flatten().zip(ours.as_array().into_iter().flatten());
        for (their, own) in pairs.filter(|(t, o)| t != o) {
            let text = |c: &Json| {
                format!("{} {}", c["field"].as_str().unwrap_or(""), c["message"].as_str().unwrap_or(""))
            };
            out.push(format!("cause words: {}", words(&text(their), &text(own))));
        }
    }
}

/// Whether two lists of causes hold the same ones in different orders.
fn reordered(upstream: &Json, ours: &Json) -> bool {
    let (Some(theirs), Some(own)) = (upstream.as_array(), ours.as_array()) else { return false };
    let sorted = |causes: &[Json]| {
        let mut texts: Vec<String> = causes.iter().map(Json::to_string).collect();
        texts.sort();
        texts
    };
    theirs != own && sorted(theirs) == sorted(own)
}

/// Upstream looks at resources, and at the managers that an apply has conflicts with, in the order of a Go map, which is
/// another one each time.
/// upstream: pkg/apis/core/validation ValidateContainerResourceRequirements; structured-merge-diff ConflictsFromManagers
fn is_of_a_map(cause: &str) -> bool {
    let parts = ["FieldManagerConflict ", ".resources.requests", ".resources.limits"];
    parts.iter().any(|part| cause.contains(part))
}

/// Two texts in general terms, or, where those are the same, the first place where they part.
fn words(upstream: &str, ours: &str) -> String {
    let (theirs, own) = (shape(upstream), shape(ours));
    if theirs != own {
        return format!("'{theirs}' but '{own}'");
    }
    if upstream.len() > LONG_BYTES {
        return "parts inside of a long value".into();
    }
    let same = upstream.chars().zip(ours.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| -> String {
        let part: String = text.chars().skip(same.saturating_sub(PART_CHARS)).take(2 * PART_CHARS).collect();
        part.chars().map(|c| if c.is_ascii_digit() { 'N' } else { c }).collect()
    };
    format!("…{}… but …{}…", part(upstream), part(ours))
}

/// Whole objects in messages: where they part says nothing about the cause.
const LONG_BYTES: usize = 400;

/// Shown before and after the place where two texts part.
const PART_CHARS: usize = 24;

fn brief(value: &Json) -> String {
    match value {
        Json::String(text) => format!("'{}'", shape(text)),
        Json::Array(_) => "a list".into(),
        Json::Object(_) => "an object".into(),
        other => shape(&other.to_string()),
    }
}

/// At most this much of a message in a cause.
const SHAPE_CHARS_MAX: usize = 260;

/// Text in general terms: quoted parts and numbers do not matter.
pub fn shape(text: &str) -> String {
    static WORDS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let pairs = [
            (r#"\\?"(?:[^"\\]|\\.)*"|'[^']*'"#, "\"…\""),
            (r"<([a-z]+)-\d+>", "<$1>"),
            (r"\[\d+\]", "[*]"),
            (r"Go struct field \S+", "Go struct field *"),
            (r"\b\d[\d.]*[a-zA-Z]{0,2}\b", "N"),
            (r"\bd[0-9a-z]*-\d+(-[a-z])?\b", "NAME"),
        ];
        pairs.into_iter().filter_map(|(p, with)| Some((Regex::new(p).ok()?, with))).collect()
    });
    let mut out = text.to_string();
    for (pattern, with) in WORDS.iter() {
        out = pattern.replace_all(&out, *with).into_owned();
    }
    out.chars().take(SHAPE_CHARS_MAX).collect()
}

/// A member's name in general terms: keys of maps are free.
fn word(key: &str) -> String {
    shape(key)
}
