//! Times and durations: text as Go reads and writes it, and the numbers that protobuf carries.
//!
//! Owns: RFC 3339 parsing with Go's leniency and messages, the canonical forms of `Time`, `MicroTime` and
//! `Duration`. Does not: read a clock.

use std::fmt::Write as _;

/// Seconds since 1970 of 0001-01-01T00:00:00Z, Go's zero time.
pub(crate) const ZERO_SECONDS: i64 = -62_135_596_800;

const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

impl Instant {
    /// Go's zero time, which JSON shows as null.
    pub(crate) fn is_zero(self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }
}

/// How many fraction digits a text form has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// `Time`: none written, any read.
    Seconds,
    /// `MicroTime`: exactly six.
    Micros,
}

impl Precision {
    fn layout(self) -> &'static str {
        match self {
            Precision::Seconds => RFC3339,
            Precision::Micros => RFC3339_MICRO,
        }
    }
}

/// Parses RFC 3339 text; the error is Go's `time.ParseError`.
/// upstream: Go time/format.go parse
pub(crate) fn parse(text: &str, precision: Precision) -> Result<Instant, String> {
    // Go steps through bytes; a non-ASCII byte never is a digit or separator, and slices below stay on char
    // boundaries only for ASCII, so anything else is shown whole.
    let mut parser = Parser { text, rest: text, layout: precision.layout() };
    parser.run(precision)
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl<'a> Parser<'a> {
    fn run(&mut self, precision: Precision) -> Result<Instant, String> {
        let year = self.year()?;
        self.literal("-")?;
        let month = self.ranged("01", true, 1..=12, "month")?;
        self.literal("-")?;
        let day = self.number("02", true)?;
        self.literal("T")?;
        let hour = self.ranged("15", false, 0..=23, "hour")?;
        self.literal(":")?;
        let minute = self.ranged("04", true, 0..=59, "minute")?;
        self.literal(":")?;
        let second = self.ranged("05", true, 0..=59, "second")?;
        let nanos = self.fraction(precision)?;
        let offset = self.zone()?;
        if !self.rest.is_empty() {
            return Err(self.message(&format!(": extra text: {}", quote(self.rest))));
        }
        if day < 1 || day > days_in(month, year) {
            return Err(self.message(": day out of range"));
        }
        let days = days_from_civil(i64::from(year), month, day);
        let clock = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        Ok(Instant { seconds: days * 86_400 + clock - offset, nanos })
    }

    fn message(&self, what: &str) -> String {
        format!("parsing time {}{what}", quote(self.text))
    }

    fn cannot(&self, hold: &str, element: &str) -> String {
        format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quote(self.text),
            quote(self.layout),
            quote(hold),
            quote(element)
        )
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.cannot(self.rest, literal))?;
        Ok(())
    }

    fn digit(&self, at: usize) -> Option<u32> {
        let byte = *self.rest.as_bytes().get(at)?;
        byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
    }

    fn year(&mut self) -> Result<u32, String> {
        let digits = (0..4).try_fold(0, |year, at| self.digit(at).map(|d| year * 10 + d));
        let year = digits.ok_or_else(|| self.cannot(self.rest, "2006"))?;
        self.rest = &self.rest[4..];
        Ok(year)
    }

    /// Two digits, or one where Go's layout element is not of fixed width.
    fn number(&mut self, element: &str, fixed: bool) -> Result<u32, String> {
        let (value, width) = match (self.digit(0), self.digit(1)) {
            (Some(a), Some(b)) => (a * 10 + b, 2),
            (Some(a), None) if !fixed => (a, 1),
            _ => return Err(self.cannot(self.rest, element)),
        };
        self.rest = &self.rest[width..];
        Ok(value)
    }

    fn ranged(
        &mut self,
        element: &str,
        fixed: bool,
        range: std::ops::RangeInclusive<u32>,
        name: &str,
    ) -> Result<u32, String> {
        let value = self.number(element, fixed)?;
        if !range.contains(&value) {
            return Err(self.message(&format!(": {name} out of range")));
        }
        Ok(value)
    }

    fn fraction(&mut self, precision: Precision) -> Result<u32, String> {
        let starts = matches!(self.rest.as_bytes().first(), Some(b'.' | b','));
        let available = self.rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
        let digits = match precision {
            Precision::Seconds if !starts || available == 0 => return Ok(0),
            Precision::Seconds => available,
            Precision::Micros if !starts || available < 6 => {
                return Err(self.cannot(self.rest, ".000000"));
            }
            Precision::Micros => 6,
        };
        // Digits beyond nanoseconds are dropped.
        let mut nanos = 0;
        for at in 0..9 {
            nanos = nanos * 10 + if at < digits { self.digit(1 + at).unwrap_or(0) } else { 0 };
        }
        self.rest = &self.rest[1 + digits..];
        Ok(nanos)
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let sign = match bytes.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.cannot(self.rest, "Z07:00")),
        };
        let digits = [1, 2, 4, 5].map(|at| self.digit(at));
        let [Some(a), Some(b), Some(c), Some(d)] = digits else {
            return Err(self.cannot(self.rest, "Z07:00"));
        };
        if bytes[3] != b':' {
            return Err(self.cannot(self.rest, "Z07:00"));
        }
        let (hours, minutes) = (a * 10 + b, c * 10 + d);
        if hours > 24 {
            return Err(self.message(": time zone offset hour out of range"));
        }
        if minutes > 60 {
            return Err(self.message(": time zone offset minute out of range"));
        }
        self.rest = &self.rest[6..];
        Ok(sign * i64::from(hours * 3600 + minutes * 60))
    }
}

