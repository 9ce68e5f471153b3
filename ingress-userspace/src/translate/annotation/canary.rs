//! `canary` and its kin: an Ingress that takes some requests of another one with the same host and path. Flagger and Argo
//! Rollouts write such Ingresses. Of a canary's other annotations none has an effect, as with ingress-nginx.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Reader;
use crate::model::{Canary, CanaryHeader, CanaryValue, Reason, Target, header_regex};

/// ingress-nginx's.
const TOTAL: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Which requests a canary takes.
#[derive(Debug, Clone)]
pub(in crate::translate) struct Rules {
    header: Option<CanaryHeader>,
    cookie: Option<Arc<str>>,
    weight: u32,
    total: NonZeroU32,
}

impl Rules {
    /// The same with the place where the requests go.
    pub(in crate::translate) fn to(&self, target: Target) -> Canary {
        let Self { header, cookie, weight, total } = self.clone();
        Canary { header, cookie, weight, total, target }
    }
}

/// `None`: it is an Ingress like others.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Rules> {
    let is_canary = reader.boolean("canary").unwrap_or(false);
    let rules = Rules {
        header: header(reader),
        cookie: token(reader, "canary-by-cookie"),
        weight: reader.number("canary-weight").unwrap_or(0),
        total: reader.number("canary-weight-total").and_then(NonZeroU32::new).unwrap_or(TOTAL),
    };
    is_canary.then_some(rules)
}

fn header(reader: &mut Reader<'_>) -> Option<CanaryHeader> {
    let name = token(reader, "canary-by-header");
    let exact = reader.values.remove("canary-by-header-value");
    let pattern = reader.values.remove("canary-by-header-pattern");
    let value = match (exact, pattern) {
        (Some(value), _) if !value.is_empty() => CanaryValue::Exactly(value.as_str().into()),
        (_, Some(pattern)) if !pattern.is_empty() => {
            if let Err(error) = header_regex(pattern) {
                let message = format!(
                    "`{pattern}` is not a regex that is known here: {error}; the header decides nothing"
                );
                reader.problem(
                    "canary-by-header-pattern",
                    Reason::InvalidValue,
                    message,
                    "write one without look-around and back-references",
                );
                return None;
            }
            CanaryValue::Matching(pattern.as_str().into())
        }
        _ => CanaryValue::Always,
    };
    Some(CanaryHeader { name: name?.to_ascii_lowercase().into(), value })
}

/// The name of a header or cookie (RFC 9110 section 5.6.2).
fn token(reader: &mut Reader<'_>, annotation: &'static str) -> Option<Arc<str>> {
    let name = reader.values.remove(annotation)?.trim();
    if http::HeaderName::try_from(name).is_ok() {
        return Some(name.into());
    }
    let message = format!("`{name}` is not a name; it is as if it were absent");
    reader.problem(annotation, Reason::InvalidValue, message, "write the name alone");
    None
}
