//! Sets of completion indexes, kept as ranges: a job may have more indexes than memory has room for one by one.
//!
//! Invariant: ranges are in order and do not touch each other.
//!
//! upstream: pkg/controller/job/indexed_job_utils.go orderedIntervals

use std::fmt;

/// A set of indexes. Shown in the API's form: `1,3-5`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the API's form; what is not in it, and what is not below `completions`, is left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<i32>().ok()?, last.parse::<i32>().ok()?);
            (0 <= first && first <= last && first < completions).then(|| (first, last.min(completions - 1)))
        };
        text.split(',').filter_map(range).collect()
    }

    /// Whether an index is in the set.
    pub(super) fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many there are.
    pub(super) fn len(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// All that are in either.
    pub(super) fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }

    /// How many are in both.
    pub(super) fn overlap(&self, other: &Self) -> i32 {
        let both = |(first, last): &(i32, i32)| -> i32 {
            let near =
                other.0.iter().skip_while(|(_, end)| end < first).take_while(|(start, _)| start <= last);
            near.map(|(start, end)| end.min(last) - start.max(first) + 1).sum()
        };
        self.0.iter().map(both).sum()
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub(super) fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            found.extend((next..first).take(count - found.len()));
            next = last + 1;
        }
        found
    }
}

impl FromIterator<(i32, i32)> for Indexes {
    fn from_iter<I: IntoIterator<Item = (i32, i32)>>(ranges: I) -> Self {
        let mut all: Vec<(i32, i32)> = ranges.into_iter().collect();
        all.sort_unstable();
        let mut out: Vec<(i32, i32)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match out.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => out.push((first, last)),
            }
        }
        Self(out)
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        indexes.into_iter().map(|index| (index, index)).collect()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last - first {
                0 => write!(out, "{comma}{first}")?,
                1 => write!(out, "{comma}{first},{last}")?,
                _ => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_there_and_back() {
        for (text, want) in [
            ("", ""),
            ("0", "0"),
            ("0,2", "0,2"),
            ("0-2", "0-2"),
            ("1,3-5,7", "1,3-5,7"),
            ("0,1", "0,1"),
            ("0,1,2", "0-2"),
            ("3-20", "3-9"),
            ("x,1,4-y,12", "1"),
        ] {
            assert_eq!(Indexes::parse(text, 10).to_string(), want, "{text}");
        }
        assert_eq!(Indexes::parse("0-2147483646", i32::MAX).len(), i32::MAX, "a range takes no room");
    }

    #[test]
    fn sets_are_compared_by_ranges() {
        let set = |text: &str| Indexes::parse(text, 100);
        assert_eq!(set("1,5-7").union(&set("2,8,20")).to_string(), "1,2,5-8,20");
        for (a, b, both) in [("0-9", "3,5-20", 6), ("1,3", "2,4", 0), ("0-3,8", "2-8", 3)] {
            assert_eq!((set(a).overlap(&set(b)), set(b).overlap(&set(a))), (both, both), "{a} {b}");
        }
        assert!(set("3-5").has(4) && !set("3-5").has(6) && !set("").has(0));
        for (present, count, want) in [("", 2, vec![0, 1]), ("0-1,3", 3, vec![2, 4, 5]), ("0-9", 3, vec![])] {
            assert_eq!(set(present).missing(count, 10), want, "{present}");
        }
    }
}
