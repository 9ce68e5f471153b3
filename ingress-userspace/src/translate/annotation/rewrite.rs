//! `rewrite-target`, `use-regex` and `x-forwarded-prefix`. The first two turn all paths of their hosts into regexes, as
//! with ingress-nginx: `ingress::regex` does that.

use std::sync::Arc;

use super::Reader;
use crate::model::{Piece, Reason, Rewrite, Template};

/// What an Ingress wants of paths.
#[derive(Debug, Default)]
pub(in crate::translate) struct Rewrites {
    /// `rewrite-target` as written.
    target: Option<Box<str>>,
    rewrite: Option<Arc<Rewrite>>,
    /// `use-regex`.
    use_regex: bool,
}

impl Rewrites {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let use_regex = reader.boolean("use-regex").unwrap_or(false);
        let target = template(reader, "rewrite-target");
        let forwarded_prefix = template(reader, "x-forwarded-prefix").map(|(_, prefix)| prefix);
        let (text, rewrite) = match target {
            Some((text, target)) => (Some(text.into()), Some(Arc::new(Rewrite { target, forwarded_prefix }))),
            // ingress-nginx sends the prefix with rewritten requests only.
            None => (None, None),
        };
        Self { target: text, rewrite, use_regex }
    }

    /// What becomes of a rule's path, as written. `rewrite-target: /` for the path `/` changes nothing.
    pub(in crate::translate) fn of(&self, path: &str) -> Option<&Arc<Rewrite>> {
        self.rewrite.as_ref().filter(|_| self.target.as_deref() != Some(path))
    }

    /// Whether a rule with this path makes regexes of all paths of its host.
    pub(in crate::translate) fn needs_regex(&self, path: &str) -> bool {
        self.use_regex || self.of(path).is_some()
    }
}

fn template<'a>(reader: &mut Reader<'a>, name: &'static str) -> Option<(&'a str, Template)> {
    let text = reader.values.remove(name)?.trim();
    let (message, hint) = match parse(text) {
        Ok(template) => return Some((text, template)),
        Err(message) => (message, "write a path, such as /app/$2"),
    };
    reader.problem(name, Reason::InvalidValue, format!("{message}; it is as if it were absent"), hint);
    None
}

/// nginx knows nine captures; `$10` is `$1` and a zero.
fn parse(text: &str) -> Result<Template, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:$%@!&'()*+,;=".contains(&byte);
    if !text.starts_with('/') && !text.starts_with('$') {
        return Err(format!("`{text}` is not a path"));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii() || !good(*c as u8)) {
        return Err(format!("`{text}` has the character `{}`", bad.escape_debug()));
    }
    let mut pieces = Vec::new();
    let mut parts = text.split('$');
    let mut push = |text: &str| {
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
    };
    push(parts.next().unwrap_or_default());
    for part in parts {
        let Some(digit) = part.chars().next().and_then(|c| c.to_digit(10)) else {
            return Err(format!("`{text}` has a variable (`$1` to `$9` are known here, no others)"));
        };
        pieces.push(Piece::Group(digit as usize));
        if part.len() > 1 {
            pieces.push(Piece::Text(part[1..].to_owned()));
        }
    }
    Ok(Template(pieces.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let pieces = |text| parse(text).map(|template| template.0.to_vec());
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces("/a/$2"), Ok(vec![text("/a/"), Piece::Group(2)]));
        assert_eq!(pieces("$1"), Ok(vec![Piece::Group(1)]));
        assert_eq!(pieces("/$10/b"), Ok(vec![text("/"), Piece::Group(1), text("0/b")]));
        for wrong in ["", "a", "/$host", "/$", "/a b", "/a?b", "/a\r\n", "/é", "http://x/"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
