//! Upstream's flag syntax (pflag) on top of any parser: value types, and refusing by name what is known and unsupported.
//!
//! A flag that upstream has and Copepod does not is an error with one line that names it. Taking it silently would be a lie:
//! its user relies on what it does.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// A flag of upstream's that is not supported.
#[derive(Clone, Copy, Debug)]
pub struct Unsupported {
    /// Without dashes.
    pub name: &'static str,
    /// Values that ask for what happens anyway (`false`, `""`, upstream's default): taken without effect.
    pub harmless: &'static [&'static str],
    /// What to do instead, or why not.
    pub why: &'static str,
}

/// Why the command line was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Known, not supported.
    #[error("--{name} is a flag of upstream's that this server does not support: {why}")]
    Unsupported {
        /// The flag.
        name: &'static str,
        /// Why.
        why: &'static str,
    },
}

/// Normalises arguments as pflag does and refuses the unsupported ones: `_` in names becomes `-`, harmless settings of unsupported flags
/// are dropped, everything behind `--` stays as it is.
pub fn screen(
    arguments: impl IntoIterator<Item = String>,
    unsupported: &[Unsupported],
) -> Result<Vec<String>, FlagError> {
    let mut out = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            out.push(argument);
            out.extend(arguments);
            break;
        }
        let Some(body) = argument.strip_prefix("--") else {
            out.push(argument);
            continue;
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name.replace('_', "-"), Some(value.to_string())),
            None => (body.replace('_', "-"), None),
        };
        let Some(known) = unsupported.iter().find(|u| u.name == name) else {
            out.push(value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}")));
            continue;
        };
        let value = value.or_else(|| arguments.next_if(|next| !next.starts_with("--")));
        if !known.harmless.contains(&value.as_deref().unwrap_or("true")) {
            return Err(FlagError::Unsupported { name: known.name, why: known.why });
        }
    }
    Ok(out)
}

/// A duration in Go's syntax: `1h2m3.5s`, `300ms`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub Duration);

impl From<GoDuration> for Duration {
    fn from(d: GoDuration) -> Duration {
        d.0
    }
}

impl FromStr for GoDuration {
    type Err = String;
    fn from_str(text: &str) -> Result<GoDuration, String> {
        let invalid = || format!("time: invalid duration {text:?}");
        if text == "0" {
            return Ok(GoDuration::default());
        }
        let mut rest = text;
        let mut seconds = 0f64;
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
            let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let scale = match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
            };
            seconds += number * scale;
            rest = &rest[unit..];
        }
        Duration::try_from_secs_f64(seconds).map(GoDuration).map_err(|_| invalid())
    }
}

/// A boolean in Go's syntax: 1, t, T, TRUE, true, True and their opposites.
pub fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// `key=value,key=value`; of a key given twice the last value counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValues(pub BTreeMap<String, String>);

impl FromStr for KeyValues {
    type Err = String;
    fn from_str(text: &str) -> Result<KeyValues, String> {
        let mut out = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("malformed pair, expect string=string: {pair}"))?;
            out.insert(key.trim().to_string(), value.trim().to_string());
        }
        Ok(KeyValues(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn unsupported_flags_are_refused_by_name() {
        let table = [
            Unsupported { name: "profiling", harmless: &["false"], why: "no profiler" },
            Unsupported { name: "audit-log-path", harmless: &[""], why: "later" },
        ];
        let screened =
            |text: &str| screen(args(text), &table).map(|a| a.join(" ")).map_err(|e| e.to_string());
        assert_eq!(screened("--a_b=c_d --x y -v 2"), Ok("--a-b=c_d --x y -v 2".into()));
        assert_eq!(screened("--profiling=false --audit-log-path= --a"), Ok("--a".into()));
        let refused = "--profiling is a flag of upstream's that this server does not support: no profiler";
        assert_eq!(screened("--profiling"), Err(refused.into()));
        assert_eq!(screened("--profiling --a"), Err(refused.into()));
        assert_eq!(screened("-- --profiling"), Ok("-- --profiling".into()));
        assert!(screened("--audit_log_path /x").is_err());
    }

    #[test]
    fn durations_are_gos() {
        for (text, want_ms) in [("1h2m3s", 3_723_000), ("1.5s", 1_500), ("300ms", 300), ("0", 0), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(GoDuration(Duration::from_millis(want_ms))), "{text}");
        }
        for text in ["", "5", "x", "1x", "1.2.3s", "-1s"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }
}
