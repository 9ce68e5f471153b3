//! `upstream-vhost`: the `Host` that the backend gets. Called by the filter chain.

use crate::l7::head::HeadEdits;

pub(super) fn request(host: &str, edits: &mut HeadEdits) {
    edits.edit().host = Some(host.to_owned());
}
