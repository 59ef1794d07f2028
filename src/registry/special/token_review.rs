//! `TokenReview` (whose token is this) and `SelfSubjectReview` (who am I).
//!
//! upstream: pkg/registry/authentication/{tokenreview,selfsubjectreview}

use copepod_meta::{Map, Status, User, Value};

use super::{Answered, Ask, Special};
use crate::api::{Answer, Body, WriteOptions};
use crate::collection::now;

pub(super) struct TokenReview;
pub(super) struct SelfSubjectReview;

impl Special for TokenReview {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(review(ask, body, options))
    }
}

async fn review(ask: Ask<'_>, body: Body, options: &WriteOptions) -> Result<Answer, Status> {
    let mut review = ask.decode_owned(&body, options)?;
    let token = review.str_at(&["spec", "token"]).to_string();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = review.list_at(&["spec", "audiences"]).iter();
    let audiences: Vec<String> = wanted.filter_map(|a| a.as_str().map(str::to_string)).collect();
    review.remove(&["status"]);
    match ask.registry.deciders().tokens.review(&token, &audiences).await {
        Ok(Some((user, audiences))) => {
            review.set(&["status", "authenticated"], true);
            review.set(&["status", "user"], user_info(&user));
            if !audiences.is_empty() {
                let list: Vec<Value> = audiences.iter().map(Value::string).collect();
                review.set(&["status", "audiences"], list);
            }
        }
        Ok(None) => review.set(&["status", "error"], "invalid bearer token"),
        Err(status) => review.set(&["status", "error"], status.message),
    }
    ask.answer(201, review)
}

impl Special for SelfSubjectReview {
    fn create<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(async move {
            ask.decode(&body, options)?;
            let mut review = Value::map();
            review.set(&["metadata", "creationTimestamp"], now());
            review.set(&["status", "userInfo"], user_info(&ask.caller.user));
            ask.answer(201, review)
        })
    }
}

/// `authentication.k8s.io UserInfo`.
fn user_info(user: &User) -> Map {
    let texts = |list: &[String]| Value::List(list.iter().map(Value::string).collect());
    let mut info = Map::default();
    for (member, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            info.insert(member, text.as_str());
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups", texts(&user.groups));
    }
    if !user.extra.is_empty() {
        let extra: Map = user.extra.iter().map(|(key, values)| (key.as_str(), texts(values))).collect();
        info.insert("extra", extra);
    }
    info
}
