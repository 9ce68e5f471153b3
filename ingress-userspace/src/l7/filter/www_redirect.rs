//! `from-to-www-redirect`: the other name of a host leads to it. Called by `decide` before any rule, since it is a host's.

use crate::l7::answer::Answer;
use crate::l7::head::RequestHead;

pub(in crate::l7) fn request(to: &str, head: &RequestHead<'_>) -> Answer {
    let location = format!("{}://{to}{}", head.origin.scheme.as_str(), super::ssl_redirect::uri(head, false));
    Answer::redirect(308, location)
}
