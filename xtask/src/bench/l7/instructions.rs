//! Instructions in user space for each small keep-alive request, counted by cachegrind: no clock, so no noise, and a
//! budget can be kept. The difference of a long and a short run leaves out what starting costs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::tls::Authority;
use ingress_tests::paths;
use rustix::process::{Pid, Signal, kill_process};

use super::Row;
use super::load::{HOST, small_request};
use super::ours::Ours;
use super::proxies::Backend;
use crate::report;

pub(super) const NAME: &str = "200 B, keep-alive, instructions per request";
/// What a request may cost: parsing, routing, both heads, the access log's line, and tokio around it.
const BUDGET: f64 = 16_000.0;
const CONNECTIONS: usize = 16;
const ROUNDS: [usize; 2] = [100, 1_600];
/// Under valgrind everything is fifty times slower.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn rows(backend: &Backend) -> Result<Vec<Row>> {
    let step = report::Step::start(NAME);
    let [short, long] = ROUNDS.map(|rounds| count(backend, rounds));
    let requests = CONNECTIONS * (ROUNDS[1] - ROUNDS[0]);
    let each = (long? - short?) / requests as f64;
    step.done();
    Ok(vec![Row::new(NAME, each, BUDGET, "instructions", Some(1.0))])
}

/// Instructions of the whole run of a daemon that answers so many rounds.
fn count(backend: &Backend, rounds: usize) -> Result<f64> {
    let ours = Ours::prepare("instructions", backend, &Authority::new()?.issue(&[HOST])?, 0)?;
    let log = paths::xtask_dir().join("bench/cachegrind.log");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .args(&ours.command);
    let mut daemon = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()
        .context("cannot run valgrind")?;
    let asked = ask(ours.http, rounds);
    if let Some(pid) = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)?;
    }
    daemon.wait()?;
    asked?;
    // `==123== I   refs:      123,456,789`
    let said = fs::read_to_string(&log)?;
    let total = said.lines().find_map(|line| line.split_once("refs: "));
    total
        .and_then(|(_, count)| count.trim().replace(',', "").parse().ok())
        .with_context(|| format!("no count in {}", log.display()))
}

/// Each connection asks once a round.
fn ask(address: SocketAddr, rounds: usize) -> Result<()> {
    let request = small_request();
    let deadline = Instant::now() + PATIENCE;
    while !serves(address, &request) {
        ensure!(Instant::now() < deadline, "the daemon does not answer under valgrind");
        thread::sleep(Duration::from_millis(100));
    }
    let mut streams: Vec<_> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    let mut answer = [0; 4096];
    for _ in 0..rounds {
        for stream in &mut streams {
            stream.write_all(request.as_bytes())?;
        }
        for stream in &mut streams {
            stream.set_read_timeout(Some(PATIENCE))?;
            let count = stream.read(&mut answer)?;
            ensure!(
                answer[..count].starts_with(b"HTTP/1.1 200 "),
                "it answered {:?}",
                String::from_utf8_lossy(&answer[..count])
            );
        }
    }
    Ok(())
}

/// Whether it has its routes already.
fn serves(address: SocketAddr, request: &str) -> bool {
    let mut answer = [0; 4096];
    TcpStream::connect(address)
        .and_then(|mut stream| stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut answer)))
        .is_ok_and(|count| answer[..count].starts_with(b"HTTP/1.1 200 "))
}
