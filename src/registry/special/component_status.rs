//! `componentstatuses`, deprecated: what this server can say for sure, which is whether its store answers. Schedulers and
//! controller managers run elsewhere; upstream's guess at their ports is not repeated.

use std::sync::Arc;

use copepod_meta::{GroupResource, Map, Status, Value};

use super::{Answered, Ask, Special};
use crate::api::{GetOptions, Listing, Object};

const STORE: &str = "etcd-0";

pub(super) struct ComponentStatus;

impl Special for ComponentStatus {
    fn get<'a>(&'a self, ask: Ask<'a>, _options: &'a GetOptions) -> Answered<'a> {
        Box::pin(async move {
            if ask.target.name != STORE {
                return Err(Status::not_found(&GroupResource::new("", "componentstatus"), &ask.target.name));
            }
            ask.answer(200, store_status(ask).await)
        })
    }

    fn list<'a>(&'a self, ask: Ask<'a>) -> Answered<'a, Listing> {
        Box::pin(async move {
            let object = Object::of_tree(&ask.target.served, Arc::new(store_status(ask).await));
            Ok(Listing {
                objects: vec![object],
                served: ask.target.served.clone(),
                revision: 0,
                continue_token: String::new(),
                remaining: None,
            })
        })
    }
}

async fn store_status(ask: Ask<'_>) -> Value {
    let (status, message, error) = match ask.registry.store.current_revision().await {
        Ok(_) => ("True", "ok", String::new()),
        Err(error) => ("False", "", error.to_string()),
    };
    let mut condition = Map::from_iter([("type", "Healthy"), ("status", status)]);
    for (member, text) in [("message", message), ("error", error.as_str())] {
        if !text.is_empty() {
            condition.insert(member, text);
        }
    }
    let mut object = Value::map();
    object.set(&["metadata", "name"], STORE);
    object.set(&["conditions"], vec![Value::Map(condition)]);
    object
}
