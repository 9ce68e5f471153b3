//! TLS Secrets to certificates: they parse, the key belongs to the certificate, and it is in order. Called by `tls`, once per
//! Secret.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureAlgorithm};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::host;
use super::problems::Problems;
use crate::model::{HostPattern, ObjectRef, Reason};

/// What a good Secret holds.
#[derive(Debug)]
pub(super) struct Pair {
    /// DER, the leaf first.
    pub(super) chain: Arc<[Vec<u8>]>,
    /// DER.
    pub(super) key: Arc<[u8]>,
    /// The leaf's DNS names.
    pub(super) names: Vec<HostPattern>,
    /// `notAfter`, seconds since 1970.
    pub(super) not_after: i64,
    /// What kind of key it is: a name may have a certificate for each.
    pub(super) kind: SignatureAlgorithm,
}

/// What is wrong with a Secret.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Path of the field.
    pub(super) field: &'static str,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

/// `type` of the Secrets that we read: the others hold what is none of our business.
const TYPE: &str = "kubernetes.io/tls";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Reads and checks `tls.crt` and `tls.key`.
pub(super) fn pair(secret: &Secret) -> Result<Pair, Wrong> {
    if secret.type_.as_deref() != Some(TYPE) {
        return Err(Wrong {
            field: "type",
            message: format!("is not {TYPE}; from an API server we read no others"),
            hint: "make it with `kubectl create secret tls`",
        });
    }
    let certificate_pem = data(secret, CERTIFICATE, "data[tls.crt]")?;
    let key_pem = data(secret, KEY, "data[tls.key]")?;
    let wrong = |field, message: String, hint| Wrong { field, message, hint };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate_pem).collect::<Result<_, _>>().map_err(|error| {
            wrong("data[tls.crt]", format!("is not PEM: {error}"), "put the certificate chain there, in PEM")
        })?;
    let Some(leaf) = chain.first() else {
        return Err(wrong(
            "data[tls.crt]",
            "has no certificate".into(),
            "put the certificate chain there, in PEM",
        ));
    };
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| {
        wrong(
            "data[tls.crt]",
            "its first certificate is not an X.509 certificate".into(),
            "put the certificate chain there, in PEM",
        )
    })?;
    let (names, not_after) = (names(&parsed), parsed.validity().not_after.timestamp());
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| {
        wrong(
            "data[tls.key]",
            format!("has no private key in PEM: {error}"),
            "put the certificate's private key there, unencrypted, in PEM",
        )
    })?;
    let key_der = key.secret_der().into();
    let certified =
        CertifiedKey::from_der(chain.clone(), key, &aws_lc_rs::default_provider()).map_err(|error| {
            match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => wrong(
                    "data[tls.key]",
                    "does not belong to the certificate in tls.crt".into(),
                    "put key and certificate of the same pair there, the leaf certificate first",
                ),
                error => wrong(
                    "data[tls.key]",
                    format!("cannot be used: {error}"),
                    "use an RSA key of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519",
                ),
            }
        })?;
    Ok(Pair {
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        key: key_der,
        names,
        not_after,
        kind: certified.key.algorithm(),
    })
}

fn data<'s>(secret: &'s Secret, name: &str, field: &'static str) -> Result<&'s [u8], Wrong> {
    match secret.data.as_ref().and_then(|data| data.get(name)) {
        Some(value) if !value.0.is_empty() => Ok(&value.0),
        _ => Err(Wrong {
            field,
            message: "is missing or empty".into(),
            hint: "make it with `kubectl create secret tls`",
        }),
    }
}

/// The subject alternative names. Clients have not looked at the common name for years, so neither do we.
fn names(certificate: &X509Certificate<'_>) -> Vec<HostPattern> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => host::parse(&name.to_ascii_lowercase()).ok(),
        _ => None,
    });
    names.filter(|name| *name != HostPattern::Any).collect()
}

/// How long before its end a certificate is spoken of, in seconds: two weeks. Renewals usually come a month before.
const EXPIRES_SOON: i64 = 14 * 24 * 3600;

/// Says what is wrong with a Secret, and until when that stays true (seconds since 1970; `None`: as long as it is this one).
pub(super) fn judge(
    read: &Result<Pair, Wrong>,
    source: &ObjectRef,
    now: i64,
    problems: &mut Problems,
) -> Option<i64> {
    let (reason, message, hint, until) = match read {
        Ok(Pair { not_after, .. }) if *not_after < now => (
            Reason::InvalidValue,
            format!("expired at {}; it is served, but clients will refuse it", time(*not_after)),
            "renew the certificate",
            None,
        ),
        Ok(Pair { not_after, .. }) if *not_after - EXPIRES_SOON < now => (
            Reason::Expiring,
            format!("expires at {}; until then it is served", time(*not_after)),
            "renew the certificate; whatever renews it by itself is late",
            Some(*not_after),
        ),
        Ok(Pair { not_after, .. }) => return Some(*not_after - EXPIRES_SOON),
        Err(wrong) => {
            let message = format!("{}; this certificate is not served", wrong.message);
            problems.add(source, wrong.field, Reason::InvalidValue, message, wrong.hint);
            return None;
        }
    };
    problems.add(source, "data[tls.crt]", reason, message, hint);
    until
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
