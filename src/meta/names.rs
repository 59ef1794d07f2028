//! Syntax of names, keys and values, each check giving upstream's texts of all that is wrong (none: valid).
//!
//! upstream: apimachinery/pkg/util/validation/validation.go, api/validate/content. The patterns are small enough to be
//! matched by hand; the texts quote upstream's regular expressions.

/// Longest DNS-1123 label, port of entry for most names.
pub const DNS1123_LABEL_MAX: usize = 63;
/// Longest DNS-1123 subdomain.
pub const DNS1123_SUBDOMAIN_MAX: usize = 253;
/// Longest label value.
pub const LABEL_VALUE_MAX: usize = 63;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// `must be no more than N characters`
pub fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `must be between A and B, inclusive`
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// The same for label keys and values, whose checks count in other words.
fn max_bytes_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    // Two blanks before "or": upstream's text, to the letter.
    let examples = examples.iter().map(|e| format!("'{e}'")).collect::<Vec<_>>().join(",  or ");
    format!("{message} (e.g. {examples}, regex used for validation is '{pattern}')")
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?` with the extra bytes allowed inside.
fn is_label(
    s: &str,
    first: impl Fn(u8) -> bool,
    inner: impl Fn(u8) -> bool,
    last: impl Fn(u8) -> bool,
) -> bool {
    let b = s.as_bytes();
    match b {
        [] => false,
        [one] => first(*one),
        [head, middle @ .., tail] => first(*head) && middle.iter().all(|c| inner(*c)) && last(*tail),
    }
}

fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_dns1123_label(s: &str) -> bool {
    is_label(s, lower_or_digit, |c| lower_or_digit(c) || c == b'-', lower_or_digit)
}

fn is_dns1123_subdomain(s: &str) -> bool {
    s.split('.').all(is_dns1123_label)
}

/// A DNS-1123 label: most namespaced names that become host names.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS1123_LABEL_MAX {
        errors.push(max_len_error(DNS1123_LABEL_MAX));
    }
    if !is_dns1123_label(value) {
        // A subdomain error is told apart so that people see which rule of the two it is.
        let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                       start and end with an alphanumeric character";
        if is_dns1123_subdomain(value) {
            errors.push("must not contain dots".into());
        } else {
            errors.push(regex_error(message, LABEL_FMT, &["my-name", "123-abc"]));
        }
    }
    errors
}

/// A DNS-1123 subdomain: the default rule for names.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX {
        errors.push(max_len_error(DNS1123_SUBDOMAIN_MAX));
    }
    if !is_dns1123_subdomain(value) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                       must start and end with an alphanumeric character";
        errors.push(regex_error(message, &format!("{LABEL_FMT}(\\.{LABEL_FMT})*"), &["example.com"]));
    }
    errors
}

/// As [`dns1123_subdomain`], but labels may begin with and contain underscores.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX {
        errors.push(max_len_error(DNS1123_SUBDOMAIN_MAX));
    }
    let label = |s: &str| {
        let s = s.strip_prefix('_').unwrap_or(s);
        is_label(s, lower_or_digit, |c| lower_or_digit(c) || c == b'-' || c == b'_', lower_or_digit)
    };
    if !value.split('.').all(label) {
        let fmt = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', \
                       and must start and end with an alphanumeric character";
        errors.push(regex_error(message, &format!("{fmt}(\\.{fmt})*"), &["example.com"]));
    }
    errors
}

/// A DNS-1035 label: Service names.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS1123_LABEL_MAX {
        errors.push(max_len_error(DNS1123_LABEL_MAX));
    }
    let ok = is_label(value, |c| c.is_ascii_lowercase(), |c| lower_or_digit(c) || c == b'-', lower_or_digit);
    if !ok {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                       character, and end with an alphanumeric character";
        errors.push(regex_error(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    errors
}

/// `*.example.com`
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX {
        errors.push(max_len_error(DNS1123_SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_dns1123_subdomain) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                       consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        errors.push(regex_error(message, &format!("\\*\\.{LABEL_FMT}(\\.{LABEL_FMT})*"), &["*.example.com"]));
    }
    errors
}

/// What a generateName prefix is checked as: its last two bytes become a letter when it ends in a dash, for something
/// will follow it. upstream: api/validation/generic.go maskTrailingDash
pub fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-').and_then(|head| head.char_indices().next_back()) {
        Some((at, _)) => format!("{}a", &name[..at]),
        None => name.into(),
    }
}

/// [`dns1123_subdomain`] of a name, or of a generateName prefix.
pub fn dns1123_subdomain_prefixed(name: &str, prefix: bool) -> Vec<String> {
    if prefix { dns1123_subdomain(&mask_trailing_dash(name)) } else { dns1123_subdomain(name) }
}

/// [`dns1123_label`] of a name, or of a generateName prefix.
pub fn dns1123_label_prefixed(name: &str, prefix: bool) -> Vec<String> {
    if prefix { dns1123_label(&mask_trailing_dash(name)) } else { dns1123_label(name) }
}

/// [`dns1035_label`] of a name, or of a generateName prefix.
pub fn dns1035_label_prefixed(name: &str, prefix: bool) -> Vec<String> {
    if prefix { dns1035_label(&mask_trailing_dash(name)) } else { dns1035_label(name) }
}

/// A name that can be one segment of a URL path: RBAC kinds. upstream: api/validation/path IsValidPathSegmentName
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].into_iter().filter(|c| name.contains(c)).map(|c| format!("may not contain '{c}'")).collect()
}

fn alnum(c: u8) -> bool {
    c.is_ascii_alphanumeric()
}

fn is_qualified_part(s: &str) -> bool {
    is_label(s, alnum, |c| alnum(c) || matches!(c, b'-' | b'_' | b'.'), alnum)
}

/// A label or annotation key, a resource name, a condition type: `[prefix/]name`. upstream: content.IsLabelKey
pub fn qualified_name(value: &str) -> Vec<String> {
    let message = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                   character";
    let examples = ["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_string());
            } else {
                errors.extend(dns1123_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            *name
        }
        _ => {
            let text = regex_error(message, QUALIFIED_FMT, &examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > DNS1123_LABEL_MAX {
        errors.push(format!("name part {}", max_bytes_error(DNS1123_LABEL_MAX)));
    }
    if !is_qualified_part(name) {
        errors.push(format!("name part {}", regex_error(message, QUALIFIED_FMT, &examples)));
    }
    errors
}

/// A label value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_VALUE_MAX {
        errors.push(max_bytes_error(LABEL_VALUE_MAX));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                       start and end with an alphanumeric character";
        errors.push(regex_error(message, &format!("({QUALIFIED_FMT})?"), &["MyValue", "my_value", "12345"]));
    }
    errors
}

fn ch_dir_prefix(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        v if v.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX {
        errors.push(max_len_error(DNS1123_SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|c| alnum(c) || matches!(c, b'-' | b'_' | b'.')) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errors.push(regex_error(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    errors.extend(ch_dir_prefix(value));
    errors
}

/// An environment variable's name, the strict rule.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let ok = !value.is_empty()
        && !value.as_bytes()[0].is_ascii_digit()
        && value.bytes().all(|c| alnum(c) || matches!(c, b'-' | b'_' | b'.'));
    if !ok {
        let message = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and \
                       must not start with a digit";
        errors.push(regex_error(
            message,
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    errors.extend(ch_dir_prefix(value));
    errors
}

/// An environment variable's name, the relaxed rule: printable ASCII but `=`. upstream: IsRelaxedEnvVarName
pub fn relaxed_env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if value.bytes().all(|c| (0x20..=0x7e).contains(&c) && c != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into(),
    ]
}

/// The name of a port.
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(max_len_error(15));
    }
    if !value.bytes().all(|c| lower_or_digit(c) || c == b'-') || value.is_empty() {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".into());
    }
    errors
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![range_error(1, 65535)] }
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| alnum(c) || c == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// `30%`
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(message, "[0-9]+%", &["1%", "93%"])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_upstreams_words() {
        let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                     end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        for (check, value, want) in [
            (dns1123_label as fn(&str) -> Vec<String>, "a-b", vec![]),
            (dns1123_label, "A", vec![label.to_string()]),
            (dns1123_label, "a.b", vec!["must not contain dots".to_string()]),
            (dns1123_subdomain, "a.b-c", vec![]),
            (dns1123_subdomain, "a..b", dns1123_subdomain("-")),
            (qualified_name, "example.com/My_Name", vec![]),
            (qualified_name, "/x", vec!["prefix part must be non-empty".to_string()]),
            (label_value, "", vec![]),
            (config_map_key, "..", vec!["must not be '..'".to_string()]),
            (port_name, "a--b", vec!["must not contain consecutive hyphens".to_string()]),
            (percent, "30%", vec![]),
        ] {
            assert_eq!(check(value), want, "{value:?}");
        }
    }
}
