//! What puts load on a proxy: wrk, h2load, `openssl s_time`, and a WebSocket client of our own. Each tells how many things
//! the proxy did; an error spoils the comparison, so it ends the bench.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, bail, ensure};
use ingress_tests::paths;

use super::proxies::{PATHS, Proxy};
use super::server::PEERS_CORE;
use super::websocket;
use crate::process;

/// The host that every proxy serves with everything.
pub(super) const HOST: &str = "bench.example";

/// A small request, as one piece: sent in several, each would wait for the one before to be acknowledged.
pub(super) fn small_request() -> String {
    format!("GET /small HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// A kind of load.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// Closed loop of `GET`s.
    Get { path: &'static str, connections: u32, tls: bool },
    /// Closed loop of `PUT`s, 1 MiB each.
    Upload { connections: u32 },
    /// The same small answer, from random ones of so many hosts, and random paths.
    Hosts { connections: u32, hosts: usize },
    /// One request a connection.
    NewConnections { connections: u32 },
    /// Handshakes and nothing else, one after the other.
    Handshakes { resumed: bool },
    /// HTTP/2 over TLS.
    Http2 { connections: u32, streams: u32 },
    /// Messages of 100 bytes, there and back.
    WebSocket { connections: usize },
}

impl Load {
    pub(super) const fn get(path: &'static str, connections: u32) -> Self {
        Self::Get { path, connections, tls: false }
    }

    pub(super) const fn tls(path: &'static str, connections: u32) -> Self {
        Self::Get { path, connections, tls: true }
    }

    /// Puts it on a proxy and returns how many requests, handshakes or messages there were.
    pub(super) fn put(self, proxy: &Proxy, duration: Duration) -> Result<u32> {
        let count = match self {
            Self::Get { path, connections, tls } => {
                wrk(&url(proxy, tls, path), connections, duration, &["-H", &format!("Host: {HOST}")])
            }
            Self::Upload { connections } => {
                let script = script("upload", UPLOAD)?;
                wrk(&url(proxy, false, "/upload"), connections, duration, &["-s", &script])
            }
            Self::Hosts { connections, hosts } => {
                let script = script("hosts", &random(hosts))?;
                wrk(&url(proxy, false, "/"), connections, duration, &["-s", &script])
            }
            Self::NewConnections { connections } => {
                let headers = ["-H", "Host: bench.example", "-H", "Connection: close"];
                wrk(&url(proxy, false, "/small"), connections, duration, &headers)
            }
            Self::Handshakes { resumed } => handshakes(proxy.https, resumed, duration),
            Self::Http2 { connections, streams } => http2(proxy, connections, streams, duration),
            Self::WebSocket { connections } => websocket::load(proxy.http, connections, duration),
        };
        count.with_context(|| format!("load on {}", proxy.name))
    }
}

fn url(proxy: &Proxy, tls: bool, path: &str) -> String {
    let (scheme, address) = if tls { ("https", proxy.https) } else { ("http", proxy.http) };
    format!("{scheme}://{address}{path}")
}

/// A command on the core of the peers.
pub(super) fn on_peers_core(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", PEERS_CORE, program]);
    command
}

fn wrk(url: &str, connections: u32, duration: Duration, arguments: &[&str]) -> Result<u32> {
    let mut wrk = on_peers_core("wrk");
    // wrk counts whole seconds.
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{}s", duration.as_secs().max(1))]);
    requests(&process::output(wrk.args(arguments).arg(url))?)
}

fn requests(wrk: &str) -> Result<u32> {
    for bad in ["Socket errors", "Non-2xx"] {
        if let Some(line) = wrk.lines().find(|line| line.contains(bad)) {
            bail!("wrk reports: {}", line.trim());
        }
    }
    count_before(wrk, " requests in ")
}

/// The number before `words` in the first line that has them.
fn count_before(text: &str, words: &str) -> Result<u32> {
    let line = text.lines().find_map(|line| line.trim().split_once(words));
    let count: Option<u32> = line.and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
    let count = count.with_context(|| format!("no count in what the client said:\n{text}"))?;
    ensure!(count > 0, "nothing was answered");
    Ok(count)
}

fn handshakes(address: SocketAddr, resumed: bool, duration: Duration) -> Result<u32> {
    let (kind, version) = if resumed { ("-reuse", "-tls1_2") } else { ("-new", "-tls1_3") };
    let mut client = on_peers_core("openssl");
    client.args(["s_time", kind, version, "-connect", &address.to_string()]);
    client.args(["-time", &duration.as_secs().max(1).to_string()]);
    // `N connections in 2.01s; …` by its own CPU, then the same by the wall clock.
    let said = process::output(&mut client)?;
    count_before(&said, " connections in ")
}

fn http2(proxy: &Proxy, connections: u32, streams: u32, duration: Duration) -> Result<u32> {
    let mut h2load = on_peers_core("h2load");
    h2load.args(["-t1", &format!("-c{connections}"), &format!("-m{streams}")]);
    h2load.args([&format!("-D{}", duration.as_secs().max(1)), "-H", &format!(":authority: {HOST}")]);
    let said = process::output(h2load.arg(url(proxy, true, "/small")))?;
    ensure!(said.contains(" 0 failed, 0 errored, 0 timeout"), "h2load reports failures:\n{said}");
    count_before(&said, " succeeded")
}

/// wrk's Lua: what it sends.
fn script(name: &str, text: &str) -> Result<String> {
    let file: PathBuf = paths::xtask_dir().join("bench").join(name).with_extension("lua");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file.display().to_string())
}

const UPLOAD: &str = "wrk.method = 'PUT'
wrk.headers['Host'] = 'bench.example'
wrk.body = string.rep('x', 1048576)
local n = 0
function request() n = n + 1; return wrk.format(nil, '/upload/' .. (n % 32)) end
";

/// Random hosts and paths; the requests are made before the clock runs.
fn random(hosts: usize) -> String {
    let mut script =
        "local requests = {}\nfunction init()\n math.randomseed(1)\n for i = 1, 20000 do\n".to_owned();
    // Writing to a String cannot fail.
    let _ = writeln!(
        script,
        "  wrk.headers['Host'] = 'host-' .. math.random(0, {}) .. '.example'\n  requests[i] = wrk.format('GET', '/path-' \
         .. math.random(0, {}) .. '/x')",
        hosts - 1,
        PATHS - 1
    );
    script + " end\nend\nlocal n = 0\nfunction request() n = n % 20000 + 1; return requests[n] end\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_clients_say() {
        let good = "Running 2s test\n  1 threads and 64 connections\n  91234 requests in 2.00s, 20MB read\n";
        assert_eq!(requests(good).unwrap(), 91_234);
        for bad in
            ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 7\n"]
        {
            assert!(requests(&format!("{good}{bad}")).is_err());
        }
        assert!(requests("").is_err());
        let s_time = "tttt\n\n512 connections in 0.21s; 2438.10 connections/user sec, bytes read 0\n512 connections in 2 real seconds\n";
        assert_eq!(count_before(s_time, " connections in ").unwrap(), 512);
        let h2load =
            "requests: 900 total, 960 started, 900 done, 900 succeeded, 0 failed, 0 errored, 0 timeout\n";
        assert_eq!(count_before(h2load, " succeeded").unwrap(), 900);
    }
}
