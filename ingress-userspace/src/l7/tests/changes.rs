//! Changes while everything goes on: routes, endpoints and certificates change a thousand times; requests and a thousand
//! open `WebSocket`s notice nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Router, Rules, tls};
use crate::model::HostPattern;

const CHANGES: usize = 1000;
const WEBSOCKETS: usize = 1000;
/// Besides those that change.
const HOSTS: usize = 200;

/// Answers requests with its name, and echoes after an upgrade.
async fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(name, stream));
        }
    });
    address
}

async fn serve(name: &str, stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = head(&mut stream).await?;
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            let answer =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer).await.ok()?;
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await.ok()?;
            return None;
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// A head; `None` at the end of the stream.
async fn head(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// A request on a connection that stays; the body, or what went wrong.
async fn ask(stream: &mut BufReader<TcpStream>, host: &str) -> Result<String, String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let head = head(stream).await.ok_or("the connection was closed")?;
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")).ok_or("no length")?;
    let mut body = vec![0; length.trim().parse::<usize>().map_err(|error| error.to_string())?];
    stream.read_exact(&mut body).await.map_err(|error| error.to_string())?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head);
    }
    String::from_utf8(body).map_err(|error| error.to_string())
}

async fn connect(router: &Router) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(router.http).await.unwrap())
}

async fn echo(socket: &mut BufReader<TcpStream>, message: &[u8]) -> bool {
    let mut back = vec![0; message.len()];
    let echoed = async {
        socket.write_all(message).await?;
        socket.read_exact(&mut back).await
    };
    echoed.await.is_ok() && back == message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_changes_cut_nothing_and_lose_nothing() {
    // Four descriptors a WebSocket: the client's, ours, and the backend's.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let (one, two) = (backend("one").await, backend("two").await);
    let mut base =
        Rules::default().rule("ws.test", "/", "sockets", &[one]).rule("load.test", "/", "load", &[one]);
    for index in 0..HOSTS {
        base = base.rule(&format!("other-{index}.test"), "/", "other", &[two]);
    }
    let router = Arc::new(Router::start(&base));

    let mut sockets = Vec::with_capacity(WEBSOCKETS);
    for _ in 0..WEBSOCKETS {
        let mut socket = connect(&router).await;
        let ask = "GET / HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        socket.write_all(ask.as_bytes()).await.unwrap();
        assert!(head(&mut socket).await.unwrap().starts_with("HTTP/1.1 101"));
        sockets.push(socket);
    }

    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = (0..4).map(|_| {
        let (done, answered, router) = (Arc::clone(&done), Arc::clone(&answered), Arc::clone(&router));
        tokio::spawn(async move {
            let mut stream = connect(&router).await;
            while !done.load(Ordering::Relaxed) {
                ask(&mut stream, "load.test").await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        })
    });
    let load: Vec<_> = load.collect();

    let name = [HostPattern::Exact("load.test".into())];
    let certificates = [tls::certificate("old", &name), tls::certificate("new", &name)];
    let mut client = tls::client_config(&[&rustls::version::TLS13], &[]);
    // A session that is resumed shows the certificate of the first one.
    Arc::make_mut(&mut client).resumption = rustls::client::Resumption::disabled();
    let load_by_tls = {
        let (done, answered, router) = (Arc::clone(&done), Arc::clone(&answered), Arc::clone(&router));
        let client = Arc::clone(&client);
        std::thread::spawn(move || {
            let mut stream = tls::connect(router.https, &client, "load.test");
            while !done.load(Ordering::Relaxed) {
                assert!(tls::ask(&mut stream, "load.test").starts_with("HTTP/1.1 200"));
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut watcher = connect(&router).await;
    let (mut took, mut shown) = (Vec::with_capacity(CHANGES), Vec::with_capacity(CHANGES));
    for change in 0..CHANGES {
        // A host appears and the one before it goes, the endpoints of both Services change, and so does a certificate.
        let (name, endpoint) = if change % 2 == 0 { ("two", two) } else { ("one", one) };
        let host = format!("new-{change}.test");
        let rules = base
            .clone()
            .rule(&host, "/", "new", &[endpoint])
            .rule("load.test", "/", "load", &[one, two][..=change % 2])
            .certificate(Arc::clone(&certificates[change % 2]));
        let since = Instant::now();
        router.l7.publish(&rules.0);
        assert_eq!(ask(&mut watcher, &host).await.as_deref(), Ok(name), "change {change} is live at once");
        took.push(since.elapsed());
        let certificate =
            tokio::task::block_in_place(|| tls::shown(&tls::connect(router.https, &client, "load.test")));
        shown.push(since.elapsed());
        assert_eq!(certificate, certificates[change % 2].chain[0], "the certificate of change {change}");
        if change > 0 {
            let gone = ask(&mut watcher, &format!("new-{}.test", change - 1)).await;
            assert!(gone.is_err_and(|head| head.starts_with("HTTP/1.1 404")));
        }
    }
    done.store(true, Ordering::Relaxed);
    for load in load {
        load.await.unwrap().expect("no request is lost");
    }
    load_by_tls.join().expect("a connection outlives a thousand certificates");
    let mut cut = 0;
    for (index, socket) in sockets.iter_mut().enumerate() {
        let message = format!("still there {index}");
        let echoed = tokio::time::timeout(Duration::from_mins(1), echo(socket, message.as_bytes())).await;
        cut += usize::from(echoed != Ok(true));
    }
    took.sort_unstable();
    shown.sort_unstable();
    println!(
        "{CHANGES} changes of a route, of endpoints and of a certificate: {} requests beside them, 0 lost; {cut} of {WEBSOCKETS} \
         WebSockets cut; first answer after {:?} (median), {:?} (p99), first handshake after {:?} (median), {:?} (p99)",
        answered.load(Ordering::Relaxed),
        took[CHANGES / 2],
        took[CHANGES * 99 / 100],
        shown[CHANGES / 2],
        shown[CHANGES * 99 / 100],
    );
    assert_eq!(cut, 0);
    // Far more than it takes, even without optimisation on a starved machine.
    assert!(shown[CHANGES / 2] < Duration::from_secs(1));
    assert!(answered.load(Ordering::Relaxed) > 0);
}
