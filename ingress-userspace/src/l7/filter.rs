//! The filters of a route in their fixed order: who may ask comes before where to go, that before what is changed.
//! Called by `decide`. One file a group of annotations, the twin of the same name in `translate::annotation`.

pub(in crate::l7) mod client_auth;
mod ssl_redirect;

use crate::model::Filters;

use super::answer::Answer;
use super::head::{HeadEdits, RequestHead};

/// Runs them. `Err` is the answer that ends the request.
pub fn request(filters: &Filters, head: &RequestHead<'_>, _edits: &mut HeadEdits) -> Result<(), Answer> {
    if let Some(redirect) = &filters.ssl_redirect {
        ssl_redirect::request(redirect, head)?;
    }
    Ok(())
}
