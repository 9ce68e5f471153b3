//! `rewrite-target` and `x-forwarded-prefix`: texts into which captures of the path's regex are put.

use std::sync::Arc;

/// What becomes of a path that was matched by a regex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The path that the backend gets.
    pub target: Template,
    /// `X-Forwarded-Prefix` for the backend.
    pub forwarded_prefix: Option<Template>,
}

/// A text with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Arc<[Piece]>);

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// What this group of the regex has captured; nothing if it took no part. 0: all that was matched.
    Group(usize),
}
