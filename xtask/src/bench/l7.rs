//! `bench l7`: CPU seconds of the proxy per million small keep-alive requests, ours beside nginx and HAProxy. All get
//! the same load (wrk) and the same backend (an nginx that answers 200 bytes), interleaved in one run, on 127.0.0.1:
//! client and backend on one core, the proxy alone on another. Each does a reverse proxy's whole work: routing by host,
//! `X-Forwarded-*`, pooled connections to the backend; nobody writes an access log.

mod proxies;
mod server;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Row;
use crate::{process, report};
use proxies::Proxy;

/// Measured rounds per proxy and number of connections; the order turns round each time.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const CONNECTIONS: [u32; 3] = [4, 64, 256];
/// What issue after issue aims at: below the better of the two.
const TARGET: f64 = 0.9;
const UNIT: &str = "CPU-s per million requests";

pub(super) fn rows() -> Result<Vec<Row>> {
    let backend = proxies::backend()?;
    let proxies = proxies::all(&backend)?;
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let step =
            report::Step::start(format!("200-byte answers, {connections} connections, {ROUNDS} rounds"));
        let mut costs = vec![Vec::new(); proxies.len()];
        for proxy in &proxies {
            load(proxy, connections, Duration::from_millis(500))?; // fills the pools, warms the caches
        }
        for round in 0..ROUNDS {
            let mut order: Vec<usize> = (0..proxies.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                step.progress(&format!("round {}: {}", round + 1, proxies[index].name));
                costs[index].push(cost(&proxies[index], connections)?);
            }
        }
        step.done();
        let [ours, nginx, haproxy] = [0, 1, 2].map(|index| median(&mut costs[index]));
        let name = |peer: &str| format!("small keep-alive, {connections} connections, vs {peer}");
        rows.push(Row::new(&name("nginx"), ours, nginx, UNIT, None));
        rows.push(Row::new(&name("HAProxy"), ours, haproxy, UNIT, None));
        rows.push(Row::new(&name("the better"), ours, nginx.min(haproxy), UNIT, Some(TARGET)));
    }
    Ok(rows)
}

/// CPU seconds per million requests in one round.
fn cost(proxy: &Proxy, connections: u32) -> Result<f64> {
    let before = proxy.server.cpu()?;
    let requests = load(proxy, connections, ROUND)?;
    let spent = proxy.server.cpu()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / f64::from(requests))
}

/// Puts load on a proxy and returns how many requests it answered. Any error spoils the comparison, so it is one.
fn load(proxy: &Proxy, connections: u32, duration: Duration) -> Result<u32> {
    // wrk counts whole seconds.
    let seconds = duration.as_secs().max(1);
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", server::PEERS_CORE, "wrk", "-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    wrk.args(["-H", "Host: bench.example", &format!("http://{}/small", proxy.address)]);
    let said = process::output(&mut wrk)?;
    requests(&said).with_context(|| format!("load on {}", proxy.name))
}

fn requests(wrk: &str) -> Result<u32> {
    for bad in ["Socket errors", "Non-2xx"] {
        if let Some(line) = wrk.lines().find(|line| line.contains(bad)) {
            bail!("wrk reports: {}", line.trim());
        }
    }
    let count = wrk
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok())
        .with_context(|| format!("wrk says nothing of requests:\n{wrk}"))?;
    ensure!(count > 0, "not one request was answered");
    Ok(count)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_says() {
        let good = "Running 2s test\n  1 threads and 64 connections\n  91234 requests in 2.00s, 20MB read\n";
        assert_eq!(requests(good).unwrap(), 91_234);
        for bad in
            ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 7\n"]
        {
            assert!(requests(&format!("{good}{bad}")).is_err());
        }
        assert!(requests("").is_err());
    }

    #[test]
    fn medians() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
