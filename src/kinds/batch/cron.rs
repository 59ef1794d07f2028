//! Is a schedule one? upstream: github.com/robfig/cron/v3/parser.go; time zones as Go's time package knows them.

use copepod_meta::field::quote;

use crate::print;

/// Names of the time zones of Go's zoneinfo.zip, sorted.
static ZONES: &str = include_str!("zones.txt");

/// What is wrong with a time zone's name. upstream: time.LoadLocation
pub(super) fn zone_error(name: &str) -> Option<String> {
    if matches!(name, "" | "UTC" | "Local") {
        return None;
    }
    if name.contains("..") || name.starts_with(['/', '\\']) {
        return Some("time: invalid location name".into());
    }
    (!ZONES.lines().any(|z| z == name)).then(|| format!("unknown time zone {name}"))
}

struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Minute, hour, day of month, month, day of week.
const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: &MONTHS },
    Bounds { min: 0, max: 6, names: &DAYS },
];

/// Checks a schedule of five fields or a descriptor (`@daily`).
pub(super) fn check(spec: &str) -> Result<(), String> {
    if spec.is_empty() {
        return Err("empty spec string".into());
    }
    let mut spec = spec;
    if spec.starts_with("TZ=") || spec.starts_with("CRON_TZ=") {
        let start = spec.find('=').map_or(0, |i| i + 1);
        let Some(end) = spec.find(' ') else {
            // Upstream's parser slices out of bounds here, and its caller catches the panic.
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".into());
        };
        let zone = spec.get(start..end).unwrap_or("");
        if let Some(message) = zone_error(zone) {
            return Err(format!("provided bad location {zone}: {message}"));
        }
        spec = spec[end..].trim();
    }
    if spec.starts_with('@') {
        return descriptor(spec);
    }
    let fields: Vec<&str> = spec.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: {}",
            fields.len(),
            print::go_list(&fields)
        ));
    }
    for (field, bounds) in fields.iter().zip(&FIELDS) {
        for range in field.split(',').filter(|r| !r.is_empty()) {
            check_range(range, bounds)?;
        }
    }
    Ok(())
}

fn descriptor(spec: &str) -> Result<(), String> {
    if matches!(spec, "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly") {
        return Ok(());
    }
    match spec.strip_prefix("@every ") {
        Some(duration) => {
            go_duration(duration).map_err(|message| format!("failed to parse duration {spec}: {message}"))
        }
        None => Err(format!("unrecognized descriptor: {spec}")),
    }
}

/// upstream: time.ParseDuration
fn go_duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number = &rest[..digits];
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..letters];
        match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            _ => return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text))),
        }
        rest = &rest[letters..];
    }
    Ok(())
}

fn check_range(range: &str, bounds: &Bounds) -> Result<(), String> {
    let with_step: Vec<&str> = range.split('/').collect();
    let ends: Vec<&str> = with_step[0].split('-').collect();
    let (start, mut end) = match ends[..] {
        ["*" | "?", ..] => (bounds.min, bounds.max),
        [one] => {
            let n = number(one, bounds.names)?;
            (n, n)
        }
        [low, high] => (number(low, bounds.names)?, number(high, bounds.names)?),
        [low, ..] => {
            number(low, bounds.names)?;
            return Err(format!("too many hyphens: {range}"));
        }
        [] => return Ok(()),
    };
    let step = match with_step[..] {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = bounds.max;
            }
            number(step, &[])?
        }
        _ => return Err(format!("too many slashes: {range}")),
    };
    let Bounds { min, max, .. } = *bounds;
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {range}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {range}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    Ok(())
}

fn number(text: &str, names: &[&str]) -> Result<u64, String> {
    let lower = text.to_lowercase();
    if let Some(at) = names.iter().position(|n| *n == lower) {
        // Months count from 1, days of the week from 0.
        return Ok(at as u64 + u64::from(names.len() == MONTHS.len()));
    }
    let n: i64 = text.parse().map_err(|error: std::num::ParseIntError| {
        let what = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {what}", quote(text))
    })?;
    u64::try_from(n).map_err(|_| format!("negative number ({n}) not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_told_from_nonsense() {
        for good in ["*/5 * * * *", "0 0 1 jan sun", "@daily", "@every 1h30m", "TZ=UTC 1-5/2 * * * ?"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let bad = [
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
        ];
        for (text, message) in bad {
            assert_eq!(check(text).as_ref().map_err(String::as_str), Err(message), "{text}");
        }
    }
}
