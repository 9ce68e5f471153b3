//! Load during changes: ten times a second a host appears or goes. Ours sees the manifest; nginx and HAProxy reload, as
//! their ingress controllers make them do. What the reloads lost is printed; ours may lose nothing.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::load::{HOST, on_peers_core};
use super::proxies::{self, Backend, Peers, Proxy};
use super::{ROUNDS, Row, TARGET, UNIT, beside, median, order};
use crate::{process, report};

pub(super) const NAME: &str = "200 B, 64 connections, 10 changes/s";
const EVERY: Duration = Duration::from_millis(100);
const SECONDS: u64 = 2;

pub(super) fn rows(backend: &Backend) -> Result<Vec<Row>> {
    let step = report::Step::start(NAME);
    let proxies = proxies::all(backend, Peers::Reloading)?;
    let mut costs = [const { Vec::new() }; 3];
    let mut lost = [0.0; 3];
    for round in 0..ROUNDS {
        for index in order(round) {
            let proxy = &proxies[index];
            step.progress(&format!("round {}: {}", round + 1, proxy.name));
            let before = proxy.server.cpu()?;
            let (answered, failed) = load(proxy).with_context(|| format!("load on {}", proxy.name))?;
            // Workers that a reload sent away live until their connections are closed.
            thread::sleep(Duration::from_millis(200));
            let spent = proxy.server.cpu()?.saturating_sub(before);
            costs[index].push(spent.as_secs_f64() * 1e6 / answered);
            lost[index] += failed;
        }
    }
    step.done();
    let [ours, nginx, haproxy] = lost;
    report::note(&format!("requests lost in the changes: ours {ours}, nginx {nginx}, HAProxy {haproxy}"));
    ensure!(ours == 0.0, "{ours} requests were lost in changes");
    Ok(beside(NAME, costs.map(|mut costs| median(&mut costs)), UNIT, Some(TARGET)).into())
}

/// Requests that were answered, and those that were not.
fn load(proxy: &Proxy) -> Result<(f64, f64)> {
    let mut wrk = on_peers_core("wrk");
    wrk.args(["-t1", "-c64", &format!("-d{SECONDS}s"), "-H", &format!("Host: {HOST}")]);
    wrk.arg(format!("http://{}/small", proxy.http));
    let client = thread::spawn(move || process::output(&mut wrk));
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let mut change = 0;
    while Instant::now() < end {
        proxy.change(change)?;
        change += 1;
        thread::sleep(EVERY);
    }
    let said = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    let line = |words: &str| said.lines().find_map(|line| line.trim().split_once(words));
    let answered = line(" requests in ").and_then(|(count, _)| count.parse().ok()).context("no count")?;
    // `Socket errors: connect 0, read 3, write 0, timeout 0`
    let errors = line("Socket errors: ").map_or(0.0, |(_, counts)| {
        counts.split([' ', ',']).filter_map(|word| word.parse::<f64>().ok()).sum()
    });
    let refused = line("Non-2xx or 3xx responses: ").and_then(|(_, count)| count.parse().ok()).unwrap_or(0.0);
    Ok((answered, errors + refused))
}
