//! What no two servers share gets a name of its own: the first uid that a server shows is `uid-1`, on both.
//!
//! Names are given in order of appearance and kept for a script, so that a uid which changes where it should not, a
//! write that makes a new revision where none should be made, and the like are seen. Text is rewritten in place, so
//! that what is compared still has its order of members, its escapes and its layout.

use regex::{Captures, Regex};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

/// Times nearer to now than this were made by a server.
const OWN_TIME_SECONDS: i64 = 2 * 24 * 3600;

/// Only constants are given to it, and tests run through all of them.
#[allow(clippy::expect_used)]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern that tests have compiled")
}

static UID: LazyLock<Regex> =
    LazyLock::new(|| pattern("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
static TIME: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2})(\.\d+)?(Z| \+0000 UTC)( m=\S+)?"));
/// Ages in tables and durations in messages.
static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{1,2}s$"));
static SERVICE_IP: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b10\.96\.\d{1,3}\.\d{1,3}\b"));
static REVISION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)(resource ?version[^0-9]{0,40}|too old [^0-9]*\(?|current: |ModRevision: )(\d+)")
});
/// A script's `generateName`, in JSON or YAML.
static GENERATE_NAME: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#""?generateName"?: ?("[^"\\]+"|[^"\s,}]+)"#));
/// A chosen port in the cell of a Table.
static PORT_CELL: LazyLock<Regex> = LazyLock::new(|| pattern(r":(3[0-2]\d{3})/"));
/// Go prints pointers and addresses of some types.
static POINTER: LazyLock<Regex> = LazyLock::new(|| pattern(r"0x?c[0-9a-f]{9}\b"));

/// The names given on one side.
#[derive(Clone, Default)]
pub struct Names {
    given: HashMap<(&'static str, String), usize>,
    counts: HashMap<&'static str, usize>,
    /// Addresses and ports that the script itself asks for stay.
    script: String,
    /// Names that the server completed: of the volume that it adds to pods, and of the script's `generateName`s.
    generated: Option<Arc<Regex>>,
}

/// What the server puts behind `generateName`. Generated ones end in `-gen-`, behind the name of a namespace that the script does not
/// know.
fn generated(script: &str) -> Option<Arc<Regex>> {
    let asked = GENERATE_NAME.captures_iter(script).map(|m| regex::escape(m[1].trim_matches('"')));
    let prefixes: BTreeSet<String> =
        asked.chain(["kube-api-access-".to_string(), "-gen-".to_string()]).collect();
    let prefixes: Vec<String> = prefixes.into_iter().collect();
    // A prefix that makes no pattern is left as it is: its names then show as differences.
    Regex::new(&format!("({})([bcdfghjklmnpqrstvwxz2456789]{{5}})\\b", prefixes.join("|"))).ok().map(Arc::new)
}

impl Names {
    /// Nothing seen yet; values that are in `script` are not normalised.
    pub fn new(script: String) -> Names {
        Names { generated: generated(&script), script, ..Names::default() }
    }

    fn name(&mut self, class: &'static str, value: &str) -> String {
        let next = self.counts.entry(class).or_insert(0);
        let number = *self.given.entry((class, value.to_string())).or_insert_with(|| {
            *next += 1;
            *next
        });
        format!("<{class}-{number}>")
    }

    /// JSON text with every string normalised as its place demands; other text as one string.
    pub fn text(&mut self, text: &str) -> String {
        if !text.trim_start().starts_with(['{', '[', '"']) {
            return self.string("", text, false);
        }
        let tree: serde_json::Value = serde_json::from_str(text.trim()).unwrap_or_default();
        let list = |v: &serde_json::Value| {
            let kind = v["kind"].as_str().unwrap_or("");
            kind.ends_with("List") || kind == "Table" || v["type"] == "BOOKMARK"
        };
        let list = list(&tree) || list(&tree["object"]);
        Rewriter { names: self, list, keys: Vec::new(), key: String::new(), out: String::new() }.run(text)
    }

    /// A string under the member `key`; `list_meta`: it belongs to a list's metadata.
    fn string(&mut self, key: &str, text: &str, list_meta: bool) -> String {
        match key {
            "resourceVersion" if list_meta => return "<rv>".into(),
            "resourceVersion" if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                return if text == "0" { text.into() } else { self.name("rv", text) };
            }
            "continue" if !text.is_empty() => return "<continue>".into(),
            _ if AGE.is_match(text) => return "<age>".into(),
            _ => {}
        }
        let mut out = self.pattern(&UID, text, |names, m| names.name("uid", &m[0]));
        out = self.pattern(&TIME, &out, |_, m| if own_time(&m[1]) { "<time>".into() } else { m[0].into() });
        out = self.pattern(&SERVICE_IP, &out, |names, m| {
            if names.script.contains(&m[0]) || m[0].ends_with(".0.1") || m[0].ends_with(".0.0") {
                m[0].into()
            } else {
                names.name("ip", &m[0])
            }
        });
        out = self.pattern(&REVISION, &out, |_, m| format!("{}<rv>", &m[1]));
        out = self.pattern(&POINTER, &out, |_, _| "<pointer>".into());
        out = self.pattern(&PORT_CELL, &out, |names, m| match names.script.contains(&m[1]) {
            true => m[0].into(),
            false => format!(":{}/", names.name("port", &m[1])),
        });
        match self.generated.clone() {
            Some(pattern) => {
                self.pattern(&pattern, &out, |names, m| format!("{}{}", &m[1], names.name("name", &m[2])))
            }
            None => out,
        }
    }

