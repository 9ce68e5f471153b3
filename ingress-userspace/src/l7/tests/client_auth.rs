//! Certificates of clients: who gets in, what the backend is told, and that neither another name, a ticket nor plain
//! HTTP leads around it.

use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};

use super::backend::{Backend, Behaviour};
use super::tls::{TakeAny, ask, connect};
use super::{Router, Rules, client};
use crate::l7::tls::tickets::Seed;
use crate::model::{ClientAuth, VerifyClient};

/// Signs clients.
struct Ca(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn auth(&self, verify: VerifyClient) -> ClientAuth {
        ClientAuth {
            ca: vec![self.0.der().to_vec()],
            revoked: vec![],
            verify,
            depth: 1,
            error_page: None,
            pass_certificate: true,
        }
    }

    /// A client with a certificate from here, valid until that year.
    fn client(&self, name: &str, until: i32) -> Arc<ClientConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let der = params.signed_by(&key, &self.0).unwrap().der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        config(|builder| builder.with_client_auth_cert(vec![der], key).unwrap())
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn config(finish: impl FnOnce(Builder) -> ClientConfig) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakeAny(provider, schemes)));
    Arc::new(finish(builder))
}

fn nobody() -> Arc<ClientConfig> {
    config(Builder::with_no_client_auth)
}

fn status(router: &Router, config: &Arc<ClientConfig>, server_name: &str, host: &str) -> u16 {
    let answer = ask(&mut connect(router.https, config, server_name), host);
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn rules(backend: &Backend) -> Rules {
    Rules::default().rule("a.test", "/", "one", &[backend.address]).rule(
        "b.test",
        "/",
        "one",
        &[backend.address],
    )
}

#[test]
fn who_gets_in() {
    let backend = Backend::start("one", Behaviour::Echo);
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let clients =
        [nobody(), ca.client("good", 2999), other.client("stranger", 2999), ca.client("late", 2001)];
    for (verify, expected) in [
        (VerifyClient::On, [400, 200, 400, 400]),
        (VerifyClient::Optional, [200, 200, 400, 400]),
        (VerifyClient::OptionalNoCa, [200, 200, 200, 400]),
    ] {
        let router = Router::start(&rules(&backend).client_auth("a.test", ca.auth(verify)));
        let got = clients.each_ref().map(|client| status(&router, client, "a.test", "a.test"));
        assert_eq!(got, expected, "{verify:?}");
        // The neighbour is not concerned.
        assert_eq!(status(&router, &nobody(), "b.test", "b.test"), 200);
    }
}

#[test]
fn the_backend_is_told_who_it_is() {
    let backend = Backend::start("one", Behaviour::Echo);
    let ca = Ca::new("ca");
    let router = Router::start(&rules(&backend).client_auth("a.test", ca.auth(VerifyClient::Optional)));
    ask(&mut connect(router.https, &ca.client("good", 2999), "a.test"), "a.test");
    let seen = backend.seen().pop().unwrap();
    for line in
        ["ssl-client-verify: SUCCESS", "ssl-client-subject-dn: CN=good", "ssl-client-issuer-dn: CN=ca"]
    {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line}: {seen}");
    }
    assert!(seen.contains("\r\nssl-client-cert: -----BEGIN%20CERTIFICATE-----%0A"), "{seen}");

    // What a client says about itself is not passed on.
    let spoof = "a.test\r\nSSL-Client-Verify: SUCCESS\r\nssl-client-subject-dn: CN=root";
    ask(&mut connect(router.https, &nobody(), "a.test"), spoof);
    let seen = backend.seen().pop().unwrap();
    assert!(seen.contains("\r\nssl-client-verify: NONE\r\n") && !seen.contains("CN=root"), "{seen}");
    assert!(!seen.contains("SUCCESS"), "{seen}");
}

#[test]
fn there_is_no_way_around() {
    let backend = Backend::start("one", Behaviour::Echo);
    let ca = Ca::new("ca");
    let router = Router::start(&rules(&backend).client_auth("a.test", ca.auth(VerifyClient::On)));
    // Neither by another tenant's name nor by none, whoever asks; nor the other way round.
    for client in [nobody(), ca.client("good", 2999)] {
        assert_eq!(status(&router, &client, "b.test", "a.test"), 421);
        assert_eq!(status(&router, &client, "nobody.test", "a.test"), 421);
        assert_eq!(status(&router, &client, "127.0.0.1", "a.test"), 421);
        assert_eq!(status(&router, &client, "a.test", "b.test"), 421);
    }
    assert_eq!(client::get(router.http, "a.test", "/").status, 403);
    assert_eq!(client::get(router.http, "b.test", "/").status, 200);
}

#[test]
fn a_ticket_never_stands_for_a_check() {
    let backend = Backend::start("one", Behaviour::Echo);
    let (ca, new_ca) = (Ca::new("ca"), Ca::new("new"));
    let with = |auth| rules(&backend).client_auth("a.test", auth);
    let seed = || Seed::derive("test", &[7; 32]);
    let first = Router::with_seed(&with(ca.auth(VerifyClient::On)), seed());
    let second = Router::with_seed(&with(ca.auth(VerifyClient::On)), seed());
    let good = ca.client("good", 2999);
    assert_eq!(status(&first, &good, "a.test", "a.test"), 200);
    let mut resumed = connect(second.https, &good, "a.test");
    assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(ask(&mut resumed, "a.test").starts_with("HTTP/1.1 200 "));

    // Another authority: what was resumed before is asked anew, and open connections carry nothing any more.
    second.l7.publish(&with(new_ca.auth(VerifyClient::On)).0);
    assert!(ask(&mut resumed, "a.test").starts_with("HTTP/1.1 421 "));
    let mut again = connect(second.https, &good, "a.test");
    assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Full));
    assert!(ask(&mut again, "a.test").starts_with("HTTP/1.1 400 "));
    assert_eq!(status(&second, &new_ca.client("new", 2999), "a.test", "a.test"), 200);
}
