//! The rest of the road, with a certificate for each of the 10,000 Ingresses: from the objects to the first answer, or to the
//! first handshake, by which a client sees the change.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde_json::{Value, json};
use xdp_ingress::l7::{Config, L7, Proto};
use xdp_ingress::source::{Object, Objects};
use xdp_ingress::translate::{Settings, Translator};

use super::anybody::Anybody;
use super::{CHANGES, INGRESSES, host, namespace, percentile, row, typed};

/// The Ingress whose endpoint really answers; its Service is of that number, too.
const SERVED: usize = 0;

/// What changes, and all that it goes through.
struct Live {
    objects: Objects,
    published: Objects,
    translator: Translator,
    l7: L7,
    http: TcpStream,
    https: SocketAddr,
    client: Arc<ClientConfig>,
}

pub(super) fn rows(mut objects: Objects) -> Result<Vec<Value>> {
    for index in 0..INGRESSES {
        objects.insert(secret(index)?.0);
        objects.insert(ingress(index, 0)?);
    }
    let backends = [backend("a")?, backend("b")?];
    objects.insert(slice(backends[0])?);
    let started = Instant::now();
    let mut translator = Translator::new(Settings::default());
    let (snapshot, problems) = translator.translate(&objects, 0);
    ensure!(problems.is_empty(), "{:?}", problems.first());
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let config = Config { workers: 1, http: vec![any], https: vec![any], ..Config::default() };
    let l7 = L7::start(config, &snapshot)?;
    let rebuild = started.elapsed().as_secs_f64() * 1e3;
    let address = |proto| l7.addresses().find(|a| a.proto == proto).map(|a| a.socket).context("no listener");
    let (http, https) = (TcpStream::connect(address(Proto::Http)?)?, address(Proto::Https)?);
    http.set_nodelay(true)?;
    let published = objects.clone();
    let mut live = Live { objects, published, translator, l7, http, https, client: client()? };
    ensure!(live.ask(SERVED)?.ends_with('a'), "the endpoint does not answer");

    let [mut endpoint, mut route, mut renewed, mut new] = [const { Vec::<f64>::new() }; 4];
    for change in 0..CHANGES {
        let name = ["b", "a"][change % 2];
        let object = slice(backends[(change + 1) % 2])?;
        endpoint.push(live.change([object], |live| Ok(live.ask(SERVED)?.ends_with(name)))?);

        let index = 1 + change * 13 % (INGRESSES - 1);
        let location = format!("location: https://moved.example.com/{change}\r\n");
        let object = ingress(index, change)?;
        route.push(live.change([object], |live| Ok(live.ask(index)?.to_lowercase().contains(&location)))?);

        let (object, certificate) = secret(index)?;
        renewed.push(live.change([object], |live| Ok(live.shown(index)? == certificate))?);

        let index = 2 * INGRESSES + change;
        let (object, certificate) = secret(index)?;
        let both = [object, ingress(index, change)?];
        new.push(live.change(both, |live| Ok(live.shown(index)? == certificate))?);
    }
    let mut rows = vec![row("with TLS: everything, from nothing", rebuild, 5000.0, "ms")];
    for (what, times) in [
        ("with TLS: endpoint to first answer", &mut endpoint),
        ("with TLS: Ingress to first answer", &mut route),
        ("with TLS: renewal to first handshake", &mut renewed),
        ("with TLS: Ingress and Secret more", &mut new),
    ] {
        for percent in [50, 99] {
            rows.push(row(&format!("{what}, p{percent}"), percentile(times, percent), 10.0, "ms"));
        }
    }
    Ok(rows)
}

impl Live {
    /// How long these changes take, in milliseconds, until a client sees them.
    fn change<const N: usize>(
        &mut self,
        objects: [Object; N],
        is_seen: impl Fn(&mut Self) -> Result<bool>,
    ) -> Result<f64> {
        let started = Instant::now();
        for object in objects {
            self.objects.insert(object);
        }
        let (snapshot, _) = self.translator.translate(&self.objects, 0);
        self.l7.publish(&snapshot);
        ensure!(is_seen(self)?, "a change is not served at once");
        let took = started.elapsed().as_secs_f64() * 1e3;
        // As the source does it: what was published last is still held when the next change comes.
        self.published = self.objects.clone();
        Ok(took)
    }

    /// Head and body of an answer.
    fn ask(&mut self, ingress: usize) -> Result<String> {
        write!(self.http, "GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(ingress))?;
        answer(&self.http)
    }

    /// The certificate that a new connection is shown.
    fn shown(&mut self, ingress: usize) -> Result<Vec<u8>> {
        let mut session =
            ClientConnection::new(Arc::clone(&self.client), ServerName::try_from(host(ingress))?)?;
        let mut stream = TcpStream::connect(self.https)?;
        session.complete_io(&mut stream)?;
        Ok(session.peer_certificates().context("no certificate")?[0].to_vec())
    }
}

fn answer(stream: &TcpStream) -> Result<String> {
    let mut stream = BufReader::new(stream);
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        ensure!(stream.read_line(&mut text)? > 0, "the connection ended");
    }
    let lower = text.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(Ok(0), str::parse)?];
    stream.read_exact(&mut body)?;
    text.push_str(std::str::from_utf8(&body)?);
    Ok(text)
}

/// Answers everything with its name.
fn backend(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                while answer(&stream).is_ok() {
                    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    // The router has closed it: there is no request any more.
                    let _ = (&stream).write_all(text.as_bytes());
                }
            });
        }
    });
    Ok(address)
}

fn slice(endpoint: SocketAddr) -> Result<Object> {
    Ok(Object::EndpointSlice(Arc::new(typed(json!({
        "metadata": {
            "name": format!("service-{SERVED}-a"),
            "namespace": namespace(SERVED),
            "labels": { "kubernetes.io/service-name": format!("service-{SERVED}") },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": endpoint.port(), "protocol": "TCP" }],
        "endpoints": [{ "addresses": [endpoint.ip()], "conditions": { "ready": true } }],
    }))?)))
}

/// With a certificate of its own. `change`: where it redirects to, so that no endpoint is needed; the one that is `SERVED`
/// does not.
fn ingress(index: usize, change: usize) -> Result<Object> {
    let mut ingress = super::ingress(index, "/api")?;
    let written = Arc::make_mut(&mut ingress);
    let prefix = "nginx.ingress.kubernetes.io";
    let annotations = written.metadata.annotations.get_or_insert_default();
    annotations.insert(format!("{prefix}/ssl-redirect"), "false".into());
    if index != SERVED {
        let location = format!("https://moved.example.com/{change}");
        annotations.insert(format!("{prefix}/permanent-redirect"), location);
    }
    let tls = json!([{ "hosts": [host(index)], "secretName": format!("certificate-{index}") }]);
    written.spec.get_or_insert_default().tls = typed(tls)?;
    Ok(Object::Ingress(ingress))
}

/// A new certificate for its host, and what clients will see of it.
fn secret(index: usize) -> Result<(Object, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![host(index)])?.self_signed(&key)?;
    let mut secret: k8s_openapi::api::core::v1::Secret = typed(json!({
        "metadata": { "name": format!("certificate-{index}"), "namespace": namespace(index) },
        "type": "kubernetes.io/tls",
    }))?;
    let data = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())];
    let data = data.map(|(name, pem)| (name.to_owned(), k8s_openapi::ByteString(pem.into_bytes())));
    secret.data = Some(data.into_iter().collect());
    Ok((Object::Secret(Arc::new(secret)), certificate.der().to_vec()))
}

fn client() -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    // A session that is resumed shows the certificate of the first one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
