//! The three proxies and the backend, each configured as somebody would who knows it well: one worker, pooled
//! connections to the backend, no buffering of answers to disk, no access log.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use super::server::{PEERS_CORE, PROXY_CORE, Server, free_address};

/// A proxy under load.
pub(super) struct Proxy {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) server: Server,
}

/// The backend: 200 bytes, keep-alive without end.
pub(super) struct Backend {
    address: SocketAddr,
    _server: Server,
}

pub(super) fn backend() -> Result<Backend> {
    let address = free_address()?;
    let body = "x".repeat(200);
    let server = nginx(
        "backend",
        PEERS_CORE,
        address,
        &format!(
            "server {{ listen {address} reuseport; keepalive_requests 1000000000; location / {{ return 200 \"{body}\"; }} }}"
        ),
    )?;
    Ok(Backend { address, _server: server })
}

/// Ours, nginx, HAProxy: in this order.
pub(super) fn all(backend: &Backend) -> Result<[Proxy; 3]> {
    Ok([ours(backend)?, nginx_proxy(backend)?, haproxy(backend)?])
}

fn ours(backend: &Backend) -> Result<Proxy> {
    let (address, admin) = (free_address()?, free_address()?);
    let directory = directory("xdp-ingress")?;
    let manifests = directory.join("manifests");
    fs::create_dir_all(&manifests)?;
    fs::write(manifests.join("bench.yaml"), manifest(backend.address))?;
    let [source, state, address_text, admin] = [
        format!("dir:{}", manifests.display()),
        directory.display().to_string(),
        address.to_string(),
        admin.to_string(),
    ];
    let daemon = paths::daemon().display().to_string();
    let server = Server::start(
        "xdp-ingress",
        PROXY_CORE,
        address,
        &[
            &daemon,
            "run",
            "--l4",
            "off",
            "--workers",
            "1",
            "--source",
            &source,
            "--state-dir",
            &state,
            "--http",
            &address_text,
            "--admin",
            &admin,
            "--node-name",
            "bench",
            "--log",
            "warn",
        ],
    )?;
    Ok(Proxy { name: "xdp-ingress", address, server })
}

fn manifest(backend: SocketAddr) -> String {
    let (ip, port) = (backend.ip(), backend.port());
    format!(
        "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: xdp}}
spec: {{controller: xdp-ingress.io/controller}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: bench}}
spec:
  ingressClassName: xdp
  rules:
  - host: bench.example
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: bench, port: {{number: 80}}}}}}}}]}}
  - host: other.example
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: bench, port: {{number: 80}}}}}}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: bench}}
spec: {{ports: [{{name: http, port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: bench, labels: {{kubernetes.io/service-name: bench}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [\"{ip}\"], conditions: {{ready: true}}}}]
"
    )
}

fn nginx_proxy(backend: &Backend) -> Result<Proxy> {
    let address = free_address()?;
    let upstream = backend.address;
    let server = |host: &str, listen: &str| {
        format!(
            "server {{ listen {address}{listen}; server_name {host}; keepalive_requests 1000000000;
               location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_buffering off;
                 proxy_buffer_size 8k; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
                 proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr;
                 proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
                 proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Request-ID $request_id; }} }}\n"
        )
    };
    let http = format!(
        "upstream backend {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}\n{}{}",
        server("bench.example", " reuseport"),
        server("other.example", "")
    );
    Ok(Proxy { name: "nginx", address, server: nginx("nginx", PROXY_CORE, address, &http)? })
}

fn nginx(name: &'static str, core: &str, address: SocketAddr, http: &str) -> Result<Server> {
    let directory = directory(name)?;
    let configuration = directory.join("nginx.conf");
    // Without its master process, nginx is one process, whose CPU time is the whole of it.
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {pid}; error_log {log} warn;
         events {{ worker_connections 4096; multi_accept on; }}
         http {{ access_log off; tcp_nodelay on; keepalive_timeout 600s;\n{http}}}\n",
        pid = directory.join("pid").display(),
        log = directory.join("error.log").display(),
    );
    fs::write(&configuration, text).with_context(|| format!("cannot write {}", configuration.display()))?;
    let [configuration, prefix] = [&configuration, &directory].map(|path| path.display().to_string());
    let program = program("nginx")?;
    Server::start(name, core, address, &[&program, "-c", &configuration, "-p", &prefix])
}

fn haproxy(backend: &Backend) -> Result<Proxy> {
    let address = free_address()?;
    let upstream = backend.address;
    let configuration = directory("haproxy")?.join("haproxy.cfg");
    // What `option forwardfor` and the three headers below do is the same work that the others do.
    let text = format!(
        "global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend in
  bind {address}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Request-ID %[uuid()]
  use_backend small if {{ req.hdr(host),lower -m str bench.example }}
  use_backend small if {{ req.hdr(host),lower -m str other.example }}
backend small
  server one {upstream} pool-max-conn 1024 pool-purge-delay 600s
"
    );
    fs::write(&configuration, text).with_context(|| format!("cannot write {}", configuration.display()))?;
    let configuration = configuration.display().to_string();
    let program = program("haproxy")?;
    let server = Server::start("haproxy", PROXY_CORE, address, &[&program, "-db", "-f", &configuration])?;
    Ok(Proxy { name: "HAProxy", address, server })
}

fn directory(name: &str) -> Result<std::path::PathBuf> {
    let directory = paths::xtask_dir().join("bench").join(name);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

fn program(name: &str) -> Result<String> {
    let path =
        paths::program(name).with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))?;
    Ok(Path::new(&path).display().to_string())
}
