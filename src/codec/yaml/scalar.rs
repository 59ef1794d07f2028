//! What a plain scalar means in go-yaml v2.
//! upstream: go.yaml.in/yaml/v2 resolve.go

/// A scalar's meaning.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Resolved {
    Null,
    Bool(bool),
    Int(i64),
    /// Larger than `i64`.
    Uint(u64),
    Float(f64),
    /// `<<`
    Merge,
    String,
}

/// Resolves an unquoted scalar.
pub(super) fn resolve(text: &str) -> Resolved {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Resolved::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Resolved::Bool(false)
        }
        "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
        ".nan" | ".NaN" | ".NAN" => Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Resolved::Float(f64::NEG_INFINITY),
        "<<" => Resolved::Merge,
        _ => match text.as_bytes()[0] {
            b'.' => float(text).map_or(Resolved::String, Resolved::Float),
            b'+' | b'-' | b'0'..=b'9' => number(&text.replace('_', "")),
            _ => Resolved::String,
        },
    }
}

fn number(plain: &str) -> Resolved {
    let (negative, magnitude) = match plain.as_bytes().first() {
        Some(b'-') => (true, &plain[1..]),
        Some(b'+') => (false, &plain[1..]),
        _ => (false, plain),
    };
    if let Some(value) = unsigned(magnitude) {
        match (negative, i64::try_from(value)) {
            (false, Ok(value)) => return Resolved::Int(value),
            (true, Ok(value)) => return Resolved::Int(-value),
            (true, Err(_)) if value == 1 << 63 => return Resolved::Int(i64::MIN),
            // Go parses a leading plus sign into int64 only.
            (false, Err(_)) if !plain.starts_with('+') => return Resolved::Uint(value),
            _ => {}
        }
    }
    float(plain).map_or(Resolved::String, Resolved::Float)
}

/// Digits with Go's base prefixes, a leading zero being octal.
/// upstream: Go strconv ParseInt with base 0
fn unsigned(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, and no words.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |s: &str| s.bytes().all(|c| c.is_ascii_digit());
    let good_mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let good_exponent = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    if !good_mantissa || !good_exponent {
        return None;
    }
    text.parse().ok().filter(|f: &f64| f.is_finite())
}

/// `12:30:45`: a float to YAML 1.1, quoted on output for other parsers' sake.
/// upstream: go.yaml.in/yaml/v2 encode.go base60float
pub(super) fn is_base60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    if fraction.is_some_and(|f| !f.bytes().all(|c| c.is_ascii_digit() || c == b'_')) {
        return false;
    }
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let good_first = first.starts_with(|c: char| c.is_ascii_digit())
        && first.bytes().all(|c| c.is_ascii_digit() || c == b'_');
    let mut rest = parts.peekable();
    good_first
        && rest.peek().is_some()
        && rest.all(|part| match part.as_bytes() {
            [d] => d.is_ascii_digit(),
            [t, d] => (b'0'..=b'5').contains(t) && d.is_ascii_digit(),
            _ => false,
        })
}

/// Text that go-yaml writes in quotes because it reads it as a timestamp (and then keeps it as text).
/// upstream: go.yaml.in/yaml/v2 resolve.go parseTimestamp
pub(super) fn is_timestamp(text: &str) -> bool {
    let year = text.bytes().take_while(u8::is_ascii_digit).count();
    if year != 4 || text.as_bytes().get(4) != Some(&b'-') {
        return false;
    }
    let Some((date, rest)) = date(&text[5..]) else { return false };
    let year = text[..4].parse().unwrap_or(0);
    if !crate::time::is_date(year, date.0, date.1) {
        return false;
    }
    match rest.as_bytes().first() {
        None => true,
        Some(b'T' | b't') => clock(&rest[1..]).is_some_and(is_zone),
        Some(b' ') => clock(&rest[1..]) == Some(""),
        _ => false,
    }
}

/// One or two digits up to `max`, and what follows.
fn small(text: &str, max: u32) -> Option<(u32, &str)> {
    let len = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let value = text[..len].parse().ok().filter(|v| *v <= max)?;
    Some((value, &text[len..]))
}

fn date(text: &str) -> Option<((u32, u32), &str)> {
    let (month, rest) = small(text, 12)?;
    let (day, rest) = small(rest.strip_prefix('-')?, 31)?;
    Some(((month, day), rest))
}

/// `15:4:5.999999999`; what follows.
fn clock(text: &str) -> Option<&str> {
    let (_, rest) = small(text, 23)?;
    let (_, rest) = small(rest.strip_prefix(':')?, 59)?;
    let (_, rest) = small(rest.strip_prefix(':')?, 59)?;
    let Some(fraction) = rest.strip_prefix(['.', ',']) else { return Some(rest) };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| &fraction[digits..])
}

/// `Z` or `+07:00`.
fn is_zone(text: &str) -> bool {
    match text.as_bytes() {
        [b'Z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|c| c.is_ascii_digit()),
        _ => false,
    }
}

/// A float as Go's `%g` with shortest digits prints it.
pub(super) fn format_g(value: f64) -> String {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    // Shortest formatting switches at 21 only for numbers whose digits all stand before the point.
    let limit = if digits > exponent { digits.max(6) } else { 21 };
    if exponent < -4 || exponent >= limit.max(21.min(limit)) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_they_mean_to_go_yaml() {
        for (text, want) in [
            ("yes", Resolved::Bool(true)),
            ("off", Resolved::Bool(false)),
            ("~", Resolved::Null),
            ("12", Resolved::Int(12)),
            ("-12", Resolved::Int(-12)),
            ("010", Resolved::Int(8)),
            ("0o10", Resolved::Int(8)),
            ("0x1F", Resolved::Int(31)),
            ("1_000", Resolved::Int(1000)),
            ("08", Resolved::Float(8.0)),
            ("1.5", Resolved::Float(1.5)),
            ("1e3", Resolved::Float(1000.0)),
            (".5", Resolved::Float(0.5)),
            ("18446744073709551615", Resolved::Uint(u64::MAX)),
            ("1.2.3", Resolved::String),
            ("2024-01-01", Resolved::String),
            ("1Gi", Resolved::String),
            ("100m", Resolved::String),
            ("-", Resolved::String),
            ("<<", Resolved::Merge),
        ] {
            assert_eq!(resolve(text), want, "{text}");
        }
        assert!(is_base60("12:30") && is_base60("1:2:3.5") && !is_base60("a:1") && !is_base60("1:99"));
        for (text, want) in [
            ("2024-01-01", true),
            ("2024-1-1", true),
            ("2024-01-01T00:00:00Z", true),
            ("2024-01-01t00:00:00.5+01:00", true),
            ("2024-01-01 10:00:00", true),
            ("2024-02-30", false),
            ("2024-01-01T00:00:00", false),
            ("24-01-01", false),
        ] {
            assert_eq!(is_timestamp(text), want, "{text}");
        }
    }
}
