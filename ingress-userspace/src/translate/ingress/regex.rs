//! Hosts whose paths are regexes. With ingress-nginx one `use-regex`, or one `rewrite-target` that changes something, turns
//! all paths of its host, of every Ingress, into regexes: case-insensitive, anchored at the start only, the longest text
//! first. That is honoured to the letter, and said to those whom it may surprise.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::model::{HostPattern, ObjectRef, PathMatch, PathRule, Reason, path_regex};
use crate::translate::host;
use crate::translate::problems::Problems;

/// A rule with what it was made of.
pub(super) struct Written {
    pub(super) rule: PathRule,
    /// `path` as written.
    pub(super) path: String,
    /// Its Ingress's own annotations make a regex of it.
    pub(super) by_itself: bool,
}

/// The rules of one host in the order in which the first match wins.
pub(super) fn rules(pattern: &HostPattern, written: Vec<Written>, problems: &mut Problems) -> Vec<PathRule> {
    let Some(cause) = written.iter().find(|written| written.by_itself) else {
        return written.into_iter().map(|written| written.rule).collect();
    };
    let cause = cause.rule.route.ingress.clone();
    surprise(pattern, &written, &cause, problems);
    let mut made: Vec<(String, PathRule)> = Vec::with_capacity(written.len());
    for Written { rule, path, by_itself } in written {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        // nginx has two locations for a plain prefix: itself, and all below it.
        let below = matches!(rule.path, PathMatch::Prefix(_)) && !by_itself && !path.ends_with('/');
        for text in below.then(|| format!("{path}/")).into_iter().chain([path]) {
            match compile(&text) {
                Ok(regex) => {
                    let rule = PathRule { path: PathMatch::Regex(regex), route: Arc::clone(&rule.route) };
                    made.push((text, rule));
                }
                Err(error) => problems.add(
                    &rule.route.ingress,
                    "spec.rules",
                    Reason::InvalidValue,
                    format!(
                        "the path `{text}` on {} is no regex that can be used here: {error}; it is left out",
                        host::show(pattern)
                    ),
                    "write it without look-around, back-references and huge repetitions",
                ),
            }
        }
    }
    // The sort is stable: of two equal texts the first one wins.
    made.sort_by(|(a, _), (b, _)| Reverse(a.len()).cmp(&Reverse(b.len())).then_with(|| b.cmp(a)));
    made.dedup_by(|(later, _), (first, _)| later == first);
    made.into_iter().map(|(_, rule)| rule).collect()
}

/// Tells every Ingress that did not ask for regexes what has become of its paths.
fn surprise(pattern: &HostPattern, written: &[Written], cause: &ObjectRef, problems: &mut Problems) {
    let mut told: Vec<&ObjectRef> = Vec::new();
    for one in written.iter().filter(|one| !one.by_itself && !matches!(one.path.as_str(), "" | "/")) {
        let ingress = &one.rule.route.ingress;
        if ingress == cause || told.contains(&ingress) {
            continue;
        }
        told.push(ingress);
        problems.add(
            ingress,
            "spec.rules",
            Reason::Conflict,
            format!(
                "{cause} has rewrite-target or use-regex, which makes case-insensitive regexes of all paths of {}, as with ingress-nginx: `{path}` also matches `{path}x`",
                host::show(pattern),
                path = one.path.trim_end_matches('/'),
            ),
            "give one of the two Ingresses another host, or end the path with `$` where nothing may follow",
        );
    }
}

/// The regex in the form in which it is compared with normalised paths; the error says what is wrong.
fn compile(path: &str) -> Result<String, String> {
    let mut pattern = String::with_capacity(path.len() + 1);
    pattern.push('^');
    for c in path.chars() {
        if c.is_ascii() {
            pattern.push(c);
            continue;
        }
        // Requests have it encoded.
        pattern.push_str("(?:");
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing into a String cannot fail.
            let _ = write!(pattern, "%{byte:02X}");
        }
        pattern.push(')');
    }
    match path_regex(&pattern) {
        Ok(_) => Ok(pattern),
        // The last line of a syntax error says what it is; those before draw a picture of where.
        Err(error) => {
            Err(error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
        }
    }
}
