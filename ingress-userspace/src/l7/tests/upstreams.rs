//! How endpoints are spoken to: TLS with and without verification, HTTP/2 and gRPC's ways with it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::client::{self, Client, get};
use super::{Router, Rules};
use crate::model::{BackendTls, ClusterId, Filters, HostPattern, Target, Upstream, VerifyBackend};

type ChannelBody = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

/// A body of what comes through a channel.
fn body(mut frames: mpsc::Receiver<Frame<Bytes>>) -> ChannelBody {
    let frames = futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx)).map(Ok);
    http_body_util::BodyExt::boxed(StreamBody::new(frames))
}

/// What the backend's certificate is signed by, its chain and key, and a client's certificate and key.
struct Pki {
    ca: Vec<u8>,
    server: Arc<ServerConfig>,
    client: (Vec<Vec<u8>>, Vec<u8>),
}

fn pki(name: &str, alpn: &[&str]) -> Pki {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap().der().to_vec();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let signed = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap().der().to_vec(), key.serialize_der())
    };
    let (chain, key) = signed(name);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca.clone())).unwrap();
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![CertificateDer::from(chain)], PrivateKeyDer::try_from(key).unwrap())
        .unwrap();
    server.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let (client, client_key) = signed("router.test");
    Pki { ca, server: Arc::new(server), client: (vec![client], client_key) }
}

/// A backend that echoes bodies as they come, with what it knows of the connection in its answer's head, and gRPC's
/// trailers behind it.
async fn backend(tls: Option<Arc<ServerConfig>>, http2: bool) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => serve(TokioIo::new(socket), "plain".to_owned(), http2).await,
                    Some(tls) => {
                        let accepted = tokio_rustls::TlsAcceptor::from(tls).accept(socket).await;
                        let Ok(stream) = accepted else { return };
                        let session = stream.get_ref().1;
                        let seen = format!(
                            "sni={:?} client={} alpn={:?}",
                            session.server_name(),
                            session.peer_certificates().is_some(),
                            session.alpn_protocol().map(String::from_utf8_lossy),
                        );
                        serve(TokioIo::new(stream), seen, http2).await;
                    }
                }
            });
        }
    });
    address
}

async fn serve(
    io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    seen: String,
    http2: bool,
) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let seen = seen.clone();
        async move { Ok::<_, std::convert::Infallible>(echo(request, &seen)) }
    });
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
}

fn echo(request: http::Request<Incoming>, seen: &str) -> http::Response<ChannelBody> {
    let te = request.headers().get("te").map(|te| te.to_str().unwrap().to_owned()).unwrap_or_default();
    let head = format!("{:?} {} te={te} {seen}", request.version(), request.uri());
    let (sender, frames) = mpsc::channel(1);
    let is_http2 = request.version() == http::Version::HTTP_2;
    tokio::spawn(async move {
        let mut incoming = request.into_body();
        let mut count = 0_u64;
        let mut trailers = http::HeaderMap::new();
        while let Some(Ok(frame)) = incoming.frame().await {
            match frame.into_data() {
                Ok(data) => {
                    count += data.len() as u64;
                    if sender.send(Frame::data(data)).await.is_err() {
                        return;
                    }
                }
                Err(frame) => trailers.extend(frame.into_trailers().unwrap()),
            }
        }
        if is_http2 {
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            trailers.insert("x-count", count.into());
            let _ = sender.send(Frame::trailers(trailers)).await;
        }
    });
    let response =
        http::Response::builder().header("x-seen", head).header("content-type", "application/grpc");
    response.body(body(frames)).unwrap()
}

fn rules(upstream: Upstream, endpoint: SocketAddr) -> Rules {
    let id = ClusterId { namespace: "default".into(), service: "one".into(), port: 80, by_service: false };
    let filters = Filters { upstream: Some(Arc::new(upstream)), ..Filters::default() };
    // Only for its cluster.
    Rules::default().rule("unused.test", "/", "one", &[endpoint]).route(
        "a.test",
        "/",
        "one",
        Target::Cluster(id),
        filters,
    )
}

