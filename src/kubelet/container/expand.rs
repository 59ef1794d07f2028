//! `$(NAME)` in commands, arguments and values. Pure.
//!
//! upstream: third_party/forked/golang/expansion/expand.go

/// Replaces `$(NAME)` by what `lookup` knows; an unknown name stays as it is written, `$$` is a dollar sign.
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inside) = tail.strip_prefix('(') {
            match inside.split_once(')') {
                Some((name, after)) => {
                    match lookup(name) {
                        Some(value) => out.push_str(&value),
                        None => out.push_str(&format!("$({name})")),
                    }
                    rest = after;
                }
                None => {
                    out.push_str("$(");
                    rest = inside;
                }
            }
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of upstream's expand_test.go.
    #[test]
    fn expansion_is_upstreams() {
        for (input, want) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)$(VAR_B)", "AB"),
            ("$(MISSING)", "$(MISSING)"),
            ("f000-$$VAR_A", "f000-$VAR_A"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("foo\\$(VAR_A)", "foo\\A"),
            ("$(VAR_A", "$(VAR_A"),
            ("$", "$"),
            ("a$", "a$"),
            ("$VAR_A", "$VAR_A"),
            ("$($(VAR_A))", "$($(VAR_A))"),
            ("", ""),
        ] {
            let got = expand(input, |name| name.strip_prefix("VAR_").map(str::to_owned));
            assert_eq!(got, want, "{input}");
        }
    }
}
