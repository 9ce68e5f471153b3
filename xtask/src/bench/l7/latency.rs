//! Latency at a fixed rate, below what any of the three can do: h2load's log of every request.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ingress_tests::paths;

use super::load::{HOST, on_peers_core};
use super::proxies::Proxy;
use super::{ROUNDS, Row, beside, median, order};
use crate::{process, report};

pub(super) const NAME: &str = "latency at 6,400 requests/s";
const CONNECTIONS: u32 = 64;
const RATE_OF_EACH: u32 = 100;
const SECONDS: u32 = 3;
/// Name, and how many of a thousand requests are faster.
const PERCENTILES: [(&str, usize); 3] = [("p50", 500), ("p99", 990), ("p99.9", 999)];

pub(super) fn rows(proxies: &[Proxy; 3]) -> Result<Vec<Row>> {
    let step = report::Step::start(NAME);
    let mut measured = [const { [const { Vec::new() }; PERCENTILES.len()] }; 3];
    for round in 0..ROUNDS {
        for index in order(round) {
            step.progress(&format!("round {}: {}", round + 1, proxies[index].name));
            let latencies = latencies(&proxies[index])?;
            for (values, (_, share)) in measured[index].iter_mut().zip(PERCENTILES) {
                values.push(latencies[(latencies.len() - 1) * share / 1000]);
            }
        }
    }
    step.done();
    let rows = PERCENTILES.iter().enumerate().flat_map(|(at, (percentile, _))| {
        let values = [0, 1, 2].map(|index: usize| median(&mut measured[index][at].clone()));
        beside(&format!("{NAME}, {percentile}"), values, "us", None)
    });
    Ok(rows.collect())
}

/// Microseconds of each request, sorted.
fn latencies(proxy: &Proxy) -> Result<Vec<f64>> {
    let log = paths::xtask_dir().join("bench/latency.log");
    // h2load appends.
    drop(fs::remove_file(&log));
    let mut h2load = on_peers_core("h2load");
    h2load.args(["--h1", "-t1", &format!("-c{CONNECTIONS}"), &format!("--rps={RATE_OF_EACH}")]);
    h2load.args([
        "-n",
        &(CONNECTIONS * RATE_OF_EACH * SECONDS).to_string(),
        "-H",
        &format!(":authority: {HOST}"),
    ]);
    h2load.arg(format!("--log-file={}", log.display())).arg(format!("http://{}/small", proxy.http));
    process::output(&mut h2load)?;
    let text = fs::read_to_string(&log).with_context(|| format!("h2load wrote no {}", log.display()))?;
    // Start (µs since the epoch), status, duration (µs).
    let mut latencies = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        ensure!(fields.len() == 3 && fields[1] == "200", "{}: {line}", proxy.name);
        latencies.push(fields[2].parse().context("h2load's log")?);
    }
    ensure!(!latencies.is_empty(), "not one request was logged");
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}
