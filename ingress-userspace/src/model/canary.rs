//! `canary*`: some requests of a route go to another cluster. Chosen by `l7::filter::canary`.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Target;
use super::route::regex_builder;

/// Which requests go elsewhere, and where: asked in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// `canary-by-header` with `canary-by-header-value` or `canary-by-header-pattern`.
    pub header: Option<CanaryHeader>,
    /// `canary-by-cookie`: the cookie of this name says `always` or `never`.
    pub cookie: Option<Arc<str>>,
    /// `canary-weight`: so many of `total` requests for which nothing else has decided.
    pub weight: u32,
    /// `canary-weight-total`.
    pub total: NonZeroU32,
    /// Where they go.
    pub target: Target,
}

/// A header that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryHeader {
    /// Its name, in lower case.
    pub name: Arc<str>,
    /// What it must say.
    pub value: CanaryValue,
}

/// What the header of a canary must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryValue {
    /// `always` or `never`.
    Always,
    /// This and nothing else.
    Exactly(Arc<str>),
    /// Something that matches this regex somewhere.
    Matching(Arc<str>),
}

/// The regex of a [`CanaryValue::Matching`], over the bytes of the header's value.
pub fn header_regex(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex_builder(pattern).build()
}
