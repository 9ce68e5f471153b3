//! Memory of idle connections: 10,000 clients that asked once and stay.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::load::HOST;
use super::proxies::{self, Backend, Peers};
use super::{Row, beside};
use crate::report;

pub(super) const NAME: &str = "memory of 10,000 idle connections";
const CONNECTIONS: usize = 10_000;

/// Fresh proxies: memory that earlier load has touched would hide the cost.
pub(super) fn rows(backend: &Backend) -> Result<Vec<Row>> {
    let step = report::Step::start(NAME);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("cannot raise the limit of open files")?;
    let mut used = [0.0; 3];
    for (index, proxy) in proxies::all(backend, Peers::Still)?.iter().enumerate() {
        step.progress(proxy.name);
        let before = proxy.server.memory()?;
        let connections: Vec<_> =
            (0..CONNECTIONS).map(|_| ask(proxy.http)).collect::<Result<_>>().context(proxy.name)?;
        used[index] = (proxy.server.memory()? - before) / f64::from(1 << 20);
        drop(connections);
    }
    step.done();
    Ok(beside(NAME, used, "MiB", None).into())
}

/// Asks once; the connection stays open.
fn ask(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /small HTTP/1.1\r\nHost: {HOST}\r\n\r\n")?;
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer)?;
    ensure!(answer[..count].starts_with(b"HTTP/1.1 200 "), "no answer");
    Ok(stream)
}