fn tls(settings: BackendTls) -> Upstream {
    Upstream { tls: Some(Arc::new(settings)), ..Upstream::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_without_verification_is_the_default() {
    let pki = pki("whatever.test", &[]);
    let address = backend(Some(Arc::clone(&pki.server)), false).await;
    let router = Router::start(&rules(tls(BackendTls::default()), address));
    tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(router.http);
        for _ in 0..3 {
            let answer = client.get("a.test", "/x?y");
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("x-seen"), Some("HTTP/1.1 /x?y te= sni=None client=false alpn=None"));
        }
        // A body that is longer than what any buffer holds, while the handshake is still under way.
        let mut client = Client::connect(router.http);
        let size = 3_000_000;
        client.send(&format!("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"));
        let writer = client.writer();
        let sent = std::thread::spawn(move || {
            use std::io::Write as _;
            (&writer).write_all(&vec![b'x'; size]).unwrap();
        });
        let answer = client.response().unwrap();
        sent.join().unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, size));
        assert!(router.l7.stats().totals.connected <= 2, "connections are used again");
    })
    .await
    .unwrap();
}

/// The same endpoint for a client by HTTP/2: messages go to and fro by TLS and HTTP/1.1, on one connection one after the
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_for_clients_by_http2() {
    let pki = pki("whatever.test", &[]);
    let address = backend(Some(Arc::clone(&pki.server)), false).await;
    let router = Router::start(&rules(tls(BackendTls::default()), address));
    let mut client = http2_client(&router).await;
    for _ in 0..3 {
        let (sender, frames) = mpsc::channel(1);
        let request = http::Request::post("http://a.test/x?y").body(body(frames)).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.headers()["x-seen"], "HTTP/1.1 /x?y te= sni=None client=false alpn=None");
        let mut answer = response.into_body();
        for length in [1, 1000, 300_000] {
            let message = Bytes::from(vec![b'x'; length]);
            let (sent, back) = tokio::join!(sender.send(Frame::data(message)), async {
                let mut back = 0;
                while back < length {
                    back += answer.frame().await.unwrap().unwrap().into_data().unwrap().len();
                }
                back
            });
            sent.unwrap();
            assert_eq!(back, length);
        }
        drop(sender);
        assert!(answer.frame().await.is_none_or(|frame| frame.unwrap().is_data()));
    }
    assert_eq!(router.l7.stats().totals.connected, 1, "the connection is used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_are_verified_and_see_our_certificate() {
    let pki = pki("inner.test", &[]);
    let other = self::pki("inner.test", &[]);
    let address = backend(Some(Arc::clone(&pki.server)), false).await;
    let settings = |ca: &[u8], name: &str| BackendTls {
        client: Some(pki.client.clone()),
        verify: Some(VerifyBackend { ca: vec![ca.to_vec()], depth: 1 }),
        name: Some(name.into()),
        server_name: true,
        ..BackendTls::default()
    };
    let good = Router::start(&rules(tls(settings(&pki.ca, "inner.test")), address));
    let answers = [
        good,
        Router::start(&rules(tls(settings(&pki.ca, "outer.test")), address)),
        Router::start(&rules(tls(settings(&other.ca, "inner.test")), address)),
    ]
    .map(get_from);
    let mut statuses = Vec::new();
    for answer in answers {
        let answer = answer.await;
        if answer.status == 200 {
            let seen = answer.header("x-seen").unwrap();
            assert!(seen.ends_with("sni=Some(\"inner.test\") client=true alpn=None"), "{seen}");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 502, 502], "the wrong name and the wrong authority are refused");
}

/// One request to a router that is there until it is answered.
async fn get_from(router: Router) -> client::Response {
    let http = router.http;
    let answer = tokio::task::spawn_blocking(move || get(http, "a.test", "/")).await.unwrap();
    drop(router);
    answer
}

async fn http2_client(router: &Router) -> SendRequest<ChannelBody> {
    let stream = tokio::net::TcpStream::connect(router.http).await.unwrap();
    client::http2(stream).await
}

