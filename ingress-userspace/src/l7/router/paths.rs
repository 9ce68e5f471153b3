//! One host's paths: exact ones by hash of the whole path, prefixes in a tree of path elements. A look-up visits at
//! most as many nodes as the deepest rule has elements, however many rules there are and however long the path is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::l7::head::normalise_path;
use crate::model::{PathMatch, PathRule, Route};

use super::RouteEntry;

/// Up to this many children a scan is faster than a hash.
const SCAN: usize = 4;

#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: HashMap<Box<str>, RouteEntry, RandomState>,
    root: Node,
}

/// Where a path element leads.
#[derive(Debug, Default)]
struct Node {
    /// The rule whose prefix ends here.
    entry: Option<RouteEntry>,
    few: Vec<(Box<str>, Node)>,
    /// All children, once there are more than [`SCAN`].
    many: HashMap<Box<str>, Node, RandomState>,
}

impl PathTable {
    pub(super) fn compile(rules: &[PathRule], mut entry: impl FnMut(&Arc<Route>) -> RouteEntry) -> Self {
        let mut table = Self::default();
        for rule in rules {
            match &rule.path {
                PathMatch::Exact(path) => {
                    table.exact.entry(normal(path).into()).or_insert_with(|| entry(&rule.route));
                }
                PathMatch::Regex(_) => {}
                PathMatch::Prefix(prefix) => {
                    let prefix = normal(prefix);
                    if !prefix.is_empty() && !prefix.starts_with('/') {
                        // `translate` has told its owner; here it must not turn into a rule for everything.
                        continue;
                    }
                    let node =
                        elements(prefix.trim_end_matches('/')).fold(&mut table.root, Node::child_or_new);
                    node.entry.get_or_insert_with(|| entry(&rule.route));
                }
            }
        }
        table
    }

    /// The rule with the longest matching path; `Exact` matches the whole path, so it is never shorter than a prefix
    /// and wins where they are equal.
    pub(super) fn find(&self, path: &str) -> Option<&RouteEntry> {
        if !self.exact.is_empty()
            && let Some(entry) = self.exact.get(path)
        {
            return Some(entry);
        }
        let mut node = &self.root;
        let mut best = node.entry.as_ref();
        for element in elements(path) {
            let Some(child) = node.child(element) else { break };
            node = child;
            best = node.entry.as_ref().or(best);
        }
        best
    }
}

/// A rule's path in the form that requests have when they are compared: `/café` as `/caf%C3%A9`. What has no normal
/// form stays as it is, and matches nothing.
fn normal(path: &str) -> Cow<'_, str> {
    normalise_path(path).unwrap_or(Cow::Borrowed(path))
}

/// The elements between slashes: `/a/b` has two, `/a/` has `a` and an empty one, the empty prefix (`/`) and `*` none.
fn elements(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').map(|rest| rest.split('/')).into_iter().flatten()
}

impl Node {
    fn child(&self, element: &str) -> Option<&Self> {
        if self.many.is_empty() {
            self.few.iter().find(|(name, _)| **name == *element).map(|(_, node)| node)
        } else {
            self.many.get(element)
        }
    }

    fn child_or_new(&mut self, element: &str) -> &mut Self {
        if self.many.is_empty() {
            if let Some(index) = self.few.iter().position(|(name, _)| **name == *element) {
                return &mut self.few[index].1;
            }
            if self.few.len() < SCAN {
                self.few.push((element.into(), Self::default()));
                let last = self.few.len() - 1;
                return &mut self.few[last].1;
            }
            self.many = self.few.drain(..).collect();
        }
        self.many.entry(element.into()).or_default()
    }
}
