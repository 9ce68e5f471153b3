//! `app-root`: `/` of the Ingress's hosts leads to this path. Acts on a whole host, as with ingress-nginx.

use std::sync::Arc;

use super::Reader;
use crate::model::Reason;

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Arc<str>> {
    let path = reader.values.remove("app-root")?.as_str();
    // The root itself would be a redirect without an end.
    if path.len() > 1 && path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'$') {
        return Some(path.into());
    }
    let message = format!("`{path}` is not a path below `/`; it is as if it were absent");
    reader.problem("app-root", Reason::InvalidValue, message, "write a path, such as /app");
    None
}
