//! Host names of rules and of `spec.tls`, as the API server checks them (RFC 1123 subdomain, or a wildcard for the first
//! label).

use std::net::IpAddr;

use crate::model::HostPattern;

/// Parses `spec.rules[].host` or `spec.tls[].hosts[]`; the error says what is wrong.
pub(super) fn parse(host: &str) -> Result<HostPattern, String> {
    if host.is_empty() {
        return Ok(HostPattern::Any);
    }
    if host.parse::<IpAddr>().is_ok() {
        return Err("an IP address is not a host name".into());
    }
    let (pattern, name): (fn(String) -> HostPattern, &str) = match host.strip_prefix("*.") {
        Some(parent) => (HostPattern::Wildcard, parent),
        None => (HostPattern::Exact, host),
    };
    check_name(name)?;
    Ok(pattern(name.to_owned()))
}

fn check_name(name: &str) -> Result<(), String> {
    if name.len() > 253 {
        return Err("longer than 253 characters".into());
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("it has an empty label".into());
        }
        if label.len() > 63 {
            return Err(format!("label `{label}` is longer than 63 characters"));
        }
        if let Some(wrong) =
            label.chars().find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && *c != '-')
        {
            return Err(match wrong {
                '*' => "`*` stands only for the whole first label".into(),
                ':' => "a port does not belong to the host".into(),
                upper if upper.is_ascii_uppercase() => "it must be in lower case".into(),
                other => format!("it has the character `{}`", other.escape_debug()),
            });
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!("label `{label}` begins or ends with `-`"));
        }
    }
    Ok(())
}

/// Whether `pattern` covers every name that `other` does: itself, or a wildcard one label up.
pub(super) fn covers(pattern: &HostPattern, other: &HostPattern) -> bool {
    match (pattern, other) {
        (HostPattern::Any, _) => true,
        (HostPattern::Wildcard(parent), HostPattern::Exact(name)) => {
            name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
        (pattern, other) => pattern == other,
    }
}

/// As a person writes it.
pub(super) fn show(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(parent) => format!("*.{parent}"),
        HostPattern::Any => "any host".into(),
    }
}
