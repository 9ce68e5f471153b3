//! Who may ask, by address: `denylist-source-range`, then `allowlist-source-range`. Called by the filter chain.

use crate::l7::answer::Answer;
use crate::l7::head::RequestHead;
use crate::model::SourceRange;

pub(super) fn request(range: &SourceRange, head: &RequestHead<'_>) -> Result<(), Answer> {
    let client = head.origin.client;
    let denied = range.deny.iter().any(|net| net.contains(&client));
    let allowed = range.allow.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&client)));
    if denied || !allowed { Err(Answer::FORBIDDEN) } else { Ok(()) }
}
