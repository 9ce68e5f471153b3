//! The three proxies and the backend, each configured as somebody would who knows it well: one worker, pooled
//! connections to the backend, no buffering of answers, a buffered access log, splicing where it helps.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ingress_tests::lab::tls::{Authority, Identity};
use ingress_tests::paths;
use rustix::process::Signal;

use super::load::HOST;
use super::ours::Ours;
use super::server::{PEERS_CORE, PROXY_CORE, Server, free_address};
use super::websocket;

/// Hosts beside [`HOST`], `host-N.example`, each with as many paths as [`PATHS`], `/path-N`.
pub(super) const HOSTS: usize = 1000;
/// Paths of each of them.
pub(super) const PATHS: usize = 10;

/// How the proxies are set up. One process is the cheaper way to run for nginx and HAProxy when they need not reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peers {
    Still,
    Reloading,
    /// Without the many hosts: what reading them leaves behind would hide what connections need.
    Small,
}

impl Peers {
    const fn hosts(self) -> usize {
        match self {
            Self::Still | Self::Reloading => HOSTS,
            Self::Small => 0,
        }
    }
}

/// A proxy under load.
pub(super) struct Proxy {
    pub(super) name: &'static str,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) server: Server,
    pub(super) change: Change,
}

/// How a change of its configuration is made.
pub(super) struct Change {
    pub(super) file: PathBuf,
    /// The configuration with a host more; `None`: the host that is always there.
    pub(super) render: Box<dyn Fn(Option<usize>) -> String>,
    /// What tells it to read the file again; ours sees it.
    pub(super) signal: Option<Signal>,
}

impl Proxy {
    /// Adds or removes a host; returns before it is live.
    pub(super) fn change(&self, number: usize) -> Result<()> {
        let text = (self.change.render)(number.is_multiple_of(2).then_some(number));
        // Renamed into place, so that nobody reads half of it.
        let next = self.change.file.with_extension("next");
        fs::write(&next, text).and_then(|()| fs::rename(&next, &self.change.file))?;
        self.change.signal.map_or(Ok(()), |signal| self.server.signal(signal))
    }
}

/// The backend: HTTP by nginx, WebSocket by our own.
pub(super) struct Backend {
    pub(super) http: SocketAddr,
    pub(super) websocket: SocketAddr,
    _server: Server,
}

