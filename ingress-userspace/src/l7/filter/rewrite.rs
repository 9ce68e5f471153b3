//! `rewrite-target` and `x-forwarded-prefix`: the path that the backend gets, made of captures. Called by `decide` for
//! routes whose path is a regex.

use regex::bytes::{Captures, Regex};

use crate::l7::answer::Answer;
use crate::l7::head::{HeadEdits, RequestHead};
use crate::model::{Piece, Rewrite, Template};

pub(in crate::l7) fn request(
    rewrite: &Rewrite,
    regex: &Regex,
    head: &RequestHead<'_>,
    edits: &mut HeadEdits,
) -> Result<(), Answer> {
    // It has just matched.
    let Some(captures) = regex.captures(head.path.as_bytes()) else { return Ok(()) };
    let mut path = filled(&rewrite.target, &captures);
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    // `/app(.*)` to `/v1/$1` makes `/v1/../x` of `/app../x`: nobody wants that.
    if path.split('/').any(|element| matches!(element, "." | "..")) {
        return Err(Answer::bad_request("the path leads elsewhere once it is rewritten"));
    }
    let edits = edits.edit();
    edits.path = Some(path);
    if let Some(prefix) = &rewrite.forwarded_prefix {
        edits.set.push(("x-forwarded-prefix".into(), filled(prefix, &captures).into_bytes()));
    }
    Ok(())
}

fn filled(template: &Template, captures: &Captures<'_>) -> String {
    let mut out = String::new();
    for piece in &*template.0 {
        match piece {
            Piece::Text(text) => out.push_str(text),
            // Normalised paths are ASCII.
            Piece::Group(group) => {
                let bytes = captures.get(*group).map_or(&b""[..], |group| group.as_bytes());
                out.push_str(&String::from_utf8_lossy(bytes));
            }
        }
    }
    out
}
