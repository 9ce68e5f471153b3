//! `bench l7`: CPU seconds of the proxy per million requests (or messages, or handshakes), ours beside nginx and HAProxy.
//! All get the same load and the same backend, interleaved in one run (A B C, C B A, …), on 127.0.0.1: client and backend
//! on one core, the proxy alone on another. Each does a reverse proxy's whole work: routing by host and path,
//! `X-Forwarded-*`, pooled connections to the backend, an access log. Ours is the daemon as it ships (profile `dist`).
//!
//! Smaller is better in every row. The reference is the better one of the two peers in that very row; the rows beside
//! it, without a target, name each of them. Where a row misses its target, a profile of both is told.

mod changes;
mod idle;
mod instructions;
mod latency;
mod load;
mod ours;
mod profile;
mod proxies;
mod routing;
mod server;
mod websocket;

use std::time::Duration;

use anyhow::Result;

use super::{Row, Rows};
use crate::report;
use load::Load;
use proxies::{Peers, Proxy};

/// Measured rounds per proxy and workload; the order turns round each time.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const UNIT: &str = "CPU-s per million";

/// What issue after issue aims at: below the better of the two, and further below where more can be won.
const TARGET: f64 = 0.9;
const HIGH_TARGET: f64 = 0.8;

/// One row of the table.
struct Workload {
    name: &'static str,
    load: Load,
    target: f64,
}

const fn row(name: &'static str, load: Load, target: f64) -> Workload {
    Workload { name, load, target }
}

const WORKLOADS: [Workload; 15] = [
    row("200 B, keep-alive, 4 connections", Load::get("/small", 4), TARGET),
    row("200 B, keep-alive, 64 connections", Load::get("/small", 64), TARGET),
    row("200 B, keep-alive, 256 connections", Load::get("/small", 256), TARGET),
    row("16 KiB, keep-alive, 64 connections", Load::get("/16k", 64), TARGET),
    row("1 MiB, keep-alive, 16 connections", Load::get("/1m", 16), TARGET),
    row("1 MiB uploads, 16 connections", Load::Upload { connections: 16 }, TARGET),
    row(
        "1,000 hosts x 10 paths, 64 connections",
        Load::Hosts { connections: 64, hosts: proxies::HOSTS },
        TARGET,
    ),
    row("new connection per request, 64 at once", Load::NewConnections { connections: 64 }, HIGH_TARGET),
    row("TLS, 200 B, keep-alive, 64 connections", Load::tls("/small", 64), HIGH_TARGET),
    row("TLS, 16 KiB, keep-alive, 64 connections", Load::tls("/16k", 64), HIGH_TARGET),
    row("TLS, 1 MiB, keep-alive, 16 connections", Load::tls("/1m", 16), HIGH_TARGET),
    row("TLS 1.3 handshakes, full", Load::Handshakes { resumed: false }, HIGH_TARGET),
    row("TLS 1.2 handshakes, resumed", Load::Handshakes { resumed: true }, HIGH_TARGET),
    row("HTTP/2, 200 B, 8 connections x 32 streams", Load::Http2 { connections: 8, streams: 32 }, TARGET),
    row("WebSocket echo, 64 connections", Load::WebSocket { connections: 64 }, TARGET),
];

/// Measures all whose name contains `only`.
pub(super) fn rows(only: Option<&str>, rows: &mut Rows) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let backend = proxies::backend()?;
    let proxies = proxies::all(&backend, Peers::Still)?;
    for Workload { name, load, target } in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
        match costs(name, *load, &proxies) {
            Ok(costs) => {
                rows.add(name, Ok(beside(name, costs, UNIT, Some(*target))));
                explain_miss(*load, *target, costs, &proxies);
            }
            Err(error) => rows.add(name, Err::<[Row; 3], _>(error)),
        }
    }
    if wanted(latency::NAME) {
        rows.add(latency::NAME, latency::rows(&proxies));
    }
    drop(proxies);
    if wanted(idle::NAME) {
        rows.add(idle::NAME, idle::rows(&backend));
    }
    if wanted(instructions::NAME) {
        rows.add(instructions::NAME, instructions::rows(&backend));
    }
    if wanted(routing::NAME) {
        rows.add(routing::NAME, routing::rows(&backend));
    }
    if wanted(changes::NAME) {
        rows.add(changes::NAME, changes::rows(&backend));
    }
    Ok(())
}

/// The proxies in the order of a round: it turns round each time, so that none is always the first.
fn order(round: usize) -> [usize; 3] {
    if round.is_multiple_of(2) { [0, 1, 2] } else { [2, 1, 0] }
}

/// The median cost of each proxy.
fn costs(name: &str, load: Load, proxies: &[Proxy; 3]) -> Result<[f64; 3]> {
    let step = report::Step::start(name);
    let mut costs = [const { Vec::new() }; 3];
    for proxy in proxies {
        load.put(proxy, Duration::from_secs(1))?; // fills the pools, warms the caches
    }
    for round in 0..ROUNDS {
        for index in order(round) {
            let proxy = &proxies[index];
            step.progress(&format!("round {}: {}", round + 1, proxy.name));
            costs[index].push(cost(load, proxy)?);
        }
    }
    step.done();
    Ok(costs.map(|mut costs| median(&mut costs)))
}

/// What a proxy spends in one round, in `UNIT`.
fn cost(load: Load, proxy: &Proxy) -> Result<f64> {
    let before = proxy.server.cpu()?;
    let done = load.put(proxy, ROUND)?;
    let spent = proxy.server.cpu()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / f64::from(done))
}

/// Tells where the time goes if the target was missed.
fn explain_miss(load: Load, target: f64, [ours, nginx, haproxy]: [f64; 3], proxies: &[Proxy; 3]) {
    if ours > target * nginx.min(haproxy) {
        let better = if nginx < haproxy { (&proxies[1], nginx) } else { (&proxies[2], haproxy) };
        profile::tell(load, [(&proxies[0], ours), better]);
    }
}

/// Ours beside the better of the two, and beside each.
fn beside(name: &str, [ours, nginx, haproxy]: [f64; 3], unit: &str, target: Option<f64>) -> [Row; 3] {
    let row = |peer: &str, reference, target| {
        Row::new(&format!("{name}, vs {peer}"), ours, reference, unit, target)
    };
    [row("the better", nginx.min(haproxy), target), row("nginx", nginx, None), row("HAProxy", haproxy, None)]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_better_of_the_two_is_the_reference() {
        let [better, nginx, haproxy] = beside("x", [4.0, 8.0, 5.0], UNIT, Some(0.9));
        assert_eq!((better.reference, better.ok), (5.0, Some(true)));
        assert_eq!((nginx.ratio, haproxy.ratio), (0.5, 0.8));
        assert_eq!((nginx.ok, haproxy.ok), (None, None));
    }
}
