//! Floats as Go's JSON encoder writes them.

/// Appends `value`: plain decimals, exponents below 1e-6 and from 1e21 on, no padding of the exponent.
/// upstream: Go encoding/json/encode.go floatEncoder
pub(super) fn float_into(value: f64, out: &mut Vec<u8>) {
    // JSON has no NaN or infinity, and no decoder of ours makes one.
    let value = if value.is_finite() { value } else { 0.0 };
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        out.extend_from_slice(mantissa.as_bytes());
        out.push(b'e');
        if !exponent.starts_with('-') {
            out.push(b'+');
        }
        out.extend_from_slice(exponent.as_bytes());
        return;
    }
    out.extend_from_slice(format!("{value}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_gos() {
        for (value, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (-2.5e-10, "-2.5e-10"),
            (123_456_789.125, "123456789.125"),
        ] {
            let mut out = Vec::new();
            float_into(value, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
    }
}
