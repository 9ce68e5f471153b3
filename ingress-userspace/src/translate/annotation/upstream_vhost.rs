//! `upstream-vhost`: the `Host` that the backend gets.

use std::sync::Arc;

use super::Reader;
use crate::model::Reason;

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Arc<str>> {
    let host = reader.values.remove("upstream-vhost")?.trim();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !host.is_empty() && host.bytes().all(good) {
        return Some(host.into());
    }
    let message = format!(
        "`{host}` is not a host (variables are not known here); the backend gets the one that the client sent"
    );
    reader.problem("upstream-vhost", Reason::InvalidValue, message, "write a host, with a port if needed");
    None
}
