//! Memory of idle connections: clients that asked once and stay. Counted is what more of them cost when as many are
//! there: the first ones fill memory that is free since the start.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::load::small_request;
use super::proxies::{self, Backend, Peers};
use super::{Row, beside};
use crate::report;

pub(super) const NAME: &str = "memory of 10,000 idle connections";
/// At a time, twice: as many as fit below a limit of 20,000 open files.
const CONNECTIONS: usize = 9_000;

/// Fresh proxies: memory that earlier load has touched would hide more of the cost.
pub(super) fn rows(backend: &Backend) -> Result<Vec<Row>> {
    let step = report::Step::start(NAME);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("cannot raise the limit of open files")?;
    let mut used = [0.0; 3];
    for (index, proxy) in proxies::all(backend, Peers::Small)?.iter().enumerate() {
        step.progress(proxy.name);
        let connect = || -> Result<Vec<_>> {
            (0..CONNECTIONS).map(|_| ask(proxy.http)).collect::<Result<_>>().context(proxy.name)
        };
        let first = connect()?;
        let before = proxy.server.memory()?;
        let second = connect()?;
        let each = (proxy.server.memory()? - before) / CONNECTIONS as f64;
        used[index] = each * 10_000.0 / f64::from(1 << 20);
        drop((first, second));
    }
    step.done();
    Ok(beside(NAME, used, "MiB", None).into())
}

/// Asks once; the connection stays open.
fn ask(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(small_request().as_bytes())?;
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer)?;
    ensure!(answer[..count].starts_with(b"HTTP/1.1 200 "), "no answer");
    Ok(stream)
}
