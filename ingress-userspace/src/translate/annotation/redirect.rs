//! `permanent-redirect` and `temporal-redirect` with their codes: the latter wins, as with ingress-nginx.

use super::Reader;
use crate::model::{Reason, Redirect};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Redirect> {
    let temporal = one(reader, "temporal-redirect", "temporal-redirect-code", 302);
    let permanent = one(reader, "permanent-redirect", "permanent-redirect-code", 301);
    temporal.or(permanent)
}

fn one(
    reader: &mut Reader<'_>,
    name: &'static str,
    code_name: &'static str,
    default: u16,
) -> Option<Redirect> {
    let code = match reader.values.remove(code_name) {
        None => default,
        Some(text) => {
            text.trim().parse().ok().filter(|code| (300..=308).contains(code)).unwrap_or_else(|| {
                let message = format!("`{text}` is not a code from 300 to 308; {default} it is");
                reader.problem(code_name, Reason::InvalidValue, message, "write 301, 302, 303, 307 or 308");
                default
            })
        }
    };
    let url = reader.values.remove(name)?.trim();
    let schemes = ["http://", "https://"];
    // `$`: nginx would fill in a variable; sent as it is, it would lead nowhere.
    let good = schemes.iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme))
        && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'$');
    if !good {
        let message =
            format!("`{url}` is not a URL (variables are not known here); it is as if it were absent");
        reader.problem(name, Reason::InvalidValue, message, "write http:// or https:// and an address");
        return None;
    }
    Some(Redirect { code, location: url.into() })
}