pub(super) fn backend() -> Result<Backend> {
    let http = free_address()?;
    let body = "x".repeat(200);
    // Memory, if there is any.
    let files = if Path::new("/dev/shm").is_dir() {
        "/dev/shm/xdp-ingress-bench".into()
    } else {
        directory("files")?
    };
    fs::create_dir_all(files.join("upload")).with_context(|| format!("cannot make {}", files.display()))?;
    for (name, size) in [("16k", 16 << 10), ("1m", 1 << 20)] {
        fs::write(files.join(name), vec![b'x'; size])?;
    }
    let root = files.display();
    let text = format!(
        "open_file_cache max=100; sendfile on; client_max_body_size 0; client_body_temp_path {root}/upload;
         server {{ listen {http} reuseport; keepalive_requests 1000000000; root {root};
           location / {{ return 200 \"{body}\"; }}
           location /16k {{ default_type text/plain; }}
           location /1m {{ default_type text/plain; }}
           location /upload/ {{ dav_methods PUT; }} }}"
    );
    let (server, _) = nginx("backend", PEERS_CORE, http, Peers::Still, &text)?;
    Ok(Backend { http, websocket: websocket::serve()?, _server: server })
}

/// Ours, nginx, HAProxy: in this order.
pub(super) fn all(backend: &Backend, peers: Peers) -> Result<[Proxy; 3]> {
    let identity = Authority::new()?.issue(&[HOST])?;
    Ok([
        Ours::prepare("xdp-ingress", backend, &identity, peers.hosts())?.start()?,
        nginx_proxy(backend, &identity, peers)?,
        haproxy(backend, &identity, peers)?,
    ])
}

/// The host that a change brings.
pub(super) fn changed_host(more: Option<usize>) -> String {
    more.map_or_else(|| "change.example".to_owned(), |more| format!("change-{more}.example"))
}

fn nginx_proxy(backend: &Backend, identity: &Identity, peers: Peers) -> Result<Proxy> {
    let (http, https) = (free_address()?, free_address()?);
    let directory = directory("nginx")?;
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    fs::write(&certificate, &identity.certificate)?;
    fs::write(&key, &identity.key)?;
    let (certificate, key) = (certificate.display(), key.display());
    let (upstream, websocket) = (backend.http, backend.websocket);
    let headers =
        "proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;
         proxy_set_header X-Request-ID $request_id;";
    // One buffer for an answer's piece, as large as pays for its size.
    let with_buffer = |kib: u32| {
        format!(
            "proxy_pass http://backend; proxy_buffering off; proxy_request_buffering off; proxy_buffer_size {kib}k;
             proxy_buffers 8 {kib}k; proxy_busy_buffers_size {kib}k; proxy_set_header Connection \"\"; {headers}"
        )
    };
    let (pass, medium, big) = (with_buffer(8), with_buffer(64), with_buffer(256));
    let mut fixed = format!(
        "upstream backend {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}
         server_names_hash_max_size 8192; server_names_hash_bucket_size 128; client_max_body_size 0; sendfile on;
         log_format upstreaminfo '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent '
           '\"$http_referer\" \"$http_user_agent\" $request_length $request_time [$host] [] $upstream_addr '
           '$upstream_response_length $upstream_response_time $upstream_status $request_id';
         access_log {log} upstreaminfo buffer=64k flush=1s;
         ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
         ssl_session_cache shared:SSL:10m; ssl_session_tickets on; ssl_early_data off; ssl_buffer_size 16k;
         server {{ listen {http} reuseport backlog=4096; listen {https} ssl http2 reuseport backlog=4096; server_name {HOST};
           keepalive_requests 1000000000; http2_max_concurrent_streams 512;
           location / {{ {pass} }} location /16k {{ {medium} }} location /1m {{ {big} }} location /upload/ {{ {big} }}
           location /websocket {{ proxy_pass http://{websocket}; proxy_set_header Upgrade $http_upgrade;
             proxy_set_header Connection upgrade; {headers} }} }}\n",
        log = directory.join("access.log").display(),
    );
    for host in 0..peers.hosts() {
        let _ = write!(
            fixed,
            "server {{ listen {http}; server_name host-{host}.example; keepalive_requests 1000000000; "
        );
        for path in 0..PATHS {
            let _ = write!(fixed, "location /path-{path} {{ {pass} }} ");
        }
        fixed += "}\n";
    }
    let render = move |more: Option<usize>| {
        let host = changed_host(more);
        format!("{fixed}server {{ listen {http}; server_name {host}; location / {{ {pass} }} }}\n")
    };
    let (server, file) = nginx("nginx", PROXY_CORE, http, peers, &render(None))?;
    let whole = Box::new(move |more| nginx_configuration("nginx", peers, &render(more)).unwrap_or_default());
    let change = Change { file, render: whole, signal: Some(Signal::HUP) };
    Ok(Proxy { name: "nginx", http, https, server, change })
}

fn nginx_configuration(name: &str, peers: Peers, http: &str) -> Result<String> {
    let directory = directory(name)?;
    let master = if peers == Peers::Reloading { "on" } else { "off" };
    Ok(format!(
        "daemon off; master_process {master}; worker_processes 1; worker_rlimit_nofile 65536; pid {pid}; error_log {log} warn;
         events {{ worker_connections 32768; multi_accept on; }}
         http {{ access_log off; tcp_nodelay on; keepalive_timeout 600s;\n{http}}}\n",
        pid = directory.join("pid").display(),
        log = directory.join("error.log").display(),
    ))
}

/// Starts an nginx; its configuration lies in the file that is returned.
fn nginx(
    name: &'static str,
    core: &str,
    address: SocketAddr,
    peers: Peers,
    http: &str,
) -> Result<(Server, PathBuf)> {
    let directory = directory(name)?;
    let file = directory.join("nginx.conf");
    fs::write(&file, nginx_configuration(name, peers, http)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let [configuration, prefix] = [&file, &directory].map(|path| path.display().to_string());
    let program = program("nginx")?;
    Ok((Server::start(name, core, address, &[&program, "-c", &configuration, "-p", &prefix])?, file))
}

fn haproxy(backend: &Backend, identity: &Identity, peers: Peers) -> Result<Proxy> {
    let (http, https) = (free_address()?, free_address()?);
    let directory = directory("haproxy")?;
    let pem = directory.join("tls.pem");
    fs::write(&pem, format!("{}{}", identity.certificate, identity.key))?;
    // As its ingress controller does it: a map from host and path to the backend's name.
    let map = directory.join("hosts.map");
    let mut entries = String::new();
    for host in 0..peers.hosts() {
        for path in 0..PATHS {
            let _ = writeln!(entries, "host-{host}.example/path-{path}/ small");
        }
    }
    fs::write(&map, entries)?;
    let (upstream, websocket) = (backend.http, backend.websocket);
    let (pem, map) = (pem.display().to_string(), map.display().to_string());
    // What `option forwardfor` and the headers below do is the same work that the others do.
    let render = move |more: Option<usize>| {
        format!(
            "global
  nbthread 1
  no strict-limits
  maxconn 24000
  tune.pipesize 262144
  tune.ssl.default-dh-param 2048
  log stdout len 8192 format raw local0
defaults
  mode http
  log global
  option httplog
  option splice-request
  option splice-response
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
  http-reuse always
frontend in
  bind {http} backlog 4096
  bind {https} ssl crt {pem} alpn h2,http/1.1 backlog 4096
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Request-ID %[uuid()]
  use_backend websocket if {{ req.hdr(host),lower -m str {HOST} }} {{ path_beg /websocket }}
  use_backend small if {{ req.hdr(host),lower -m str {HOST} }}
  use_backend small if {{ req.hdr(host),lower -m str {changed} }}
  use_backend %[base,lower,map_beg({map},small)]
backend small
  server one {upstream} pool-max-conn 1024 pool-purge-delay 600s
backend websocket
  server one {websocket}
",
            changed = changed_host(more)
        )
    };
    let file = directory.join("haproxy.cfg");
    fs::write(&file, render(None)).with_context(|| format!("cannot write {}", file.display()))?;
    let configuration = file.display().to_string();
    let program = program("haproxy")?;
    let mode = if peers == Peers::Reloading { "-W" } else { "-db" };
    let server = Server::start("haproxy", PROXY_CORE, http, &[&program, mode, "-f", &configuration])?;
    let change = Change { file, render: Box::new(render), signal: Some(Signal::USR2) };
    Ok(Proxy { name: "HAProxy", http, https, server, change })
}

pub(super) fn directory(name: &str) -> Result<PathBuf> {
    let directory = paths::xtask_dir().join("bench").join(name);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

fn program(name: &str) -> Result<String> {
    let path =
        paths::program(name).with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))?;
    Ok(path.display().to_string())
}
