//! Reads: get, list, watch.
//!
//! upstream: apiserver/pkg/endpoints/handlers/get.go, apiserver/pkg/registry/generic/registry/store.go List, Watch

use std::sync::Arc;

use copepod_meta::{Reason, Status};
use copepod_store::StoreError;
use copepod_store::cache::{CacheError, ListQuery, ReadAt, WatchQuery, WatchStart};
use tokio::time::Instant;

use crate::api::*;
use crate::collection::Collection;
use crate::errors;
use crate::registry::Registry;
use crate::selection::{Position, Selection, check_selectors, encode_continue, parse_version};
use crate::special::{self, Ask};

impl Registry {
    /// GET of an object or a subresource.
    pub async fn get(
        &self,
        caller: &Caller,
        target: &Target,
        options: &GetOptions,
    ) -> Result<Answer, Status> {
        if let Some(special) = special::find(target) {
            return special.get(Ask { registry: self, caller, target }, options).await;
        }
        let collection = target.collection("get")?;
        let object = self.get_object(collection, target, options).await?;
        Ok(Answer::ok(Content::Stored(object)))
    }

    /// The object that a target names.
    pub(crate) async fn get_object(
        &self,
        collection: &Arc<Collection>,
        target: &Target,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let key = collection.key(&target.namespace, &target.name)?;
        let resource = target.served.group_resource();
        let at = match options.resource_version.as_str() {
            "" => ReadAt::Latest,
            text => match parse_version(text).map_err(|e| collection.invalid_version(e))? {
                0 => ReadAt::Any,
                revision => ReadAt::AtLeast(revision),
            },
        };
        let got = collection.cache.get(&key, at).await.map_err(|e| errors::cache(e, &resource, "get"))?;
        let entry = got.entry.ok_or_else(|| Status::not_found(&resource, &target.name))?;
        Ok(Object::of_entry(&target.served, collection, entry))
    }

    /// GET of a collection. A `target.name` selects one object.
    pub async fn list(
        &self,
        caller: &Caller,
        target: &Target,
        mut options: ListOptions,
    ) -> Result<Listing, Status> {
        if let Some(special) = special::find(target) {
            return special.list(Ask { registry: self, caller, target }).await;
        }
        let collection = target.collection("list")?;
        options.set_defaults();
        check_selectors(&options)?;
        options.validate()?;
        self.list_objects(collection, target, &options).await
    }

    /// What a list with valid options selects.
    pub(crate) async fn list_objects(
        &self,
        collection: &Arc<Collection>,
        target: &Target,
        options: &ListOptions,
    ) -> Result<Listing, Status> {
        let selection = Selection::of(collection, target, options)?;
        let position = Position::of(options, &selection)?;
        let mut query = ListQuery::new(selection.scope.clone(), position.at);
        (query.start, query.limit) = (position.start.clone(), position.limit);
        (query.filter, query.field) = (selection.filter.clone(), selection.field.clone());
        let resource = target.served.group_resource();
        let listed = collection.cache.list(query).await.map_err(|e| match e {
            CacheError::Store(StoreError::Compacted { .. }) | CacheError::Expired { .. } => {
                expired(&position, &selection)
            }
            e => errors::cache(e, &resource, "list"),
        })?;
        let continue_token = match listed.entries.last().filter(|_| listed.more) {
            Some(last) => {
                let revision = i64::try_from(listed.revision).unwrap_or(i64::MAX);
                encode_continue(&last.key, &selection.folder, revision)
            }
            None => String::new(),
        };
        let remaining = listed.remaining.filter(|_| listed.more && selection.filter.is_none());
        let objects = listed.entries.into_iter().map(|e| Object::of_entry(&target.served, collection, e));
        Ok(Listing {
            objects: objects.collect(),
            served: target.served.clone(),
            revision: listed.revision,
            continue_token,
            remaining: remaining.and_then(|n| i64::try_from(n).ok()),
        })
    }

