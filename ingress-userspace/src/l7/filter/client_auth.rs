//! `auth-tls-*`: who may ask, by the certificate that the client showed in the handshake, and what the backend is told
//! of it: `ssl-client-*`, as ingress-nginx does. Called by `decide` for every host that has a policy, before the route's
//! own filters.

use crate::l7::answer::Answer;
use crate::l7::head::{HeadEdits, RequestHead};
use crate::l7::tls::client_auth::{Client, Verdict};
use crate::model::{ClientAuth, VerifyClient};

/// What the backend reads. A client's own are never passed on.
const FIELDS: [&str; 4] =
    ["ssl-client-verify", "ssl-client-subject-dn", "ssl-client-issuer-dn", "ssl-client-cert"];

pub(in crate::l7) fn request(
    auth: &ClientAuth,
    head: &RequestHead<'_>,
    edits: &mut HeadEdits,
) -> Result<(), Answer> {
    let absent = Client { verdict: Verdict::Absent, certificate: None };
    let tls = head.connection.tls.as_ref();
    let client = tls.and_then(|tls| tls.client.as_ref()).unwrap_or(&absent);
    let refused = |reason| match &auth.error_page {
        Some(page) => Answer::redirect(302, page.clone()),
        None => Answer::new(400, reason),
    };
    match (&client.verdict, auth.verify) {
        // nginx lets plain HTTP pass; a lock that is open at the back door is none.
        (Verdict::Absent, VerifyClient::On) if tls.is_none() => {
            return Err(Answer::new(403, "this host wants a client certificate, which needs HTTPS"));
        }
        (Verdict::Absent, VerifyClient::On) => {
            return Err(refused("no required SSL certificate was sent"));
        }
        (Verdict::Refused { only_unknown, .. }, verify)
            if !only_unknown || verify != VerifyClient::OptionalNoCa =>
        {
            return Err(refused("the SSL certificate error"));
        }
        _ => {}
    }
    let edits = edits.edit();
    edits.remove.extend(FIELDS.map(Into::into));
    edits.set.push((FIELDS[0].into(), client.verdict.to_nginx().into_bytes()));
    if let Some(certificate) = &client.certificate {
        edits.set.push((FIELDS[1].into(), certificate.subject.clone().into_bytes()));
        edits.set.push((FIELDS[2].into(), certificate.issuer.clone().into_bytes()));
        if auth.pass_certificate {
            edits.set.push((FIELDS[3].into(), certificate.escaped_pem().into_bytes()));
        }
    }
    Ok(())
}
