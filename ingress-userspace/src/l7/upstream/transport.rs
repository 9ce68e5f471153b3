//! What is spoken to the endpoints of a route besides plain HTTP/1.1: TLS, HTTP/2. Compiled with the routes by `live`;
//! connections are pooled by [`TransportId`], so that none made under one route's rules serves another's.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    SupportedProtocolVersion, version,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::model::{BackendTls, TlsVersions, Upstream, VerifyBackend};

/// The same for equal transports; 0 is plain HTTP/1.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TransportId(u32);

/// How endpoints are spoken to. Plain HTTP/1.1 has none.
#[derive(Debug)]
pub struct Transport {
    /// Its number.
    pub id: TransportId,
    /// HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Transport {
    /// The number of `transport`.
    pub fn id(transport: Option<&Arc<Self>>) -> TransportId {
        transport.map(|transport| transport.id).unwrap_or_default()
    }

    /// Whether requests cross by TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A session for a new connection. `None`: without TLS.
    pub fn session(&self) -> Result<Option<ClientConnection>, Error> {
        let Some((config, name)) = &self.tls else { return Ok(None) };
        ClientConnection::new(Arc::clone(config), name.clone()).map(Some)
    }
}

/// HTTP/2 or not, over what TLS, to whom by default.
type TransportKey = (bool, Option<Arc<BackendTls>>, String);

/// The transports of all routes: equal ones are the same, over all snapshots in which they are used.
#[derive(Debug, Default)]
pub struct Transports {
    known: HashMap<TransportKey, Weak<Transport>>,
    last: u32,
}

impl Transports {
    /// The transport for endpoints of `service`, a DNS name. `Ok(None)`: plain HTTP/1.1.
    pub fn of(&mut self, upstream: &Upstream, service: &str) -> Result<Option<Arc<Transport>>, Error> {
        if !upstream.http2 && upstream.tls.is_none() {
            return Ok(None);
        }
        // The name matters for TLS only.
        let name = match &upstream.tls {
            Some(tls) => tls.name.as_deref().unwrap_or(service),
            None => "",
        };
        let key = (upstream.http2, upstream.tls.clone(), name.to_owned());
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return Ok(Some(known));
        }
        let tls = upstream.tls.as_ref().map(|tls| client(tls, name, upstream.http2)).transpose()?;
        self.known.retain(|_, transport| transport.strong_count() > 0);
        self.last += 1;
        let transport = Arc::new(Transport { id: TransportId(self.last), http2: upstream.http2, tls });
        self.known.insert(key, Arc::downgrade(&transport));
        Ok(Some(transport))
    }
}

fn client(
    tls: &BackendTls,
    name: &str,
    http2: bool,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), Error> {
    let name = ServerName::try_from(name.to_owned()).map_err(|error| Error::General(error.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match tls.versions {
        TlsVersions::Both => &[&version::TLS13, &version::TLS12],
        TlsVersions::Tls12 => &[&version::TLS12],
        TlsVersions::Tls13 => &[&version::TLS13],
    };
    let verifier = Verifier::new(tls.verify.as_ref(), provider.signature_verification_algorithms);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.client {
        Some((chain, key)) => {
            let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
            let key = PrivateKeyDer::try_from(key.clone()).map_err(|error| Error::General(error.into()))?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = tls.server_name;
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok((Arc::new(config), name))
}

/// Checks a backend's certificate, or takes any, as ingress-nginx does by default: then TLS keeps out who only listens.
#[derive(Debug)]
struct Verifier {
    /// Roots, and the most certificates between them and the backend's.
    anchors: Option<(Vec<TrustAnchor<'static>>, usize)>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(verify: Option<&VerifyBackend>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let anchors = verify.map(|VerifyBackend { ca, depth }| {
            let anchor = |der: &Vec<u8>| {
                let der = CertificateDer::from(der.as_slice());
                webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned()).ok()
            };
            (ca.iter().filter_map(anchor).collect(), usize::from(*depth))
        });
        Self { anchors, algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((anchors, depth)) = &self.anchors else { return Ok(ServerCertVerified::assertion()) };
        let refused = |error: webpki::Error| match error {
            webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName.into(),
            webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer.into(),
            error => Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(error)))),
        };
        let certificate = EndEntityCert::try_from(leaf).map_err(refused)?;
        let shallow = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            if between <= *depth { Ok(()) } else { Err(webpki::Error::MaximumPathDepthExceeded) }
        };
        certificate
            .verify_for_usage(
                self.algorithms.all,
                anchors,
                intermediates,
                now,
                KeyUsage::server_auth(),
                None,
                Some(&shallow),
            )
            .map_err(refused)?;
        certificate.verify_is_valid_for_subject_name(name).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
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
