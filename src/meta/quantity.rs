//! Resource quantities: `100m`, `1.5Gi`, `1e3`.
//!
//! An amount is held exactly in billionths (upstream rounds up to a billionth as well). Its text is canonical, except
//! that a text which upstream keeps as written is kept as written.
//!
//! upstream: apimachinery/pkg/api/resource/quantity.go

use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
/// 10^MAX_DIGITS still fits `i128` next to the nine digits of the fraction.
const MAX_DIGITS: u32 = 28;

/// Which family of suffixes the amount is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `e3`
    DecimalExponent,
    /// `Ki`
    BinarySi,
    /// `k`
    DecimalSi,
}

/// An amount.
#[derive(Clone, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
    /// The text as written, when upstream does not rewrite it.
    written: Option<Box<str>>,
}

/// A text that is no quantity; the texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number does not parse or does not fit.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A quantity's text, cut up. upstream: parseQuantityString
struct Parts<'a> {
    negative: bool,
    /// Digits before the point without leading zeros, "0" if none are left.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn cut(text: &str) -> Result<Parts<'_>, QuantityError> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    rest = rest.trim_start_matches('0');
    let whole = &rest[..digits(rest)];
    rest = &rest[whole.len()..];
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        fraction = &after[..digits(after)];
        rest = &after[fraction.len()..];
    }
    let suffix = rest;
    let letters = rest.bytes().take_while(|c| b"eEinumkKMGTP".contains(c)).count();
    rest = &rest[letters..];
    rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if digits(rest) != rest.len() {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction, suffix })
}

/// (base, exponent, format) of a suffix.
fn interpret(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    Ok(match suffix {
        "n" => (10, -9, Format::DecimalSi),
        "u" => (10, -6, Format::DecimalSi),
        "m" => (10, -3, Format::DecimalSi),
        "" => (10, 0, Format::DecimalSi),
        "k" => (10, 3, Format::DecimalSi),
        "M" => (10, 6, Format::DecimalSi),
        "G" => (10, 9, Format::DecimalSi),
        "T" => (10, 12, Format::DecimalSi),
        "P" => (10, 15, Format::DecimalSi),
        "E" => (10, 18, Format::DecimalSi),
        "Ki" => (2, 10, Format::BinarySi),
        "Mi" => (2, 20, Format::BinarySi),
        "Gi" => (2, 30, Format::BinarySi),
        "Ti" => (2, 40, Format::BinarySi),
        "Pi" => (2, 50, Format::BinarySi),
        "Ei" => (2, 60, Format::BinarySi),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let digits = digits.strip_prefix('+').unwrap_or(digits);
            (10, digits.parse().map_err(|_| QuantityError::Suffix)?, Format::DecimalExponent)
        }
    })
}

impl Quantity {
    /// Parses a quantity as it stands in JSON.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let parts = cut(text)?;
        let (base, exponent, mut format) = interpret(parts.suffix)?;
        // Digits of a size that no amount has; upstream's arbitrary precision ends as an absurd number there.
        if parts.whole.len() as u32 > MAX_DIGITS {
            return Err(QuantityError::Numeric);
        }
        let whole: i128 = parts.whole.parse().map_err(|_| QuantityError::Numeric)?;
        let (nano, exact) = scale(whole, parts.fraction, base, exponent)?;
        // A part of a billionth counts as a whole one, away from zero.
        let mut nano = if exact { nano } else { nano + 1 };
        if format == Format::BinarySi {
            nano = nano.min(i128::from(i64::MAX) * NANO);
            if nano < NANO && nano > 0 {
                format = Format::DecimalSi;
            }
        }
        let written = kept_as_written(&parts, base, exponent, format).then(|| text.into());
        Ok(Quantity { nano: if parts.negative { -nano } else { nano }, format, written })
    }

    /// So many whole units.
    pub fn from_int(value: i64, format: Format) -> Quantity {
        Quantity { nano: i128::from(value) * NANO, format, written: None }
    }
    /// So many thousandths, as for CPU.
    pub fn from_milli(value: i64, format: Format) -> Quantity {
        Quantity { nano: i128::from(value) * (NANO / 1000), format, written: None }
    }
    /// Whole units, a part counting as a whole. upstream: Quantity.Value
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }
    /// Thousandths, a part counting as a whole. upstream: Quantity.MilliValue
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }
    fn scaled(&self, unit: i128) -> i64 {
        let up = self.nano / unit + (self.nano % unit).signum();
        up.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
    /// Billionths.
    pub fn nano(&self) -> i128 {
        self.nano
    }
    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }
    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nano.signum() as i32
    }
    /// Whether it is whole units. upstream: validation of integer resources
    pub fn is_integer(&self) -> bool {
        self.nano % NANO == 0
    }
    /// The sum; a zero takes over the other's format, as upstream.
    #[must_use]
    pub fn add(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nano: self.nano.saturating_add(other.nano), format, written: None }
    }
    /// The difference.
    #[must_use]
    pub fn sub(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nano: self.nano.saturating_sub(other.nano), format, written: None }
    }
    /// The family of its suffix.
    pub fn format(&self) -> Format {
        self.format
    }
}

