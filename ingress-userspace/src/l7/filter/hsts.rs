//! `Strict-Transport-Security` on answers over TLS (RFC 6797), ours and backends' alike: the options `hsts*` of a class.
//! Asked by `decide` for what holds, and by the engines to write it.

use http::HeaderValue;

use crate::l7::head::ConnectionInfo;
use crate::model::{Filters, Hsts};

/// The field's name, lower case.
pub(in crate::l7) const NAME: &str = "strict-transport-security";

/// What ingress-nginx sends by default.
const DEFAULT: &str = "max-age=31536000; includeSubDomains";

/// What holds for an answer of this route: browsers heed it over TLS only.
pub(in crate::l7) fn of(filters: &Filters, connection: &ConnectionInfo) -> Option<Hsts> {
    filters.hsts.filter(|_| connection.tls.is_some())
}

/// Appends the header line.
pub(in crate::l7) fn write(out: &mut Vec<u8>, hsts: Hsts) {
    out.extend_from_slice(b"Strict-Transport-Security: ");
    if hsts == Hsts::default() {
        out.extend_from_slice(DEFAULT.as_bytes());
    } else {
        out.extend_from_slice(text(hsts).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// The value.
pub(in crate::l7) fn value(hsts: Hsts) -> HeaderValue {
    if hsts == Hsts::default() {
        return HeaderValue::from_static(DEFAULT);
    }
    // Digits and ASCII words are a value; the default is no worse than nothing.
    HeaderValue::try_from(text(hsts)).unwrap_or(HeaderValue::from_static(DEFAULT))
}

fn text(hsts: Hsts) -> String {
    let subdomains = if hsts.include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if hsts.preload { "; preload" } else { "" };
    format!("max-age={}{subdomains}{preload}", hsts.max_age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_the_parts_say() {
        assert_eq!(text(Hsts::default()), DEFAULT);
        let all = Hsts { max_age: 5, include_subdomains: false, preload: true };
        let mut line = Vec::new();
        write(&mut line, all);
        assert_eq!(line, b"Strict-Transport-Security: max-age=5; preload\r\n");
        assert_eq!(
            (value(all), value(Hsts::default())),
            ("max-age=5; preload".parse().unwrap(), DEFAULT.parse().unwrap())
        );
    }
}
