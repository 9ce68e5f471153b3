//! SPDX licence expressions (annex D of the SPDX specification: `OR`, `AND`, `WITH`, parentheses) and the older `/`
//! for "or" that some crates still carry. Pure.

/// Whether somebody who accepts the licences that `allowed` accepts may use what is under `expression`.
///
/// # Errors
/// A sentence, if the expression cannot be read.
pub(super) fn satisfied(expression: &str, allowed: impl Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed: &allowed };
    let result = parser.alternatives()?;
    match parser.words.first() {
        None => Ok(result),
        Some(word) => Err(format!("`{word}` is unexpected")),
    }
}

struct Parser<'a, F> {
    words: &'a [&'a str],
    allowed: &'a F,
}

impl<'a, F: Fn(&str) -> bool> Parser<'a, F> {
    fn alternatives(&mut self) -> Result<bool, String> {
        let mut result = self.conjunction()?;
        while self.take("OR") {
            result |= self.conjunction()?;
        }
        Ok(result)
    }

    fn conjunction(&mut self) -> Result<bool, String> {
        let mut result = self.licence()?;
        while self.take("AND") {
            result &= self.licence()?;
        }
        Ok(result)
    }

    fn licence(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let result = self.alternatives()?;
            return if self.take(")") { Ok(result) } else { Err("`)` is missing".into()) };
        }
        let name = self.next().ok_or("a licence is missing")?;
        if self.take("WITH") {
            let exception = self.next().ok_or("an exception is missing")?;
            // An exception only gives more rights, so the plain licence on the list is enough.
            return Ok((self.allowed)(&format!("{name} WITH {exception}")) || (self.allowed)(name));
        }
        Ok((self.allowed)(name))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        if matches!(*first, "OR" | "AND" | "WITH" | "(" | ")") {
            return None;
        }
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    fn with_mit_and_isc(expression: &str) -> Result<bool, String> {
        satisfied(expression, |licence| ["MIT", "ISC"].contains(&licence))
    }

    #[test]
    fn or_needs_one_and_needs_all() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("ISC AND (GPL-3.0 OR MIT)", true),
            ("ISC AND GPL-3.0 OR MIT", true),
            ("ISC AND (GPL-3.0 AND MIT)", false),
            ("MIT WITH some-exception", true),
            ("GPL-3.0 WITH some-exception", false),
        ] {
            assert_eq!(with_mit_and_isc(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn broken_expressions_are_refused() {
        for expression in ["", "MIT OR", "(MIT", "MIT ISC", "AND MIT", "MIT WITH"] {
            assert!(with_mit_and_isc(expression).is_err(), "{expression}");
        }
    }
}
