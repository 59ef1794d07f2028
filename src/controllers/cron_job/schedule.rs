//! Schedules in cron's form, with the extensions that upstream's parser has: names, steps, `@hourly` and the like.
//!
//! A time in a gap of a time zone (the clock is put forward) does not exist and is skipped; in a fold it counts once.
//!
//! upstream: github.com/robfig/cron/v3 ParseStandard

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the month and of the week are both restricted: either is enough.
    either_day: bool,
    /// `@every`: this long after the last time, whatever the clock says.
    every: Option<SignedDuration>,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that has no time within this many years has none.
const YEARS_MAX: i32 = 5;

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('@') {
            return Self::named(name);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError(format!(
                "expected exactly 5 fields, found {}: [{text}]",
                fields.len()
            )));
        };
        let star = |field: &str| field.starts_with('*') || field.starts_with('?');
        let mut weekdays = bits(weekday, 0, 7, &WEEKDAYS, 0)?;
        // Seven is Sunday as well.
        weekdays |= weekdays >> 7 & 1;
        Ok(Self {
            minutes: bits(minute, 0, 59, &[], 0)?,
            hours: bits(hour, 0, 23, &[], 0)?,
            days: bits(day, 1, 31, &[], 1)?,
            months: bits(month, 1, 12, &MONTHS, 1)?,
            weekdays,
            either_day: !star(day) && !star(weekday),
            every: None,
        })
    }

    fn named(name: &str) -> Result<Self, ScheduleError> {
        let text = match name {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            other => {
                let every = other.strip_prefix("every ").and_then(go_duration);
                let every =
                    every.ok_or_else(|| ScheduleError(format!("unrecognized descriptor: @{other}")))?;
                let always = Self::parse("* * * * *")?;
                return Ok(Self { every: Some(every), ..always });
            }
        };
        Self::parse(text)
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Some(every) = self.every {
            let whole = Timestamp::from_second(after.as_second()).ok()?;
            return whole.checked_add(every.max(SignedDuration::from_secs(1))).ok();
        }
        let local = zone.to_datetime(after);
        let mut at = local.date().at(local.hour(), local.minute(), 0, 0).checked_add(1.minute()).ok()?;
        let last_year = i32::from(local.year()) + YEARS_MAX;
        while i32::from(at.year()) <= last_year {
            at = match self.skip(at)? {
                Some(later) => later,
                None => match exact(at, zone).filter(|found| *found > after) {
                    Some(found) => return Some(found),
                    None => at.checked_add(1.minute()).ok()?,
                },
            };
        }
        None
    }

    /// `Some(later)` if `at` is none of the schedule's times; `later` is the next one that may be.
    fn skip(&self, at: DateTime) -> Option<Option<DateTime>> {
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        let midnight = at.date().at(0, 0, 0, 0);
        if !has(self.months, at.month()) {
            return Some(Some(midnight.first_of_month().checked_add(1.month()).ok()?));
        }
        let by_month = has(self.days, at.day());
        let by_week = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if !(if self.either_day { by_month || by_week } else { by_month && by_week }) {
            return Some(Some(midnight.checked_add(1.day()).ok()?));
        }
        if !has(self.hours, at.hour()) {
            return Some(Some(at.date().at(at.hour(), 0, 0, 0).checked_add(1.hour()).ok()?));
        }
        if !has(self.minutes, at.minute()) {
            return Some(Some(at.checked_add(1.minute()).ok()?));
        }
        Some(None)
    }
}

/// The moment of a local time, unless the clock jumps over it.
fn exact(at: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let found = zone.to_ambiguous_timestamp(at).earlier().ok()?;
    (zone.to_datetime(found) == at).then_some(found)
}

/// One field: a list of values, ranges, steps, names.
fn bits(field: &str, min: u32, max: u32, names: &[&str], first_name: u32) -> Result<u64, ScheduleError> {
    let bad = || ScheduleError(format!("failed to parse {field:?}"));
    let value = |text: &str| -> Result<u32, ScheduleError> {
        let lower = text.to_ascii_lowercase();
        let named = names.iter().position(|name| *name == lower);
        match named {
            Some(at) => Ok(at as u32 + first_name),
            None => text.parse().map_err(|_| bad()),
        }
    };
    let mut out = 0;
    for part in field.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step: u32 = step.map_or(Ok(1), |step| step.parse().map_err(|_| bad()))?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (min, if max == 7 { 6 } else { max }),
            Some((first, last)) => (value(first)?, value(last)?),
            None if part.contains('/') => (value(range)?, max),
            None => (value(range)?, value(range)?),
        };
        if step == 0 || first < min || last > max || first > last {
            return Err(bad());
        }
        for value in (first..=last).step_by(step as usize) {
            out |= 1 << value;
        }
    }
    Ok(out)
}

/// `1h30m` and the like, in whole seconds.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let (mut total, mut number) = (0i64, String::new());
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                number.push(character);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total += number.parse::<i64>().ok()? * unit;
        number.clear();
    }
    (number.is_empty() && total > 0).then(|| SignedDuration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_of_a_schedule() {
        // 2026-01-01 is a Thursday.
        for (schedule, after, want) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("5 4 * * *", "2026-01-01T04:05:00Z", "2026-01-02T04:05:00Z"),
            ("0 0 1 * *", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 * * sun", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 12 29 feb ?", "2026-01-01T00:00:00Z", "2028-02-29T12:00:00Z"),
            ("10-20/5,40 8 * * *", "2026-01-01T08:15:00Z", "2026-01-01T08:20:00Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ] {
            let found = Schedule::parse(schedule)
                .expect(schedule)
                .next(after.parse().expect("a time"), &TimeZone::UTC);
            assert_eq!(found.map(|at| at.to_string()).as_deref(), Some(want), "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule() {
        for text in
            ["", "* * * *", "* * * * * *", "60 * * * *", "5-1 * * * *", "*/0 * * * *", "a * * * *", "@often"]
        {
            assert!(Schedule::parse(text).is_err(), "{text:?}");
        }
        let never = Schedule::parse("0 0 31 2 *").expect("well formed");
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
