//! `permanent-redirect` and `temporal-redirect`: no backend is asked. Called by the filter chain.

use crate::l7::answer::Answer;
use crate::model::Redirect;

pub(super) fn request(redirect: &Redirect) -> Result<(), Answer> {
    Err(Answer::redirect(redirect.code, redirect.location.to_string()))
}
