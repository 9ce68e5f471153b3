//! The TLS server's configurations: one for clients that show no certificate, made once at start and shared by all
//! workers, and one for each policy about clients' certificates (`client_auth`).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tickets::Tickets;
use crate::l7::live::Shared;

/// What all configurations have in common. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    provider: Arc<CryptoProvider>,
    resolver: Arc<Resolver>,
    tickets: Arc<Tickets>,
    /// For the names that ask for no certificate of the client.
    plain: Arc<ServerConfig>,
}

impl Server {
    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, certificates of the newest generation; `default` where none covers the
    /// name.
    pub fn new(
        shared: Arc<Shared>,
        default: Arc<CertifiedKey>,
        tickets: Arc<Tickets>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(CryptoProvider {
            // The post-quantum hybrid first: clients that know it offer it, and recorded traffic stays secret.
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            ..aws_lc_rs::default_provider()
        });
        let resolver = Arc::new(Resolver { shared, default });
        let plain = config(&provider, &resolver, &tickets, Arc::new(NoClientAuth), [0; 32])?;
        Ok(Self { provider, resolver, tickets, plain })
    }

    /// For clients that show no certificate.
    pub fn plain(&self) -> &Arc<ServerConfig> {
        &self.plain
    }

    /// The keys of session tickets.
    pub fn tickets(&self) -> &Arc<Tickets> {
        &self.tickets
    }

    /// For clients that are asked for a certificate. Sessions of one `policy` are never resumed under another.
    pub fn with_client_auth(
        &self,
        verifier: Arc<dyn ClientCertVerifier>,
        policy: [u8; 32],
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        config(&self.provider, &self.resolver, &self.tickets, verifier, policy)
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    resolver: &Arc<Resolver>,
    tickets: &Arc<Tickets>,
    verifier: Arc<dyn ClientCertVerifier>,
    policy: [u8; 32],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(resolver) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions live in tickets at the client, not in a table of ours: no lock, no memory, and any node can resume them.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets.for_policy(policy);
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Resolver {
    shared: Arc<Shared>,
    default: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let live = self.shared.load();
        // Names in SNI are ASCII; case does not matter (RFC 6066 3).
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let choice = live.certificates.find(name.as_deref());
        let key = choice.and_then(|choice| choice.choose(hello.signature_schemes()));
        Some(Arc::clone(key.unwrap_or(&self.default)))
    }
}
