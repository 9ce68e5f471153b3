//! The TLS server's configuration, made once at start and shared by all workers.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{self, Ticketer, kx_group};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::l7::live::Shared;

/// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, certificates of the newest generation; `default` where none covers the name.
pub fn server_config(
    shared: Arc<Shared>,
    default: Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = rustls::crypto::CryptoProvider {
        // The post-quantum hybrid first: clients that know it offer it, and recorded traffic stays secret.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver { shared, default }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions live in tickets at the client, not in a table of ours: no lock, no memory, and later one key for all
    // nodes.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
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
        Some(Arc::clone(live.certificates.find(name.as_deref()).unwrap_or(&self.default)))
    }
}