    fn pattern(
        &mut self,
        pattern: &Regex,
        text: &str,
        mut with: impl FnMut(&mut Names, &Captures) -> String,
    ) -> String {
        pattern.replace_all(text, |m: &Captures| with(self, m)).into_owned()
    }

    /// Ports that a server chose.
    fn number(&mut self, key: &str, text: &str) -> String {
        let chosen = matches!(key, "nodePort" | "healthCheckNodePort")
            && text.len() == 5
            && !self.script.contains(text);
        if chosen { format!("\"{}\"", self.name("port", text)) } else { text.into() }
    }
}

fn own_time(time: &str) -> bool {
    let text = format!("{}Z", time.replace(' ', "T"));
    let Ok(time) = text.parse::<jiff::Timestamp>() else { return false };
    (time.as_second() - jiff::Timestamp::now().as_second()).abs() < OWN_TIME_SECONDS
}

/// Goes over JSON text, literal by literal.
struct Rewriter<'a> {
    names: &'a mut Names,
    /// The document's own metadata is a list's.
    list: bool,
    /// The members that the place is in; "" for lists.
    keys: Vec<String>,
    /// The member whose value comes next.
    key: String,
    out: String,
}

impl Rewriter<'_> {
    fn run(mut self, text: &str) -> String {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let end = match bytes[at] {
                b'"' => self.literal(text, at),
                b'0'..=b'9' | b'-' => {
                    let number = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
                    let end = at + bytes[at..].iter().take_while(|b| number(b)).count();
                    let number = self.names.number(&self.key, &text[at..end]);
                    self.out.push_str(&number);
                    end
                }
                b'(' => {
                    // Our own remark behind a document.
                    self.out.push_str(&text[at..]);
                    bytes.len()
                }
                other => {
                    match other {
                        b'{' | b'[' => self.keys.push(std::mem::take(&mut self.key)),
                        b'}' | b']' => {
                            self.keys.pop();
                            self.key.clear();
                        }
                        _ => {}
                    }
                    let end = at + text[at..].chars().next().map_or(1, char::len_utf8);
                    self.out.push_str(&text[at..end]);
                    end
                }
            };
            at = end;
        }
        self.out
    }

    /// A string, which is a member's name if a colon follows.
    fn literal(&mut self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let mut end = start + 1;
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        end = (end + 1).min(bytes.len());
        let raw = &text[start..end];
        let Ok(value) = serde_json::from_str::<String>(raw) else {
            self.out.push_str(raw);
            return end;
        };
        let member = text[end..].trim_start().starts_with(':');
        let list_meta = self.list
            && matches!(self.keys.as_slice(), [.., last] if last == "metadata")
            && !self.keys.iter().any(|k| k == "items" || k == "rows");
        let key = if member { String::new() } else { self.key.clone() };
        let normal = self.names.string(&key, &value, list_meta);
        if normal == value {
            self.out.push_str(raw);
        } else {
            self.out.push_str(&serde_json::Value::from(normal).to_string());
        }
        if member {
            self.key = value;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_gets_a_name_and_what_is_said_stays() {
        let now = jiff::Timestamp::now().to_string();
        let now = format!("{}Z", &now[..19]);
        let uid = |n: u32| format!("00000000-0000-4000-8000-{n:012}");
        let mut names = Names::new(
            "asks for 10.96.7.7 and 30007 {\"generateName\":\"web-gen-\"} generateName: example.com/y\n"
                .into(),
        );
        for (text, want) in [
            (format!(r#"{{"uid":"{}","resourceVersion":"7"}}"#, uid(1)), r#"{"uid":"<uid-1>","resourceVersion":"<rv-1>"}"#),
            (format!(r#"{{"uid":"{}","resourceVersion":"9"}}"#, uid(2)), r#"{"uid":"<uid-2>","resourceVersion":"<rv-2>"}"#),
            (format!(r#"{{"k:{{\"uid\":\"{}\"}}":{{}}}}"#, uid(1)), r#"{"k:{\"uid\":\"<uid-1>\"}":{}}"#),
            (format!(r#"{{"a":"{now}","b":"2020-01-01T00:00:00Z"}}"#), r#"{"a":"<time>","b":"2020-01-01T00:00:00Z"}"#),
            (
                r#"{"kind":"PodList","metadata":{"resourceVersion":"8","continue":"abc"},"items":[{"metadata":{"resourceVersion":"7"}}]}"#.into(),
                r#"{"kind":"PodList","metadata":{"resourceVersion":"<rv>","continue":"<continue>"},"items":[{"metadata":{"resourceVersion":"<rv-1>"}}]}"#,
            ),
            (r#"{"ip":"10.96.7.7","other":"10.96.3.4","nodePort":30007}"#.into(), r#"{"ip":"10.96.7.7","other":"<ip-1>","nodePort":30007}"#),
            (r#"{"nodePort": 31234, "port": 31234}"#.into(), r#"{"nodePort": "<port-1>", "port": 31234}"#),
            (r#"{"m":"pods \"web-gen-x7f2q\" \u003c"}"#.into(), r#"{"m":"pods \"web-gen-<name-1>\" <"}"#),
            ("example.com/yqqbxq example.com/y".into(), "example.com/y<name-2> example.com/y"),
            (r#"{"m":"\u003c","n":"5s"}"#.into(), r#"{"m":"\u003c","n":"<age>"}"#),
            ("ok".into(), "ok"),
        ] {
            assert_eq!(names.text(&text), want);
        }
    }
}
