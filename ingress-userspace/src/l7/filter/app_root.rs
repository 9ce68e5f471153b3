//! `app-root`: `/` leads to the application. Called by `decide` before the route's filters, since it is a host's.

use crate::l7::answer::Answer;
use crate::l7::head::RequestHead;

pub(in crate::l7) fn request(path: &str, head: &RequestHead<'_>) -> Result<(), Answer> {
    if head.path != "/" || head.authority.is_empty() {
        return Ok(());
    }
    // ingress-nginx: `return 302 $scheme://$http_host/...`.
    Err(Answer::redirect(302, format!("{}://{}{path}", head.origin.scheme.as_str(), head.authority)))
}
