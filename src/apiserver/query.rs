//! Options of requests out of their query, with upstream's words for what cannot be read.
//!
//! upstream: apimachinery/pkg/runtime/conversion.go, apiserver/pkg/endpoints/handlers

use crate::request_info::query_bool;
use copepod_meta::Status;
use copepod_registry::{DeleteOptions, GetOptions, ListOptions, Preconditions, WriteOptions};

/// A decoded query.
#[derive(Clone, Debug, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    /// Decodes.
    pub fn new(raw: &str) -> Query {
        Query(copepod_meta::url::query_pairs(raw))
    }

    /// The first value of a key.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The first value of a key, "" if there is none.
    pub fn text(&self, key: &str) -> String {
        self.first(key).unwrap_or("").to_string()
    }

    fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.first(key).map(query_bool)
    }

    /// A number. upstream: strconv.ParseInt
    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.first(key) else { return Ok(None) };
        if text.is_empty() {
            return Err(Status::bad_request("strconv.ParseInt: parsing \"\": invalid syntax"));
        }
        text.parse().map(Some).map_err(|e: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = if matches!(e.kind(), PosOverflow | NegOverflow) {
                "value out of range"
            } else {
                "invalid syntax"
            };
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: {why}",
                copepod_meta::field::quote(text)
            ))
        })
    }

    /// Options of list, watch and deletecollection.
    pub fn list_options(&self) -> Result<ListOptions, Status> {
        Ok(ListOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            watch: self.flag("watch").unwrap_or(false),
            allow_watch_bookmarks: self.flag("allowWatchBookmarks").unwrap_or(false),
            resource_version: self.text("resourceVersion"),
            resource_version_match: self.text("resourceVersionMatch"),
            timeout_seconds: self.number("timeoutSeconds")?,
            limit: self.number("limit")?.unwrap_or(0),
            continue_token: self.text("continue"),
            send_initial_events: self.flag("sendInitialEvents"),
        })
    }

    /// Options of get.
    pub fn get_options(&self) -> GetOptions {
        GetOptions { resource_version: self.text("resourceVersion") }
    }

    /// Options of create, update and patch.
    pub fn write_options(&self) -> WriteOptions {
        WriteOptions {
            dry_run: self.all("dryRun"),
            field_manager: self.text("fieldManager"),
            field_validation: self.text("fieldValidation"),
            force: self.flag("force"),
        }
    }

    /// Options of a deletion without a body.
    pub fn delete_options(&self) -> Result<DeleteOptions, Status> {
        Ok(DeleteOptions {
            grace_period_seconds: self.number("gracePeriodSeconds")?,
            preconditions: Preconditions::default(),
            orphan_dependents: self.flag("orphanDependents"),
            propagation_policy: self.first("propagationPolicy").map(str::to_string),
            dry_run: self.all("dryRun"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_refused_in_gos_words() {
        for (query, want) in [
            ("limit=10", Ok(10)),
            ("", Ok(0)),
            ("limit=abc", Err("strconv.ParseInt: parsing \"abc\": invalid syntax")),
            (
                "limit=99999999999999999999",
                Err("strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
            ),
        ] {
            let got = Query::new(query).list_options().map(|o| o.limit).map_err(|s| s.message);
            assert_eq!(got, want.map_err(str::to_string), "{query}");
        }
    }
}
