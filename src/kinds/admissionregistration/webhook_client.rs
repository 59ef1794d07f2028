//! How a webhook is reached. upstream: apiserver/pkg/util/webhook/validation.go

use copepod_meta::{ErrorList, field::quote, names};

use crate::check::At;

/// upstream: ValidateWebhookURL, with HTTPS forced
pub(crate) fn url(at: At, e: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match Url::parse(at.str()) {
        Ok(url) => url,
        Err(why) => {
            let message = format!("url must be a valid URL: parse {}: {why}{FORM}", quote(at.str()));
            return at.required(e, &message);
        }
    };
    let mut say = |value: &str, message: String| at.invalid_str(e, value, message);
    if url.scheme != "https" {
        say(&url.scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        say("", format!("host must be specified{FORM}"));
    }
    if !url.user.is_empty() {
        say(url.user, "user information is not permitted in the URL".into());
    }
    if !url.fragment.is_empty() {
        say(url.fragment, "fragments are not permitted in the URL".into());
    }
    if !url.query.is_empty() {
        say(url.query, "query parameters are not permitted in the URL".into());
    }
}

/// The parts of a URL, as Go's net/url splits them.
#[derive(Default)]
struct Url<'a> {
    scheme: String,
    user: &'a str,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Url<'a>, String> {
        let mut url = Url::default();
        if text.bytes().any(|c| c < b' ' || c == 0x7f) {
            return Err("net/url: invalid control character in URL".into());
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        url.fragment = fragment;
        let mut rest = rest;
        match rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))) {
            Some(0) if rest.starts_with(':') => return Err("missing protocol scheme".into()),
            Some(end)
                if rest[end..].starts_with(':') && rest.starts_with(|c: char| c.is_ascii_alphabetic()) =>
            {
                url.scheme = rest[..end].to_lowercase();
                rest = &rest[end + 1..];
            }
            _ => {}
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        url.query = query;
        if let Some(authority) = path.strip_prefix("//") {
            let authority = authority.split('/').next().unwrap_or("");
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            if let Some(bad) = host.chars().find(|c| " <>\"".contains(*c)) {
                return Err(format!("invalid character {} in host name", quote(&bad.to_string())));
            }
            (url.user, url.host) = (user, host);
        } else if url.scheme.is_empty() && path.split('/').next().is_some_and(|s| s.contains(':')) {
            return Err("first path segment in URL cannot contain colon".into());
        }
        Ok(url)
    }
}

/// upstream: ValidateWebhookService
pub(crate) fn service(at: At, e: &mut ErrorList) {
    // Upstream's callers hand over name and namespace in the wrong order.
    if at.value.str_at(&["namespace"]).is_empty() {
        at.get("name").required(e, "");
    }
    if at.value.str_at(&["name"]).is_empty() {
        at.get("namespace").required(e, "");
    }
    let port = at.get("port");
    let wrong = names::port_number(port.int());
    if !wrong.is_empty() {
        port.invalid_int(e, format!("port is not valid: {}", wrong.join(", ")));
    }
    let path = at.get("path");
    let text = path.str();
    if matches!(text, "" | "/") {
        return;
    }
    if text == "//" {
        return path.invalid(e, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        path.invalid(e, "must start with a '/'");
    }
    // The first character goes, slash or not.
    let mut chars = text.chars();
    chars.next();
    let steps = chars.as_str();
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    for (i, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            path.invalid(e, format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::dns1123_subdomain(step) {
            path.invalid(e, format!("segment[{i}]: {message}"));
        }
    }
}
