//! One host's paths when they are regexes: all of them are tried in one pass over the path (in linear time, whatever the
//! pattern), and the first of the list wins. The captures of a rule are looked for only if it wants them.

use std::sync::Arc;

use regex::bytes::{Regex, RegexSet, RegexSetBuilder};

use super::RouteEntry;
use crate::model::{PathMatch, PathRule, Route, path_regex};

/// The most that a set of regexes may take; a greater one is tried one by one.
const SIZE_LIMIT: usize = 10 << 20;

#[derive(Debug, Default)]
pub(super) struct Regexes {
    set: Option<RegexSet>,
    rules: Vec<(Arc<Regex>, RouteEntry)>,
}

impl Regexes {
    /// Compiles those of the rules that are regexes; what is no regex is left out (`translate` has told its owner).
    pub(super) fn compile(rules: &[PathRule], mut entry: impl FnMut(&Arc<Route>) -> RouteEntry) -> Self {
        let mut made = Self::default();
        let mut patterns = Vec::new();
        for rule in rules {
            let PathMatch::Regex(pattern) = &rule.path else { continue };
            let Ok(regex) = path_regex(pattern) else { continue };
            let regex = Arc::new(regex);
            let mut entry = entry(&rule.route);
            entry.regex = Some(Arc::clone(&regex));
            patterns.push(pattern.as_str());
            made.rules.push((regex, entry));
        }
        let mut builder = RegexSetBuilder::new(patterns);
        made.set = builder.case_insensitive(true).unicode(false).size_limit(SIZE_LIMIT).build().ok();
        made
    }

    pub(super) fn find(&self, path: &str) -> Option<&RouteEntry> {
        if self.rules.is_empty() {
            return None;
        }
        let first = match &self.set {
            Some(set) => set.matches(path.as_bytes()).iter().next(),
            None => self.rules.iter().position(|(regex, _)| regex.is_match(path.as_bytes())),
        };
        first.and_then(|index| self.rules.get(index)).map(|(_, entry)| entry)
    }
}
