//! Times in their wire form, RFC 3339 in UTC.

pub use jiff::Timestamp;
use jiff::{SignedDuration, Unit};

/// Now, to the second: what `creationTimestamp` and friends hold.
pub fn now() -> Timestamp {
    // Rounded down, as Go's Time.Rfc3339Copy.
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `2006-01-02T15:04:05Z`
pub fn rfc3339(time: Timestamp) -> String {
    format!("{:.0}", floor(time, Unit::Second))
}

/// `2006-01-02T15:04:05.000000Z`: MicroTime.
pub fn rfc3339_micro(time: Timestamp) -> String {
    format!("{:.6}", floor(time, Unit::Microsecond))
}

fn floor(time: Timestamp, unit: Unit) -> Timestamp {
    let round = jiff::TimestampRound::new().smallest(unit).mode(jiff::RoundMode::Floor);
    time.round(round).unwrap_or(time)
}

/// Parses any RFC 3339 time, offset and fraction allowed.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// `later - earlier` in whole seconds.
pub fn seconds_between(earlier: Timestamp, later: Timestamp) -> i64 {
    later.duration_since(earlier).as_secs()
}

/// `time` and so many seconds; the end of time if that overflows.
pub fn plus_seconds(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// An age as kubectl prints it: `5s`, `3m10s`, `2d4h`, `3y`.
/// upstream: apimachinery/pkg/util/duration/duration.go HumanDuration
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, b: &str, small: i64, s: &str| match small {
        0 => format!("{big}{b}"),
        _ => format!("{big}{b}{small}{s}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        i64::MIN..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(hours / 24, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_in_their_wire_form() {
        let t = parse("2026-01-02T03:04:05.678912345+01:00").expect("a time");
        assert_eq!(rfc3339(t), "2026-01-02T02:04:05Z");
        assert_eq!(rfc3339_micro(t), "2026-01-02T02:04:05.678912Z");
    }

    #[test]
    fn ages_print_as_kubectl_does() {
        for (seconds, want) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (3_600, "60m"),
            (11_100, "3h5m"),
            (90_000, "25h"),
            (190_000, "2d4h"),
            (864_000, "10d"),
            (70_000_000, "2y80d"),
            (400_000_000, "12y"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }
}
