//! `ssl-redirect` and `force-ssl-redirect`, as ingress-nginx means them: hosts with a certificate redirect plain HTTP
//! unless told otherwise; forced, also those whose TLS ends in front of us.

use super::Reader;
use crate::model::SslRedirect;

#[derive(Debug)]
pub(super) struct SslRedirects {
    code: u16,
    with_tls: bool,
    always: bool,
    keep_slash: bool,
    with_port: bool,
}

impl SslRedirects {
    pub(super) fn read(reader: &mut Reader<'_>, code: u16) -> Self {
        Self {
            code,
            with_tls: reader.boolean("ssl-redirect").unwrap_or(true),
            always: reader.boolean("force-ssl-redirect").unwrap_or(false),
            keep_slash: reader.boolean("preserve-trailing-slash").unwrap_or(false),
            with_port: reader.boolean("use-port-in-redirects").unwrap_or(false),
        }
    }

    pub(super) fn filter(&self, tls: bool) -> Option<SslRedirect> {
        let redirect =
            SslRedirect { code: self.code, keep_slash: self.keep_slash, with_port: self.with_port };
        (self.always || (self.with_tls && tls)).then_some(redirect)
    }
}
