//! `auth-tls-*`: clients show a certificate. Whatever is wrong with it locks the Ingress: its author relies on it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::{NoSecret, Reader};
use crate::model::{ClientAuth, Reason, VerifyClient};
use crate::source::Objects;

const SECRET: &str = "auth-tls-secret";
const VERIFY: &str = "auth-tls-verify-client";
const DEPTH: &str = "auth-tls-verify-depth";
const PAGE: &str = "auth-tls-error-page";
const PASS: &str = "auth-tls-pass-certificate-to-upstream";

/// Reads the group. `Err`: it is wanted and cannot be had; a problem says why.
pub(super) fn read(reader: &mut Reader<'_>, objects: &Objects) -> Result<Option<Arc<ClientAuth>>, ()> {
    let [secret, verify, depth, page] = [SECRET, VERIFY, DEPTH, PAGE].map(|name| reader.values.remove(name));
    let pass_certificate = reader.boolean(PASS).unwrap_or(false);
    // The others mean nothing without it, as with ingress-nginx.
    let Some(secret) = secret else { return Ok(None) };
    let verify = match verify.map(String::as_str) {
        None | Some("on") => VerifyClient::On,
        Some("off") => return Ok(None),
        Some("optional") => VerifyClient::Optional,
        Some("optional_no_ca") => VerifyClient::OptionalNoCa,
        Some(other) => {
            let message = format!("`{other}` is not known; clients need a valid certificate, as by \"on\"");
            reader.problem(
                VERIFY,
                Reason::InvalidValue,
                message,
                "write on, off, optional or optional_no_ca",
            );
            VerifyClient::On
        }
    };
    let depth = depth.map_or(1, |text| {
        text.parse().unwrap_or_else(|_| {
            let message = format!("`{text}` is not a number below 256; 1 it is");
            reader.problem(
                DEPTH,
                Reason::InvalidValue,
                message,
                "write how many intermediate certificates may be",
            );
            1
        })
    });
    let error_page = page.filter(|page| {
        let good = (page.starts_with("https://") || page.starts_with("http://"))
            && page.bytes().all(|byte| byte.is_ascii_graphic());
        if !good {
            let message = format!("`{page}` is not a URL; clients get 400 instead");
            reader.problem(PAGE, Reason::InvalidValue, message, "write http:// or https:// and an address");
        }
        good
    });
    let (ca, revoked) = authorities(reader, secret, objects)?;
    let error_page = error_page.cloned();
    Ok(Some(Arc::new(ClientAuth { ca, revoked, verify, depth, error_page, pass_certificate })))
}

type Lists = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// Roots and revocation lists of the Secret.
fn authorities(reader: &mut Reader<'_>, text: &str, objects: &Objects) -> Result<Lists, ()> {
    let read = match reader.secret(objects, text) {
        Ok(secret) => lists(secret),
        Err(NoSecret::Elsewhere) => {
            let (message, hint) = NoSecret::ELSEWHERE;
            Err((Reason::InvalidValue, message.to_owned(), hint))
        }
        Err(NoSecret::Missing(name)) => Err((
            Reason::NotFound,
            format!("Secret {name} does not exist, or may not be read"),
            "create a Secret that has ca.crt",
        )),
    };
    read.map_err(|(reason, message, hint)| {
        let message = format!("{message}; so that nobody gets in whom it would keep out, requests get 503");
        reader.problem(SECRET, reason, message, hint);
    })
}

fn lists(secret: &Secret) -> Result<Lists, (Reason, String, &'static str)> {
    let data =
        |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.as_slice());
    let wrong = |message: &str, hint| (Reason::InvalidValue, message.to_owned(), hint);
    let pem = data("ca.crt").unwrap_or_default();
    let ca: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("its ca.crt is not PEM", "put the certificates there that sign your clients"))?;
    if ca.is_empty() || ca.iter().any(|der| webpki::anchor_from_trusted_cert(der).is_err()) {
        let hint = "put the certificates there that sign your clients, in PEM";
        return Err(wrong("its ca.crt has no certificate, or one that cannot be read", hint));
    }
    let revoked: Vec<CertificateRevocationListDer<'static>> =
        CertificateRevocationListDer::pem_slice_iter(data("ca.crl").unwrap_or_default())
            .collect::<Result<_, _>>()
            .map_err(|_| wrong("its ca.crl is not PEM", "put revocation lists there, or delete the key"))?;
    let readable = |der: &CertificateRevocationListDer<'_>| {
        webpki::OwnedCertRevocationList::from_der(der.as_ref()).is_ok()
    };
    if !revoked.iter().all(readable) {
        return Err(wrong(
            "its ca.crl cannot be read",
            "put revocation lists (version 2) there, or delete the key",
        ));
    }
    let ca = ca.iter().map(|der| der.to_vec()).collect();
    Ok((ca, revoked.iter().map(|der| der.as_ref().to_vec()).collect()))
}
