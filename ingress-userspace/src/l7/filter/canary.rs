//! `canary*`: whether a request goes to the canary. Called by `decide`.

use regex::bytes::Regex;

use crate::l7::head::RequestHead;
use crate::model::{Canary, CanaryValue};

/// `pattern`: that of the canary's header, compiled.
pub(in crate::l7) fn takes(canary: &Canary, pattern: Option<&Regex>, head: &RequestHead<'_>) -> bool {
    let by_header = canary.header.as_ref().and_then(|header| {
        let said = head.headers.get(&header.name)?;
        match &header.value {
            CanaryValue::Always => always_or_never(said),
            CanaryValue::Exactly(value) => (said == value.as_bytes()).then_some(true),
            CanaryValue::Matching(_) => pattern?.is_match(said).then_some(true),
        }
    });
    let by_cookie = || always_or_never(head.cookie(canary.cookie.as_deref()?)?);
    by_header
        .or_else(by_cookie)
        .unwrap_or_else(|| canary.weight > 0 && rand::random_range(0..canary.total.get()) < canary.weight)
}

fn always_or_never(said: &[u8]) -> Option<bool> {
    match said {
        b"always" => Some(true),
        b"never" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::l7::head::ConnectionInfo;
    use crate::model::{CanaryHeader, Target, header_regex};

    const NOBODY: Canary = Canary {
        header: None,
        cookie: None,
        weight: 0,
        total: NonZeroU32::new(100).unwrap(),
        target: Target::Missing,
    };

    fn by_header(value: CanaryValue) -> Canary {
        Canary { header: Some(CanaryHeader { name: "x-canary".into(), value }), ..NOBODY }
    }

    fn is_taken(canary: &Canary, fields: &[(&'static str, &str)]) -> bool {
        let mut headers = http::HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let connection = ConnectionInfo::example();
        let head = RequestHead::example(&connection, &headers);
        let pattern = match canary.header.as_ref().map(|header| &header.value) {
            Some(CanaryValue::Matching(pattern)) => Some(header_regex(pattern).unwrap()),
            _ => None,
        };
        takes(canary, pattern.as_ref(), &head)
    }

    #[test]
    fn header_before_cookie_before_weight() {
        let both = Canary { cookie: Some("c".into()), ..by_header(CanaryValue::Always) };
        let exactly = Canary { cookie: Some("c".into()), ..by_header(CanaryValue::Exactly("v2".into())) };
        let matching = by_header(CanaryValue::Matching("^(eu|us)-".into()));
        let all = |canary: &Canary| Canary { weight: 100, ..canary.clone() };
        for (canary, fields, expected) in [
            (NOBODY, &[][..], false),
            (all(&NOBODY), &[], true),
            (both.clone(), &[("x-canary", "always")], true),
            (all(&both), &[("x-canary", "never")], false),
            (both.clone(), &[("x-canary", "always"), ("cookie", "c=never")], true),
            (both.clone(), &[("x-canary", "perhaps"), ("cookie", "a=1; c=always")], true),
            (all(&both), &[("cookie", "c=never")], false),
            (all(&both), &[("cookie", "cc=never")], true),
            (both, &[("cookie", "c=1")], false),
            (exactly.clone(), &[("x-canary", "v2")], true),
            (exactly.clone(), &[("x-canary", "always")], false),
            (all(&exactly), &[("x-canary", "v1")], true),
            (exactly, &[("x-canary", "v1"), ("cookie", "c=always")], true),
            (matching.clone(), &[("x-canary", "eu-1")], true),
            (matching.clone(), &[("x-canary", "an-eu-1")], false),
            (matching, &[], false),
        ] {
            assert_eq!(is_taken(&canary, fields), expected, "{canary:?} {fields:?}");
        }
    }

    #[test]
    fn a_weight_is_a_share() {
        let canary = Canary { weight: 30, total: NonZeroU32::new(300).unwrap(), ..NOBODY };
        let taken = (0..10_000).filter(|_| is_taken(&canary, &[])).count();
        // 1,000 expected; the standard deviation is 30.
        assert!((700..1300).contains(&taken), "{taken}");
    }
}
