//! TLS: which certificate is shown, rotation, HTTP/1.1 inside.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, SignatureScheme, StreamOwned,
};

use super::backend::{Backend, Behaviour};
use super::{Router, Rules};
use crate::model::{Certificate, HostPattern, Kind, ObjectRef};

pub(super) fn certificate(secret: &str, hosts: &[HostPattern]) -> Arc<Certificate> {
    certified(secret, hosts, &rcgen::KeyPair::generate().unwrap())
}

fn rsa_certificate(secret: &str, hosts: &[HostPattern]) -> Arc<Certificate> {
    certified(secret, hosts, &rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap())
}

fn certified(secret: &str, hosts: &[HostPattern], key: &rcgen::KeyPair) -> Arc<Certificate> {
    let params = rcgen::CertificateParams::new(vec![secret.to_owned()]).unwrap();
    Arc::new(Certificate {
        source: ObjectRef::new(Kind::Secret, "default", secret),
        hosts: hosts.to_vec(),
        chain: [params.self_signed(key).unwrap().der().to_vec()].into(),
        key: key.serialize_der().into(),
        not_after: 0,
    })
}

/// Takes any certificate: the tests look at which one it was.
#[derive(Debug)]
pub(super) struct TakeAny(pub(super) Arc<CryptoProvider>, pub(super) Vec<SignatureScheme>);

impl rustls::client::danger::ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.clone()
    }
}

pub(super) fn client_config(
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let schemes = default_provider().signature_verification_algorithms;
    Arc::new(config_with(default_provider(), versions, alpn, schemes.supported_schemes()))
}

fn config_with(
    provider: CryptoProvider,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&str],
    schemes: Vec<SignatureScheme>,
) -> ClientConfig {
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakeAny(provider, schemes)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A client that can check signatures of these kinds only.
fn only_schemes(
    versions: &[&'static rustls::SupportedProtocolVersion],
    schemes: &[SignatureScheme],
) -> Arc<ClientConfig> {
    Arc::new(config_with(default_provider(), versions, &[], schemes.to_vec()))
}

pub(super) fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    session.complete_io(&mut stream).unwrap();
    StreamOwned::new(session, stream)
}

/// The certificate that the server has shown.
pub(super) fn shown(stream: &StreamOwned<ClientConnection, TcpStream>) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

/// Asks, reads the whole answer (so that the next one begins where this one ended) and returns it.
pub(super) fn ask(stream: &mut StreamOwned<ClientConnection, TcpStream>, host: &str) -> String {
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !is_whole(&answer) {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the connection ended after {answer:?}");
        answer.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    answer
}

/// Is this a whole answer, by its `Content-Length` or its last chunk?
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    match head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => body.len() >= length.parse().unwrap(),
        None => !head.contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n"),
    }
}

#[test]
fn certificates_by_server_name() {
    let exact = certificate("exact", &[HostPattern::Exact("a.foo.test".into())]);
    let wildcard = certificate("wildcard", &[HostPattern::Wildcard("foo.test".into())]);
    let rules = Rules::default().certificate(Arc::clone(&exact)).certificate(Arc::clone(&wildcard));
    let router = Router::start(&rules);
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let config = client_config(versions, &[]);
        assert_eq!(shown(&connect(router.https, &config, "a.foo.test")), exact.chain[0]);
        assert_eq!(shown(&connect(router.https, &config, "A.FOO.test")), exact.chain[0]);
        assert_eq!(shown(&connect(router.https, &config, "b.foo.test")), wildcard.chain[0]);
        let fallback = shown(&connect(router.https, &config, "a.b.foo.test"));
        assert!(fallback != exact.chain[0] && fallback != wildcard.chain[0]);
    }
}

#[test]
fn rotation_leaves_connections_alone() {
    let backend = Backend::start("one", Behaviour::Echo);
    let name = [HostPattern::Exact("a.test".into())];
    let (old, new) = (certificate("secret", &name), certificate("secret", &name));
    let rules = Rules::default().rule("a.test", "/", "one", &[backend.address]);
    let router = Router::start(&rules.clone().certificate(Arc::clone(&old)));
    let config = client_config(rustls::DEFAULT_VERSIONS, &["http/1.1"]);
    let mut before = connect(router.https, &config, "a.test");
    assert_eq!(shown(&before), old.chain[0]);
    assert!(ask(&mut before, "a.test").starts_with("HTTP/1.1 200 OK\r\n"));
    router.l7.publish(&rules.certificate(Arc::clone(&new)).0);
    let after = connect(router.https, &client_config(rustls::DEFAULT_VERSIONS, &[]), "a.test");
    assert_eq!(shown(&after), new.chain[0]);
    let answer = ask(&mut before, "a.test");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(answer.to_ascii_lowercase().contains("x-forwarded-proto: https\r\n"));
}

