//! Where a link of a page behind a proxy has to lead: a path of the backend's own host lies below the proxy's path.
//!
//! upstream: apimachinery/pkg/util/proxy/transport.go rewriteURL; net/url for what a URL's parts are
//!
//! Invariant: a link that has to lead nowhere else is left as it is written, not written anew.

use copepod_meta::url::{escape_path, unescape_path};

/// A link cannot be read. The words are Go's, they reach the user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("parse {}: {why}", copepod_meta::field::quote(.link))]
pub struct LinkError {
    link: String,
    why: String,
}

/// The backend and the path under which it is shown.
#[derive(Clone, Debug)]
pub struct Links {
    /// `/api/v1/namespaces/x/pods/p/proxy`, decoded, without a slash at its end.
    pub prefix: String,
    /// `host:port` of the backend.
    pub backend: String,
    /// `Host` as the client sent it: the backend may think that it is called so.
    pub asked: String,
}

/// What matters of a URL.
struct Parts<'a> {
    /// With its colon and slashes and the user: what stands before the path.
    before: &'a str,
    host: &'a str,
    /// Decoded.
    path: String,
    /// Query and fragment, with their signs.
    behind: &'a str,
}

impl Links {
    /// What the link has to be instead; `None`: what it is.
    pub fn rewrite(&self, link: &str) -> Result<Option<String>, LinkError> {
        let Some(parts) = parts(link).map_err(|why| LinkError { link: link.into(), why })? else {
            return Ok(None);
        };
        let is_foreign = !parts.host.is_empty() && parts.host != self.backend && parts.host != self.asked;
        if is_foreign || !parts.path.starts_with('/') {
            return Ok(None);
        }
        // The name that the client knows may stay, the backend's address may not.
        let keeps_host = !parts.host.is_empty() && parts.host == self.asked;
        let before = if keeps_host { parts.before } else { "" };
        if parts.path.starts_with(&self.prefix) {
            let is_same = before.len() == parts.before.len();
            return Ok((!is_same).then(|| format!("{}{}", escape_path(&parts.path), parts.behind)));
        }
        let path = clean(&format!("{}/{}", self.prefix, parts.path));
        Ok(Some(format!("{before}{}{}", escape_path(&path), parts.behind)))
    }
}

/// Takes a URL apart as Go does; `None`: it has no path (`mailto:x`).
fn parts(url: &str) -> Result<Option<Parts<'_>>, String> {
    let (main, _) = url.split_once('#').unwrap_or((url, ""));
    if main.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    let (scheme, rest) = scheme(main)?;
    let (hierarchy, _) = rest.split_once('?').unwrap_or((rest, ""));
    let behind = &url[main.len() - rest.len() + hierarchy.len()..];
    if !hierarchy.starts_with('/') {
        if scheme.is_some() {
            return Ok(None);
        }
        if hierarchy.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".into());
        }
    }
    let is_authority = hierarchy.starts_with("//") && (scheme.is_some() || !hierarchy.starts_with("///"));
    let (authority, path) = if is_authority {
        let after = &hierarchy[2..];
        after.split_at(after.find('/').unwrap_or(after.len()))
    } else {
        ("", hierarchy)
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let before = &main[..main.len() - rest.len() + hierarchy.len() - path.len()];
    Ok(Some(Parts {
        before,
        host,
        path: unescape_path(path).map_err(|e| e.to_string())?.into_owned(),
        behind,
    }))
}

/// upstream: net/url getScheme
fn scheme(url: &str) -> Result<(Option<&str>, &str), String> {
    for (at, byte) in url.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".into()),
            b':' => return Ok((Some(&url[..at]), &url[at + 1..])),
            _ => break,
        }
    }
    Ok((None, url))
}

/// An absolute path without `.`, `..` and double slashes: no way out of it, its last slash kept.
/// upstream: apimachinery/pkg/util/net/http.go JoinPreservingTrailingSlash
pub fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream makes of each link; `=`: nothing else.
    #[test]
    fn links_lead_through_the_proxy() {
        let links =
            Links { prefix: "/p/proxy".into(), backend: "10.0.0.1:80".into(), asked: "api:6443".into() };
        for (link, want) in [
            ("/rewriteme", "/p/proxy/rewriteme"),
            ("/a/?b=/c#/d", "/p/proxy/a/?b=/c#/d"),
            ("/", "/p/proxy/"),
            ("/a/../b", "/p/proxy/b"),
            ("/a b", "/p/proxy/a%20b"),
            ("/a%20(b)", "/p/proxy/a%20%28b%29"),
            ("http://10.0.0.1:80/x", "/p/proxy/x"),
            ("//10.0.0.1:80/x", "/p/proxy/x"),
            ("http://10.0.0.1:80/p/proxy/x", "/p/proxy/x"),
            ("https://api:6443/x", "https://api:6443/p/proxy/x"),
            ("https://api:6443/p/proxy/x", "="),
            ("/p/proxy/x", "="),
            ("http://elsewhere/x", "="),
            ("//elsewhere/x", "="),
            ("http://10.0.0.1:81/x", "="),
            ("http://10.0.0.1:80", "="),
            ("x/y", "="),
            ("", "="),
            ("#top", "="),
            ("?a=/b", "="),
            ("mailto:a@b", "="),
            ("javascript:void(0)", "="),
            ("/a%zz", "invalid URL escape \"%zz\""),
            (":a", "missing protocol scheme"),
            ("a:b/c", "="),
            ("1:b", "first path segment in URL cannot contain colon"),
            ("/a\u{1}", "net/url: invalid control character in URL"),
        ] {
            let got = match links.rewrite(link) {
                Ok(rewritten) => rewritten.unwrap_or("=".into()),
                Err(error) => error.why,
            };
            assert_eq!(got, want, "{link}");
        }
    }
}
