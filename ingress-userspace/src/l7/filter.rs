//! The filters of a route in their fixed order, which is nginx's: redirects, who may ask, what is changed.
//! Called by `decide`. One file a group of annotations, the twin of the same name in `translate::annotation`.

pub(in crate::l7) mod app_root;
mod body_size;
pub(in crate::l7) mod canary;
pub(in crate::l7) mod client_auth;
pub(in crate::l7) mod hsts;
mod redirect;
pub(in crate::l7) mod rewrite;
mod source_range;
mod ssl_redirect;
mod upstream_vhost;
pub(in crate::l7) mod www_redirect;

use crate::model::Filters;

use super::answer::Answer;
use super::head::{HeadEdits, RequestHead};

/// Runs them. `Err` is the answer that ends the request.
pub fn request(filters: &Filters, head: &RequestHead<'_>, edits: &mut HeadEdits) -> Result<(), Answer> {
    if let Some(limit) = filters.body_limit {
        body_size::request(limit, head)?;
    }
    // nginx answers redirects of a location before it looks at anything else (its rewrite phase).
    if let Some(redirect) = &filters.redirect {
        redirect::request(redirect)?;
    }
    if let Some(redirect) = &filters.ssl_redirect {
        ssl_redirect::request(redirect, head)?;
    }
    if let Some(range) = &filters.source_range {
        source_range::request(range, head)?;
    }
    if let Some(host) = &filters.upstream_vhost {
        upstream_vhost::request(host, edits);
    }
    Ok(())
}