    /// GET of a collection with `watch=1`. The watch ends by itself after `timeoutSeconds` (0: never; the edge picks the
    /// default) or at shutdown.
    pub async fn watch(
        &self,
        _caller: &Caller,
        target: &Target,
        mut options: ListOptions,
    ) -> Result<Watch, Status> {
        let collection = target.collection("watch")?;
        options.watch = true;
        options.set_defaults();
        check_selectors(&options)?;
        options.validate()?;
        let selection = Selection::of(collection, target, &options)?;
        let resource = target.served.group_resource();
        let start = watch_start(&options)?;
        let mut query = WatchQuery::new(selection.scope, start);
        (query.filter, query.field) = (selection.filter, selection.field);
        query.bookmarks = options.allow_watch_bookmarks;
        query.initial_events_end = options.send_initial_events == Some(true) && options.allow_watch_bookmarks;
        let timeout = options.timeout_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        query.deadline = timeout.map(|s| Instant::now() + std::time::Duration::from_secs(s));
        let watcher = match collection.cache.watch(query).await {
            Ok(watcher) => Ok(watcher),
            // upstream opens the watch and sends the 410 as its first and last event.
            Err(error @ CacheError::Expired { .. }) => Err(errors::cache(error, &resource, "watch")),
            Err(error) => return Err(errors::cache(error, &resource, "watch")),
        };
        Ok(Watch::new(&target.served, collection, watcher, self.ending()))
    }
}

/// upstream: apiserver/pkg/storage/cacher/cacher.go Watch, getWatchCacheResourceVersion
fn watch_start(options: &ListOptions) -> Result<WatchStart, Status> {
    let revision = parse_version(&options.resource_version).map_err(invalid_version)?;
    let unset = options.resource_version.is_empty();
    let state_at = match revision {
        _ if unset => ReadAt::Latest,
        0 => ReadAt::Any,
        revision => ReadAt::AtLeast(revision),
    };
    Ok(match options.send_initial_events {
        Some(true) => WatchStart::State(state_at),
        Some(false) if revision == 0 => WatchStart::Now(if unset { ReadAt::Latest } else { ReadAt::Any }),
        _ if revision > 0 => WatchStart::After(revision),
        _ => WatchStart::State(state_at),
    })
}

/// A plain error, that is a 500: upstream's storage does not make a Status of it.
fn invalid_version(error: copepod_meta::FieldError) -> Status {
    Status::new(500, Reason::Unknown, error.to_string())
}

impl Collection {
    /// Without a cache before it upstream's storage does make a Status of it.
    fn invalid_version(&self, error: copepod_meta::FieldError) -> Status {
        if self.hooks.is_read_seldom() {
            return Status::bad_request(format!("invalid resource version: {error}"));
        }
        invalid_version(error)
    }
}

/// 410 of a list. A page that is too late may go on at the newest state, if its client takes the inconsistency.
/// upstream: apiserver/pkg/storage/etcd3/errors.go handleCompactedErrorForPaging
fn expired(position: &Position, selection: &Selection) -> Status {
    if position.start.is_empty() {
        return Status::expired("The resourceVersion for the provided list is too old.");
    }
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let last = position.start.strip_suffix(b"\0").unwrap_or(&position.start);
    status.details.get_or_insert_default().continue_token = encode_continue(last, &selection.folder, -1);
    status
}

impl Target {
    /// Whether answers can be had as a Table. A kind that is only made and never shown (a review) has no columns.
    /// upstream: endpoints/handlers/rest.go AllowsMediaTypeTransform; installer.go asks lists for a TableConvertor
    pub fn shows_table(&self) -> bool {
        let is_shown = self.served.version().has_verb("list");
        is_shown && self.served.kind.strategy.shows_table(&self.subresource)
    }

    /// The stored resource behind it, or 405.
    pub(crate) fn collection(&self, verb: &str) -> Result<&Arc<Collection>, Status> {
        let collection = self.served.collection.as_ref();
        collection.ok_or_else(|| Status::method_not_supported(&self.served.group_resource(), verb))
    }
}