/// One call as gRPC makes it: messages both ways while the call goes on, then the client's end, then trailers.
async fn call(client: &mut SendRequest<ChannelBody>, messages: u64) -> (String, u64, http::HeaderMap) {
    let (sender, frames) = mpsc::channel(1);
    let request = http::Request::post("http://a.test/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body(frames))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = response.headers()["x-seen"].to_str().unwrap().to_owned();
    let mut answer = response.into_body();
    let mut received = 0;
    for round in 0..messages {
        let message = Bytes::from(format!("message {round:05}"));
        sender.send(Frame::data(message.clone())).await.unwrap();
        // It comes back before the next one is sent: nothing waits for the end of either body.
        let mut back = Vec::new();
        while back.len() < message.len() {
            back.extend_from_slice(&answer.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(back, message);
        received += back.len() as u64;
    }
    drop(sender);
    let trailers = loop {
        let frame = answer.frame().await.expect("trailers").unwrap();
        if let Ok(trailers) = frame.into_trailers() {
            break trailers;
        }
    };
    (seen, received, trailers)
}

#[tokio::test]
async fn grpc_in_all_directions_with_trailers() {
    let pki = pki("grpc.test", &["h2"]);
    for (secure, expected) in [
        (false, "HTTP/2.0 http://a.test/pkg.Service/Method te=trailers plain"),
        (
            true,
            "HTTP/2.0 https://a.test/pkg.Service/Method te=trailers sni=None client=false alpn=Some(\"h2\")",
        ),
    ] {
        let server = secure.then(|| Arc::clone(&pki.server));
        let address = backend(server, true).await;
        let tls = secure.then(|| Arc::new(BackendTls::default()));
        let router = Router::start(&rules(Upstream { http2: true, tls, ..Upstream::default() }, address));
        let mut client = http2_client(&router).await;
        // Unary, then a stream.
        for messages in [1, 200] {
            let (seen, received, trailers) = call(&mut client, messages).await;
            assert_eq!(seen, expected);
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["x-count"], received.to_string().as_str());
        }
        // Calls at once share a connection.
        let calls = (0..50).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { call(&mut client, 3).await.2["grpc-status"].clone() })
        });
        for status in futures_util::future::join_all(calls).await {
            assert_eq!(status.unwrap(), "0");
        }
        assert_eq!(router.l7.stats().totals.connected, 1, "all calls of one client share a connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_clients_of_grpc_backends_are_told() {
    let address = backend(None, true).await;
    let router = Router::start(&rules(Upstream { http2: true, ..Upstream::default() }, address));
    let answer = get_from(router).await;
    assert_eq!(answer.status, 505);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_passed_through_by_name_and_other_hosts_are_safe() {
    let pki = pki("p.test", &[]);
    let address = backend(Some(Arc::clone(&pki.server)), false).await;
    let refused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut rules = Rules::default()
        .rule("p.test", "/", "one", &[refused, address])
        .rule("none.test", "/", "none", &[])
        .rule("a.test", "/", "two", &[address]);
    for host in ["p.test", "none.test"] {
        let host = rules.0.routes.hosts.get_mut(&HostPattern::Exact(host.into())).unwrap();
        host.passthrough = Some(Arc::clone(&host.paths[0].route));
    }
    let router = Router::start(&rules);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(pki.ca.clone())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusting = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = router.https;
    let ask =
        async |config: Arc<rustls::ClientConfig>, sni: &'static str, host: &str| -> std::io::Result<String> {
            let stream = tokio::net::TcpStream::connect(https).await?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let mut stream = connector.connect(sni.try_into().unwrap(), stream).await?;
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            // How the connection ends afterwards is not asked.
            let _ = stream.read_to_string(&mut answer).await;
            Ok(answer)
        };
    let trusting = Arc::new(trusting);
    let any = super::tls::client_config(rustls::DEFAULT_VERSIONS, &[]);
    for _ in 0..5 {
        // The client sees the backend's own certificate, which it trusts, and the backend sees the name.
        let answer = ask(Arc::clone(&trusting), "p.test", "p.test").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("sni=Some(\"p.test\")"), "{answer}");
    }
    // Other names end here, with our certificate; requests for the name that is passed through are not let in.
    assert!(ask(Arc::clone(&trusting), "a.test", "a.test").await.is_err());
    let answer = ask(Arc::clone(&any), "a.test", "p.test").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    // Nobody to pass it to: the connection closes, and nothing else happens.
    assert!(ask(Arc::clone(&any), "none.test", "none.test").await.is_err());
    assert!(ask(trusting, "p.test", "p.test").await.is_ok());
}