/// `whole.fraction * base^exponent` in billionths, rounded down, and whether nothing was lost.
fn scale(whole: i128, fraction: &str, base: u32, exponent: i32) -> Result<(i128, bool), QuantityError> {
    let ten = |n: u32| 10_i128.checked_pow(n).ok_or(QuantityError::Numeric);
    // Digits of the fraction beyond those that can matter only make the result inexact.
    let keep = fraction.len().min(18);
    let lost = fraction[keep..].bytes().any(|c| c != b'0');
    let fraction_value: i128 =
        if keep == 0 { 0 } else { fraction[..keep].parse().map_err(|_| QuantityError::Numeric)? };
    let mantissa = whole
        .checked_mul(ten(keep as u32)?)
        .and_then(|w| w.checked_add(fraction_value))
        .ok_or(QuantityError::Numeric)?;
    if mantissa == 0 {
        return Ok((0, !lost));
    }
    let (mantissa, power) = match base {
        2 => (mantissa.checked_mul(1_i128 << exponent).ok_or(QuantityError::Numeric)?, 9 - keep as i32),
        _ => (mantissa, exponent.saturating_add(9 - keep as i32)),
    };
    if power >= 0 {
        let value = mantissa.checked_mul(ten(power as u32)?).ok_or(QuantityError::Numeric)?;
        return Ok((value, !lost));
    }
    match 10_i128.checked_pow(power.unsigned_abs()) {
        Some(divisor) => Ok((mantissa / divisor, !lost && mantissa % divisor == 0)),
        None => Ok((0, false)),
    }
}

/// Whether upstream's fast path keeps the text. upstream: ParseQuantity
fn kept_as_written(parts: &Parts, base: u32, exponent: i32, format: Format) -> bool {
    let digits = parts.whole.len() + parts.fraction.len();
    let shifted = || format!("{}{}", parts.whole, parts.fraction);
    if base == 2 {
        let room = 15 - parts.whole.len() as i32 - (exponent as f32 * 3.0 / 10.0) as i32 - 1;
        let odd = parts.whole.parse::<i64>().is_ok_and(|v| v & 7 != 0);
        return format == Format::BinarySi && parts.fraction.is_empty() && room >= 0 && odd;
    }
    let scale = exponent - parts.fraction.len() as i32;
    digits <= 18
        && scale >= -9
        && scale % 3 == 0
        && !shifted().ends_with("000")
        && !shifted().starts_with('0')
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(written) = &self.written {
            return f.write_str(written);
        }
        if self.nano == 0 {
            return f.write_str("0");
        }
        let magnitude = self.nano.unsigned_abs();
        let binary =
            self.format == Format::BinarySi && magnitude >= 1024 * NANO as u128 && self.nano % NANO == 0;
        if binary {
            let (mut value, mut power) = (self.nano / NANO, 0);
            while power < 6 && value % 1024 == 0 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut value, mut power) = (self.nano, -9);
        let top = if self.format == Format::DecimalExponent { i32::MAX } else { 18 };
        while power < top && value % 1000 == 0 {
            value /= 1000;
            power += 3;
        }
        match (self.format, power) {
            (_, 0) => write!(f, "{value}"),
            (Format::DecimalExponent, _) => write!(f, "{value}e{power}"),
            _ => {
                let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                write!(f, "{value}{}", suffixes[((power + 9) / 3) as usize])
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_canonical_as_upstreams() {
        for (text, want) in [
            ("0", "0"),
            ("1", "1"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("100Ki", "100Ki"),
            ("1000Ki", "1000Ki"),
            ("1e3", "1e3"),
            ("10e2", "1e3"),
            ("1E", "1E"),
            ("12000", "12k"),
            ("0.1Ki", "102400m"),
            ("1n", "1n"),
            ("0.0000000001", "1n"),
            ("-5", "-5"),
            ("8Ei", "9223372036854775807"),
            ("1.", "1."),
            ("0Ki", "0"),
            ("5000", "5k"),
            ("4096", "4096"),
            ("1234567k", "1234567k"),
            ("2048Mi", "2Gi"),
            ("1e-3", "1e-3"),
            ("100000000000000000000", "100E"),
        ] {
            assert_eq!(Quantity::parse(text).expect(text).to_string(), want, "{text}");
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for (text, want) in [
            ("", QuantityError::Format),
            ("x", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("1kk", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("1 Gi", QuantityError::Format),
        ] {
            assert_eq!(Quantity::parse(text).expect_err(text), want, "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let q = |s| Quantity::parse(s).expect("a quantity");
        assert_eq!(q("1500m").value(), 2);
        assert_eq!(q("-1500m").value(), -2);
        assert_eq!(q("0.1m").milli_value(), 1);
        assert_eq!(q("1Gi").value(), 1 << 30);
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("100m").add(&q("900m")).to_string(), "1");
    }
}
