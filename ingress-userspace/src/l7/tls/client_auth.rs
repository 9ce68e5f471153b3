//! Certificates of clients (mTLS): which names ask for one, and what a client's certificate is worth. The handshake takes
//! any certificate whose key the client has; whether it is trusted is decided right after it, also when a session is
//! resumed, so that a refusal can be explained by HTTP as ingress-nginx does, and a ticket never stands for a check.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};

use super::name;
use crate::model::ClientAuth;

/// What a host wants of its clients' certificates, compiled. Connections are made under one policy and carry requests
/// for hosts of that policy only.
pub struct Policy {
    /// The same for equal policies.
    pub id: [u8; 32],
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    hints: Arc<[DistinguishedName]>,
    /// The most certificates between the client's and an anchor (`auth-tls-verify-depth`).
    depth: usize,
    /// As translated: what requests need.
    pub source: Arc<ClientAuth>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("anchors", &self.anchors.len()).finish_non_exhaustive()
    }
}

impl Policy {
    /// Compiles what `translate` has checked.
    pub fn new(source: &Arc<ClientAuth>) -> Self {
        let ClientAuth { ca: roots, revoked, depth, .. } = &**source;
        let depth = usize::from(*depth);
        let mut hash = digest::Context::new(&digest::SHA256);
        for (tag, list) in [(b'r', roots), (b'c', revoked)] {
            for der in list {
                hash.update(&[tag]);
                hash.update(&(der.len() as u64).to_be_bytes());
                hash.update(der);
            }
        }
        hash.update(&(depth as u64).to_be_bytes());
        let mut id = [0; 32];
        id.copy_from_slice(hash.finish().as_ref());
        let anchors: Vec<TrustAnchor<'static>> = roots
            .iter()
            .filter_map(|der| {
                let der = CertificateDer::from(der.as_slice());
                webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned()).ok()
            })
            .collect();
        let revoked = revoked
            .iter()
            .filter_map(|der| {
                let der = CertificateRevocationListDer::from(der.as_slice());
                OwnedCertRevocationList::from_der(&der).ok().map(CertRevocationList::from)
            })
            .collect();
        let hints = anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect();
        Self { id, anchors, revoked, hints, depth, source: Arc::clone(source) }
    }

    /// What the handshake asks clients for.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        Arc::new(AskOnly { hints: Arc::clone(&self.hints), algorithms })
    }

    /// Judges the certificates that a client has shown, its own first.
    pub fn judge(&self, chain: Option<&[CertificateDer<'_>]>, now: UnixTime) -> Client {
        let Some((leaf, intermediates)) = chain.and_then(|chain| chain.split_first()) else {
            return Client { verdict: Verdict::Absent, certificate: None };
        };
        let verdict = match self.verify(leaf, intermediates, now) {
            Ok(()) => Verdict::Trusted,
            Err(error) => Verdict::refused(&error),
        };
        Client { verdict, certificate: name::Certificate::read(leaf).map(Box::new) }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        // As OpenSSL does it for nginx: a list says who is revoked, no list says nothing.
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
        let shallow = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            if between <= self.depth { Ok(()) } else { Err(webpki::Error::MaximumPathDepthExceeded) }
        };
        leaf.verify_for_usage(
            provider::default_provider().signature_verification_algorithms.all,
            &self.anchors,
            intermediates,
            now,
            KeyUsage::client_auth(),
            revocation,
            Some(&shallow),
        )
        .map(|_| ())
    }
}

/// What is known of the client of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// What its certificate is worth.
    pub verdict: Verdict,
    /// The certificate, if it can be read.
    pub certificate: Option<Box<name::Certificate>>,
}

/// What a client's certificate is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It showed none.
    Absent,
    /// It leads to a root of the policy, is in time and not revoked.
    Trusted,
    /// It does not.
    Refused {
        /// Why.
        reason: String,
        /// All that is wrong is that nobody whom we know has signed it (`optional_no_ca` takes it).
        only_unknown: bool,
    },
}

impl Verdict {
    fn refused(error: &webpki::Error) -> Self {
        let (reason, only_unknown) = match error {
            webpki::Error::UnknownIssuer => ("unable to get local issuer certificate", true),
            // A root shown as the client's own certificate: signed by itself.
            webpki::Error::CaUsedAsEndEntity => ("self-signed certificate", true),
            webpki::Error::CertExpired { .. } => ("certificate has expired", false),
            webpki::Error::CertNotValidYet { .. } => ("certificate is not yet valid", false),
            webpki::Error::CertRevoked => ("certificate revoked", false),
            webpki::Error::MaximumPathDepthExceeded => ("certificate chain too long", false),
            other => return Self::Refused { reason: other.to_string(), only_unknown: false },
        };
        Self::Refused { reason: reason.to_owned(), only_unknown }
    }

    /// As nginx' `$ssl_client_verify` says it.
    pub fn to_nginx(&self) -> String {
        match self {
            Self::Absent => "NONE".to_owned(),
            Self::Trusted => "SUCCESS".to_owned(),
            Self::Refused { reason, .. } => format!("FAILED:{reason}"),
        }
    }
}

/// Asks for a certificate and takes what comes, if the client has its key.
#[derive(Debug)]
struct AskOnly {
    hints: Arc<[DistinguishedName]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // `Policy::judge` decides after the handshake.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
