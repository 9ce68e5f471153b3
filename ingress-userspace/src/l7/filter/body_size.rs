//! `proxy-body-size`: a body that says how long it is, or of which too much has come, is refused before anything else, as
//! nginx does. Called by the filter chain; the engines watch bodies that come in chunks.

use std::num::NonZeroU64;

use crate::l7::answer::Answer;
use crate::l7::head::RequestHead;

pub(super) fn request(limit: NonZeroU64, head: &RequestHead<'_>) -> Result<(), Answer> {
    if head.body_length > limit.get() { Err(Answer::BODY_TOO_LARGE) } else { Ok(()) }
}
