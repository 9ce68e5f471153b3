//! The same requests to Debian's nginx, configured as ingress-nginx would configure it, and to us. `tests/nginx/` has the
//! Ingresses, the configuration that was written for them by hand, and the table of requests with what both must say. Where
//! we differ on purpose, a line says so and why.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use xdp_ingress::model::{Cluster, Endpoint, Snapshot};
use xdp_ingress::source::read_once;
use xdp_ingress::translate::{Settings, translate};

use super::harness::{Backend, Client, Message, PATIENCE, Peer, Proxy};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nginx").join(name)
}

/// Says what it was asked.
fn echo(mut peer: Peer) {
    while let Some(request) = peer.message() {
        let field = |name| request.header(name).unwrap_or("-");
        let target = request.head.split(' ').nth(1).unwrap();
        let text = format!("{target} {} {}", field("host"), field("x-forwarded-prefix"));
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
    }
}

fn snapshot(backend: SocketAddr) -> Snapshot {
    let objects = read_once(&[data("ingresses.yaml")]).unwrap();
    let (mut snapshot, _) = translate(&objects, &Settings::default());
    for cluster in snapshot.clusters.values_mut() {
        let endpoints = vec![Endpoint { address: backend, node: None }];
        *cluster = Arc::new(Cluster { id: cluster.id.clone(), endpoints });
    }
    snapshot
}

struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` if it is not installed.
fn nginx(backend: SocketAddr) -> Option<Nginx> {
    for _ in 0..5 {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(data("nginx.conf")).unwrap();
        let text = text
            .replace("@listen@", &address.to_string())
            .replace("@backend@", &backend.to_string())
            .replace("@folder@", &folder.path().display().to_string());
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("cannot start nginx: {error}"),
        };
        let mut nginx = Nginx { child, address, _folder: folder };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if TcpStream::connect(nginx.address).is_ok() {
                return Some(nginx);
            }
            // Somebody else took the port in the meantime, or the configuration is wrong.
            if nginx.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    panic!("nginx does not start with tests/nginx/nginx.conf");
}

/// `METHOD HOST TARGET [BODY]`: the last is the length of a body.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut words = request.split(' ');
    let (method, host, target) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let length: usize = words.next().map_or(0, |length| length.parse().unwrap());
    let mut client = Client::connect(address);
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{}",
        "x".repeat(length)
    ));
    let answer: Message = client.answer();
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    match (answer.status(), answer.header("location")) {
        (status, Some(location)) => format!("{status} {location}"),
        (200, None) => format!("200 {body}"),
        (status, None) => status.to_string(),
    }
}

#[test]
fn a_hundred_requests_are_answered_as_nginx_answers_them() {
    let backend = Backend::start(echo);
    let proxy = Proxy::serving(&snapshot(backend.address));
    let nginx = nginx(backend.address);
    if nginx.is_none() {
        println!("nginx is not installed (`cargo xtask setup`): what it says is taken from the table");
    }
    let table = std::fs::read_to_string(data("requests.txt")).unwrap();
    let (mut wrong, mut requests, mut different) = (String::new(), 0, 0);
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (request, expected) = line.split_once(" => ").unwrap();
        // `nginx's answer | ours`
        let (theirs, ours) = expected.split_once(" | ").unwrap_or((expected, expected));
        requests += 1;
        different += usize::from(theirs != ours);
        if let Some(nginx) = &nginx {
            let said = ask(nginx.address, request);
            if said != theirs {
                writeln!(wrong, "nginx: {request} => {said}").unwrap();
            }
        }
        let said = ask(proxy.address, request);
        if said != ours {
            writeln!(wrong, "ours:  {request} => {said}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "not as the table says:\n{wrong}");
    assert!(requests >= 100, "{requests} requests only");
    println!("{requests} requests, {different} answered in another way on purpose");
}