/// Whether text that parses is already as [`format`] would write it.
pub(crate) fn is_canonical(text: &str, precision: Precision) -> bool {
    // With this length and a trailing `Z` nothing is left for one-digit hours, longer fractions or other
    // zones.
    let len = if precision == Precision::Seconds { 20 } else { 27 };
    text.len() == len && text.ends_with('Z')
}

/// The canonical text in UTC.
pub(crate) fn format(instant: Instant, precision: Precision) -> String {
    let days = instant.seconds.div_euclid(86_400);
    let clock = instant.seconds.rem_euclid(86_400) as u32;
    let (year, month, day) = civil_from_days(days);
    let mut out = String::with_capacity(27);
    if !(0..10_000).contains(&year) {
        // Go's layout gives years at least four digits.
        let sign = if year < 0 { "-" } else { "" };
        let _infallible = write!(out, "{sign}{:04}", year.unsigned_abs());
    } else {
        digits(year as u32, 1000, &mut out);
    }
    for (separator, value) in
        [('-', month), ('-', day), ('T', clock / 3600), (':', clock / 60 % 60), (':', clock % 60)]
    {
        out.push(separator);
        digits(value, 10, &mut out);
    }
    if precision == Precision::Micros {
        out.push('.');
        digits(instant.nanos / 1000, 100_000, &mut out);
    }
    out.push('Z');
    out
}

/// Decimal digits, as many as `scale` has.
fn digits(value: u32, mut scale: u32, out: &mut String) {
    while scale > 0 {
        out.push(char::from(b'0' + (value / scale % 10) as u8));
        scale /= 10;
    }
}

/// Whether the calendar has this day.
pub(crate) fn is_date(year: u32, month: u32, day: u32) -> bool {
    (1..=12).contains(&month) && (1..=days_in(month, year)).contains(&day)
}

fn days_in(month: u32, year: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date, by eras of 400 years that start in March.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Go's own quoting in package time: quotes and backslashes escaped, bytes outside printable ASCII as `\x..`.
/// upstream: Go time/format.go quote
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if (c as u32) < 0x20 || (c as u32) >= 0x80 {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _infallible = write!(out, "\\x{byte:02x}");
            }
            continue;
        }
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds of a Go duration text; the error is Go's.
/// upstream: Go time/format.go ParseDuration
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (part, after) = duration_part(rest, text)?;
        total = total.checked_add(part).filter(|t| *t <= 1 << 63).ok_or_else(invalid)?;
        rest = after;
    }
    match (negative, total) {
        (true, total) => Ok((total as i64).wrapping_neg()),
        (false, total) => i64::try_from(total).map_err(|_| invalid()),
    }
}

/// One number with its unit, in nanoseconds, and what follows.
fn duration_part<'a>(rest: &'a str, whole: &str) -> Result<(u64, &'a str), String> {
    let invalid = || format!("time: invalid duration {}", quote(whole));
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let whole_len = digits(rest);
    let integer: u64 = if whole_len == 0 { 0 } else { rest[..whole_len].parse().map_err(|_| invalid())? };
    let mut after = &rest[whole_len..];
    let mut fraction = "";
    if let Some(tail) = after.strip_prefix('.') {
        let len = digits(tail);
        fraction = &tail[..len];
        after = &tail[len..];
        if whole_len == 0 && len == 0 {
            return Err(invalid());
        }
    } else if whole_len == 0 {
        return Err(invalid());
    }
    let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let unit = &after[..unit_len];
    if unit.is_empty() {
        return Err(format!("time: missing unit in duration {}", quote(whole)));
    }
    let Some(&(_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(whole)));
    };
    let mut value = integer.checked_mul(scale).filter(|v| *v <= 1 << 63).ok_or_else(invalid)?;
    if !fraction.is_empty() {
        // Nineteen digits are more than a nanosecond of an hour can tell apart.
        let digits = &fraction[..fraction.len().min(18)];
        let numerator: u64 = digits.parse().map_err(|_| invalid())?;
        let part = numerator as f64 * (scale as f64 / 10f64.powi(digits.len() as i32));
        value = value.checked_add(part as u64).filter(|v| *v <= 1 << 63).ok_or_else(invalid)?;
    }
    Ok((value, &after[unit_len..]))
}

