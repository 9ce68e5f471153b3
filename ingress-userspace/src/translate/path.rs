//! `paths[].path` with its `pathType`, as the API server checks them, and in the form in which the router compares.

use crate::model::PathMatch;

/// What is wrong with a path, and in which of the two fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// `path` or `pathType`.
    pub(super) field: &'static str,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

/// Parses one rule's path.
pub(super) fn parse(path: Option<&str>, path_type: &str) -> Result<PathMatch, Wrong> {
    let path = path.unwrap_or_default();
    match path_type {
        "Exact" => {
            check(path, true)?;
            Ok(PathMatch::Exact(path.to_owned()))
        }
        "Prefix" => {
            check(path, true)?;
            Ok(prefix(path))
        }
        // Ours to interpret: as a prefix. The API server lets the path be empty, and does not look into it.
        "ImplementationSpecific" if path.is_empty() => Ok(prefix("/")),
        "ImplementationSpecific" => {
            check(path, false)?;
            Ok(prefix(path))
        }
        "" => Err(Wrong {
            field: "pathType",
            message: "is missing".into(),
            hint: "write Exact, Prefix or ImplementationSpecific",
        }),
        other => Err(Wrong {
            field: "pathType",
            message: format!("`{other}` is not a path type"),
            hint: "write Exact, Prefix or ImplementationSpecific",
        }),
    }
}

/// A trailing slash makes no difference for a prefix; `/` becomes the empty string.
fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.strip_suffix('/').unwrap_or(path).to_owned())
}

/// `strict`: what the API server refuses for `Exact` and `Prefix` (`pkg/apis/networking/validation`); such a path could
/// never match, because requests are normalised first.
fn check(path: &str, strict: bool) -> Result<(), Wrong> {
    let wrong = |message: String, hint| Err(Wrong { field: "path", message, hint });
    if !path.starts_with('/') {
        return wrong(format!("`{path}` is not absolute"), "begin the path with `/`");
    }
    if let Some(control) = path.chars().find(|c| c.is_control() || *c == ' ') {
        return wrong(format!("it has the character `{}`", control.escape_debug()), "percent-encode it");
    }
    if !strict {
        return Ok(());
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if path.contains(part) {
            return wrong(
                format!("`{path}` has `{part}`, which no normalised request has"),
                "write the path that the client asks for, normalised",
            );
        }
    }
    for end in ["/.", "/.."] {
        if path.ends_with(end) {
            return wrong(
                format!("`{path}` ends with `{end}`, which no normalised request does"),
                "write the path that the client asks for, normalised",
            );
        }
    }
    Ok(())
}

/// As a person writes it.
pub(super) fn show(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("{path} (Exact)"),
        PathMatch::Regex(path) => format!("{path} (regex)"),
        PathMatch::Prefix(path) if path.is_empty() => "/ (Prefix)".into(),
        PathMatch::Prefix(path) => format!("{path} (Prefix)"),
    }
}
