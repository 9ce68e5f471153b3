//! The backend in every pod: an HTTP/1.1 server that answers with who it is and what it received. It is this very
//! program (xtask, a test binary), started again with `XDP_INGRESS_LAB_ECHO`, so that pods are processes without
//! another binary to build. Deliberately not the product's HTTP code: an instrument must not share its bugs.

use std::{
    env, fmt,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

const ROLE: &str = "XDP_INGRESS_LAB_ECHO";
/// A thread per connection: small stacks, so that some thousands fit.
const STACK: usize = 128 << 10;

/// Does not return in a process started as a pod.
pub(super) fn run_if_asked() {
    let Ok(role) = env::var(ROLE) else { return };
    if let Err(error) = serve(&role) {
        eprintln!("echo: {error:#}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// Makes `command` (which must start this program) the backend `pod` on `node`, listening on `ports`.
pub(crate) fn ask(command: &mut Command, pod: &str, node: &str, ports: &[u16]) {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    command.env(ROLE, format!("{pod} {node} {}", ports.join(" ")));
}

fn serve(role: &str) -> Result<()> {
    let mut words = role.split(' ');
    let (Some(pod), Some(node)) = (words.next(), words.next()) else { bail!("{ROLE}: POD NODE PORT…") };
    let listeners: Vec<TcpListener> = words
        .map(|port| {
            let port: u16 = port.parse()?;
            TcpListener::bind(("::", port))
                .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
                .with_context(|| format!("listening on port {port}"))
        })
        .collect::<Result<_>>()?;
    let identity = Identity { pod: pod.to_owned(), node: node.to_owned() };
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| accept(listener, &identity));
        }
    });
    Ok(())
}

#[derive(Clone)]
struct Identity {
    pod: String,
    node: String,
}

fn accept(listener: &TcpListener, identity: &Identity) {
    for stream in listener.incoming().flatten() {
        let identity = identity.clone();
        // Out of threads: the connection is dropped, and whoever counts sees it.
        let _ = thread::Builder::new().stack_size(STACK).spawn(move || connection(&stream, &identity));
    }
}

/// Serves one connection until the peer closes it.
fn connection(stream: &TcpStream, identity: &Identity) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let peer = stream.peer_addr().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let request = read_request(&mut reader)?;
        respond(stream, &request, identity, peer).ok()?;
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Some(());
        }
    }
}

struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: usize,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The number after `NAME=` in the query.
    fn query(&self, name: &str) -> Option<u64> {
        let target = self.line.split(' ').nth(1)?;
        let (_, query) = target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let line = read_line(reader).filter(|line| !line.is_empty())?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { line, headers, body: 0 };
    if request.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(read_line(reader)?.split(';').next()?.trim(), 16).ok()?;
            skip(reader, size)?;
            request.body += size;
            // The empty line after the chunk; after the last one trailers may stand before it.
            while !read_line(reader)?.is_empty() {}
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        request.body = length.parse().ok()?;
        skip(reader, request.body)?;
    }
    Some(request)
}

fn read_line(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Some(line)
}

fn skip(reader: &mut BufReader<&TcpStream>, bytes: usize) -> Option<()> {
    let copied = std::io::copy(&mut reader.take(bytes as u64), &mut std::io::sink()).ok()?;
    (copied == bytes as u64).then_some(())
}

/// At most so many bytes of filling in an answer.
const MOST_FILLING: u64 = 16 << 20;

/// `?size=N` begins the answer with N bytes of filling; `?sleep=MS` answers late; `?stream=N` sends the answer in N chunks, 100 ms apart.
fn respond(mut stream: &TcpStream, request: &Request, identity: &Identity, peer: SocketAddr) -> Result<()> {
    if let Some(sleep) = request.query("sleep") {
        thread::sleep(Duration::from_millis(sleep));
    }
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let mut body = format!("pod: {}\nnode: {}\npeer: {peer}\n", identity.pod, identity.node);
    if let Some(size) = request.query("size") {
        body.insert_str(0, &format!("{}\n", "x".repeat(size.min(MOST_FILLING) as usize)));
    }
    write!(body, "request: {}\nbody: {} bytes\n", request.line, request.body)?;
    for (name, value) in &request.headers {
        writeln!(body, "header: {}: {value}", name.to_ascii_lowercase())?;
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
    if let Some(chunks) = request.query("stream") {
        write!(stream, "{head}transfer-encoding: chunked\r\n\r\n")?;
        for _ in 0..chunks {
            write!(stream, "{:x}\r\n{body}\r\n", body.len())?;
            thread::sleep(Duration::from_millis(100));
        }
        write!(stream, "0\r\n\r\n")?;
    } else if request.line.starts_with("HEAD ") {
        write!(stream, "{head}content-length: {}\r\n\r\n", body.len())?;
    } else {
        let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// An answer of the backend, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The pod that answered.
    pub pod: String,
    /// The node that the pod is on.
    pub pod_node: String,
    /// Who sent the request to the pod: the node whose router took it.
    pub peer: IpAddr,
    /// The request line as the pod received it.
    pub request: String,
    /// The header fields as the pod received them; names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Echo {
    /// Reads the (last) answer in `body`.
    pub fn parse(body: &str) -> Result<Self> {
        let field = |name: &str| {
            let line = body.lines().rev().find_map(|line| line.strip_prefix(name));
            line.with_context(|| format!("not an answer of the lab's backend (no `{name}`): {body:?}"))
        };
        let headers = body.lines().filter_map(|line| line.strip_prefix("header: ")?.split_once(": "));
        let peer: SocketAddr = field("peer: ")?.parse().context("peer")?;
        Ok(Self {
            pod: field("pod: ")?.to_owned(),
            pod_node: field("node: ")?.to_owned(),
            peer: peer.ip(),
            request: field("request: ")?.to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        })
    }

    /// The first value of the header field `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} by way of {}", self.pod, self.pod_node, self.peer)
    }
}
