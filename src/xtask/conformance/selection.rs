//! Which tests of the suite a run is about.

use anyhow::Context as _;
use regex::Regex;
use std::str::FromStr;

use super::results::{self, Results, State};

/// One of `of` equal parts, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shard {
    number: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Shard> {
        let (number, of) = text.split_once('/').context("a shard is written i/n")?;
        let (number, of) = (number.parse()?, of.parse()?);
        anyhow::ensure!((1..=of).contains(&number), "a shard is one of 1/{of} to {of}/{of}");
        Ok(Shard { number, of })
    }
}

/// What narrows the list of tests.
#[derive(Default)]
pub struct Selection {
    /// Names that match.
    pub focus: Option<Regex>,
    /// Names that do not match.
    pub skip: Option<Regex>,
    /// Of this group, `sig-node`.
    pub group: Option<String>,
    /// Every n-th.
    pub shard: Option<Shard>,
    /// Not those that passed.
    pub resume: bool,
}

impl Selection {
    /// The chosen ones. Shards are parts of the list of tests, not of what is left of it: they stay the same on resuming.
    pub fn of(&self, tests: &[String], results: &Results) -> Vec<String> {
        let in_shard = |index: usize| self.shard.is_none_or(|s| index % s.of == s.number - 1);
        let passed = |name: &str| results.get(name).is_some_and(|row| row.state == State::Passed);
        let chosen = tests.iter().enumerate().filter(|(index, name)| {
            in_shard(*index)
                && self.focus.as_ref().is_none_or(|focus| focus.is_match(name))
                && !self.skip.as_ref().is_some_and(|skip| skip.is_match(name))
                && self.group.as_ref().is_none_or(|group| group == results::group(name))
                && !(self.resume && passed(name))
        });
        chosen.map(|(_, name)| name.clone()).collect()
    }
}