#[test]
fn sessions_are_resumed_on_any_worker() {
    let router = Router::start(&Rules::default());
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let config = client_config(versions, &["http/1.1"]);
        let mut first = connect(router.https, &config, "a.test");
        assert_eq!(first.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
        // Tickets of TLS 1.3 come with the first answer.
        assert!(ask(&mut first, "a.test").starts_with("HTTP/1.1 404 "));
        let resumed = (0..8).map(|_| connect(router.https, &config, "a.test").conn.handshake_kind());
        // One ticket may be used once (RFC 8446 C.4); we send two.
        let resumed = resumed.filter(|kind| *kind == Some(rustls::HandshakeKind::Resumed)).count();
        assert!(resumed >= 2, "{resumed}");
    }
}

#[test]
fn a_failed_handshake_is_counted() {
    let router = Router::start(&Rules::default());
    let mut stream = TcpStream::connect(router.https).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    // The alert leaves before the failure is counted.
    let counted = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        router.l7.stats().totals.tls_failed == 1
    });
    assert!(counted);
}

fn seeded(rules: &Rules, seed: u8) -> Router {
    Router::with_seed(rules, crate::l7::tls::tickets::Seed::derive("test", &[seed; 32]))
}

#[test]
fn sessions_are_resumed_on_any_node() {
    const COUNT: usize = 100;
    let (a, b, stranger) =
        (seeded(&Rules::default(), 1), seeded(&Rules::default(), 1), seeded(&Rules::default(), 2));
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let mut resumed = 0;
        for _ in 0..COUNT {
            let config = client_config(versions, &["http/1.1"]);
            let mut first = connect(a.https, &config, "a.test");
            assert_eq!(first.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
            assert!(ask(&mut first, "a.test").starts_with("HTTP/1.1 404 "));
            let second = connect(b.https, &config, "a.test").conn.handshake_kind();
            resumed += usize::from(second == Some(rustls::HandshakeKind::Resumed));
        }
        println!("{resumed} of {COUNT} sessions of one node were resumed by another ({versions:?})");
        assert!(resumed * 100 > COUNT * 99, "{resumed} of {COUNT}");
        let config = client_config(versions, &["http/1.1"]);
        ask(&mut connect(a.https, &config, "a.test"), "a.test");
        let kind = connect(stranger.https, &config, "a.test").conn.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full), "another seed");
    }
}

#[test]
fn the_client_chooses_the_kind_of_key() {
    let name = [HostPattern::Exact("a.test".into())];
    let ecdsa = certificate("ecdsa", &name);
    let rsa = rsa_certificate("rsa", &name);
    let router =
        Router::start(&Rules::default().certificate(Arc::clone(&rsa)).certificate(Arc::clone(&ecdsa)));
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let any = client_config(versions, &[]);
        assert_eq!(shown(&connect(router.https, &any, "a.test")), ecdsa.chain[0]);
        let old =
            only_schemes(versions, &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]);
        assert_eq!(shown(&connect(router.https, &old, "a.test")), rsa.chain[0]);
    }
}

#[test]
fn keys_are_post_quantum_where_the_client_can() {
    let rules = Rules::default();
    let router = Router::start(&rules);
    for (offered, agreed) in [
        // As browsers do, it sends shares for both.
        (vec![kx_group::X25519MLKEM768, kx_group::X25519], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519], NamedGroup::X25519),
    ] {
        let provider = CryptoProvider { kx_groups: offered, ..default_provider() };
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let client = Arc::new(config_with(provider, &[&rustls::version::TLS13], &[], schemes));
        let stream = connect(router.https, &client, "a.test");
        let group = stream.conn.negotiated_key_exchange_group().expect("TLS 1.3 agrees on a group");
        assert_eq!(group.name(), agreed);
    }
}

#[test]
fn a_connection_carries_no_requests_for_a_host_with_another_certificate() {
    let backend = Backend::start("one", Behaviour::Echo);
    let host = |name: &str| HostPattern::Exact(name.into());
    let rules = Rules::default()
        .rule("", "/", "one", &[backend.address])
        .certificate(certificate("one", &[host("a.test"), host("b.test")]))
        .certificate(certificate("two", &[host("c.test")]));
    let router = Router::start(&rules);
    let config = client_config(rustls::DEFAULT_VERSIONS, &["http/1.1"]);
    for (server_name, host, status) in [
        ("a.test", "a.test", "200 OK"),
        ("a.test", "b.test", "200 OK"),
        ("a.test", "c.test", "421 Misdirected Request"),
        ("c.test", "a.test", "421 Misdirected Request"),
        ("nobody.test", "a.test", "200 OK"),
    ] {
        let answer = ask(&mut connect(router.https, &config, server_name), host);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{server_name} {host}: {answer}");
    }
}