/// Go's text of a duration, `1h2m3.5s`.
/// upstream: Go time/time.go Duration.String
pub(crate) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    if magnitude == 0 {
        return "0s".into();
    }
    if magnitude < 1_000_000_000 {
        let (unit, scale) = match magnitude {
            0..=999 => ("ns", 1),
            1_000..=999_999 => ("\u{b5}s", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(magnitude, scale));
    }
    let seconds = magnitude / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let last = decimal(magnitude % 60_000_000_000, 1_000_000_000);
    if hours > 0 {
        format!("{sign}{hours}h{minutes}m{last}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m{last}s")
    } else {
        format!("{sign}{last}s")
    }
}

/// `value / scale` without trailing zeros.
fn decimal(value: u64, scale: u64) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_normalised_to_utc() {
        for (text, want) in [
            ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z"),
            ("2024-01-01T00:30:00+01:00", "2023-12-31T23:30:00Z"),
            ("2024-01-01T00:30:00.987-00:30", "2024-01-01T01:00:00Z"),
            ("2024-01-01T7:30:00Z", "2024-01-01T07:30:00Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            let parsed = parse(text, Precision::Seconds).expect(text);
            assert_eq!(format(parsed, Precision::Seconds), want, "{text}");
            assert_eq!(parsed.is_zero(), want.starts_with("0001"));
        }
    }

    #[test]
    fn micro_times_have_six_digits() {
        let parsed = parse("2024-01-01T00:00:00.123456Z", Precision::Micros).expect("valid");
        assert_eq!(parsed.nanos, 123_456_000);
        assert_eq!(format(parsed, Precision::Micros), "2024-01-01T00:00:00.123456Z");
    }

    /// Messages of Go 1.26 on the same texts.
    #[test]
    fn bad_times_are_refused_in_gos_words() {
        let layout = RFC3339;
        for (text, want) in [
            ("foo", format!("parsing time \"foo\" as \"{layout}\": cannot parse \"foo\" as \"2006\"")),
            ("", format!("parsing time \"\" as \"{layout}\": cannot parse \"\" as \"2006\"")),
            (
                "2024-01-01",
                format!("parsing time \"2024-01-01\" as \"{layout}\": cannot parse \"\" as \"T\""),
            ),
            ("2024-13-01T00:00:00Z", "parsing time \"2024-13-01T00:00:00Z\": month out of range".into()),
            ("2023-02-29T00:00:00Z", "parsing time \"2023-02-29T00:00:00Z\": day out of range".into()),
            ("2024-01-01T00:00:00Zx", "parsing time \"2024-01-01T00:00:00Zx\": extra text: \"x\"".into()),
            (
                "2024-01-01T00:00:00",
                format!(
                    "parsing time \"2024-01-01T00:00:00\" as \"{layout}\": cannot parse \"\" as \"Z07:00\""
                ),
            ),
        ] {
            assert_eq!(parse(text, Precision::Seconds), Err(want), "{text}");
        }
        let micro = parse("2024-01-01T00:00:00Z", Precision::Micros);
        assert!(micro.expect_err("no fraction").ends_with("cannot parse \"Z\" as \".000000\""));
    }

    #[test]
    fn durations_read_and_print_as_gos() {
        for (text, want) in [
            ("0", Ok("0s")),
            ("1h", Ok("1h0m0s")),
            ("90s", Ok("1m30s")),
            ("1.5s", Ok("1.5s")),
            ("-1.5h", Ok("-1h30m0s")),
            ("100ms", Ok("100ms")),
            ("1us", Ok("1\u{b5}s")),
            ("1h2m3s4ms", Ok("1h2m3.004s")),
            ("", Err("time: invalid duration \"\"")),
            ("1", Err("time: missing unit in duration \"1\"")),
            ("1d", Err("time: unknown unit \"d\" in duration \"1d\"")),
            ("x", Err("time: invalid duration \"x\"")),
            ("9223372036854775808ns", Err("time: invalid duration \"9223372036854775808ns\"")),
        ] {
            let got = parse_duration(text).map(format_duration);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{text}");
        }
    }
}
