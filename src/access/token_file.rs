//! `--token-auth-file`: lines of `token,user,uid[,"group1,group2"]`.
//!
//! upstream: apiserver/pkg/authentication/token/tokenfile/tokenfile.go

use crate::authn::{Authenticated, AuthenticationError, TokenAuthenticator};
use copepod_meta::{BoxFuture, User};
use std::collections::HashMap;
use std::sync::Arc;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// A line has too few columns.
    #[error("token file '{path}' must have at least 3 columns (token, user name, user uid), found {found}")]
    Columns {
        /// The file.
        path: String,
        /// Columns found.
        found: usize,
    },
    /// A quoted column does not end.
    #[error("token file '{path}': extraneous or missing \" in quoted-field")]
    Quote {
        /// The file.
        path: String,
    },
}

/// Fixed tokens.
pub struct TokenFile {
    users: HashMap<String, Arc<User>>,
}

impl TokenFile {
    /// Parses the text of `path` (which is only named in errors).
    pub fn parse(path: &str, text: &str) -> Result<TokenFile, TokenFileError> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.is_empty()) {
            let columns = columns(line).ok_or_else(|| TokenFileError::Quote { path: path.into() })?;
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(TokenFileError::Columns { path: path.into(), found: columns.len() });
            };
            if token.is_empty() {
                tracing::warn!(
                    "empty token has been found in token file '{path}', record number '{}'",
                    number + 1
                );
                continue;
            }
            let groups = rest.first().map(|g| g.split(',').map(Into::into).collect()).unwrap_or_default();
            let user = User { name: name.clone(), uid: uid.clone(), groups, extra: Vec::new() };
            if users.insert(token.clone(), Arc::new(user)).is_some() {
                tracing::warn!(
                    "duplicate token has been found in token file '{path}', record number '{}'",
                    number + 1
                );
            }
        }
        Ok(TokenFile { users })
    }
}

/// One CSV line; `None` when a quote is left open.
fn columns(line: &str) -> Option<Vec<String>> {
    let (mut out, mut column, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                column.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut column)),
            c => column.push(c),
        }
    }
    out.push(column);
    (!quoted).then_some(out)
}

impl TokenAuthenticator for TokenFile {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        _audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Authenticated>, AuthenticationError>> {
        let found =
            self.users.get(token).map(|user| Authenticated { user: user.clone(), audiences: Vec::new() });
        Box::pin(async move { Ok(found) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let file = TokenFile::parse("f", "t1,bob,1\n,empty,2\nt2,al,3,\"a,b\"\n").expect("parses");
        assert_eq!(file.users.len(), 2);
        assert_eq!(file.users["t2"].groups, ["a", "b"]);
        let error = TokenFile::parse("f", "t1,bob").err().expect("too few columns");
        assert_eq!(
            error.to_string(),
            "token file 'f' must have at least 3 columns (token, user name, user uid), found 2"
        );
    }
}
