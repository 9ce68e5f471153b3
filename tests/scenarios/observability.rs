//! What operators' own tools make of us: Prometheus scrapes a daemon as it would in a cluster, and h2spec asks the router
//! about every requirement of HTTP/2.

use std::{
    fs,
    net::IpAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::{
    lab::{
        Host, Lab,
        http::{self, Target},
        load::{self, wait_for},
    },
    paths,
};
use libtest_mimic::Trial;

use super::scenario;

/// On a starved machine everything takes long, and nothing here is about time.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("observability::prometheus_reads_native_histograms", prometheus_reads_native_histograms),
        scenario("observability::h2spec_finds_what_is_known", h2spec_finds_what_is_known),
    ]
}

/// Debian's Prometheus, told to take native histograms, answers a quantile without any `le` label.
fn prometheus_reads_native_histograms() -> Result<()> {
    const REQUESTS: usize = 40;
    let lab = Lab::builder("scrape").nodes(1).pods_per_node(2).ipv6(false).build()?;
    lab.serve_examples()?;
    let (client, node) = (lab.client(0), lab.node(0));
    let target = Target::new(lab.vips()[0], "app.test.com", "/");
    client.run(|| {
        for _ in 0..REQUESTS {
            let answer = http::get(&target, PATIENCE).context("a request")?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        Ok(())
    })?;

    let config = lab.dir().join("prometheus.yml");
    fs::write(
        &config,
        "scrape_configs:\n  - job_name: xdp-ingress\n    scrape_interval: 1s\n    static_configs:\n      \
         - targets: [\"127.0.0.1:9901\"]\n",
    )?;
    let mut prometheus = node.host().command("prometheus");
    prometheus
        .arg("--enable-feature=native-histograms")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", lab.dir().join("prometheus").display()))
        .arg("--web.listen-address=127.0.0.1:9090");
    let running = node.host().spawn("prometheus", prometheus)?;
    let ingress = "{ingress=\"default/two-hosts\"}";
    let count = format!("histogram_count(xdp_ingress_request_duration_seconds{ingress})");
    let scraped = wait_for("Prometheus has scraped the requests", PATIENCE, || {
        Ok(ask(node.host(), &count).is_ok_and(|value| value >= REQUESTS as f64))
    });
    scraped.with_context(|| {
        format!("{:?}; Prometheus says: {}", ask(node.host(), &count), running.log_tail())
    })?;

    // All that ever was: the rate of a counter that only grew needs two scrapes with requests between them.
    let median =
        ask(node.host(), &format!("histogram_quantile(0.5, xdp_ingress_request_duration_seconds{ingress})"))?;
    let sum = ask(node.host(), &format!("histogram_sum(xdp_ingress_request_duration_seconds{ingress})"))?;
    let answered = ask(node.host(), "sum(xdp_ingress_requests_total{ingress=\"default/two-hosts\"})")?;
    let up = ask(node.host(), "up{job=\"xdp-ingress\"}")?;
    println!("Prometheus: {answered} requests, {sum:.3} s in all, the median {median:.6} s");
    ensure!(up >= 1.0 && answered >= REQUESTS as f64, "up {up}, {answered} requests");
    ensure!(median > 0.0 && median <= sum, "median {median}, sum {sum}");
    // The text format is what everybody else gets; it has no native histograms, but the classic buckets.
    ensure!(
        node.metrics()?.contains("xdp_ingress_request_duration_seconds_bucket{le="),
        "no classic buckets"
    );
    Ok(())
}

/// The one value that a query gives, asked of Prometheus on `host`.
fn ask(host: &Host, query: &str) -> Result<f64> {
    let url = "http://127.0.0.1:9090/api/v1/query";
    let output = host.output(
        "curl",
        &["-sS", "--max-time", "10", "-G", url, "--data-urlencode", &format!("query={query}")],
    )?;
    let answer: serde_json::Value = serde_json::from_str(&output).with_context(|| output.clone())?;
    let value =
        answer["data"]["result"][0]["value"][1].as_str().with_context(|| format!("{query}: {answer}"))?;
    Ok(value.parse()?)
}

/// What h2spec holds against us where both protocols share a port, and why that is right: what does not begin with the
/// preface of HTTP/2 is HTTP/1.1 there, and is told with HTTP/1.1's 400 before the connection ends.
const KNOWN: &str = "Sends invalid connection preface";

/// Every case of h2spec, the strict ones too, over TLS and by prior knowledge.
fn h2spec_finds_what_is_known() -> Result<()> {
    const CASES: usize = 146;
    let lab = Lab::builder("h2spec").nodes(1).pods_per_node(1).ipv6(false).build()?;
    lab.declare_cluster()?;
    // h2spec names the VIP as the authority: that host has no rule of its own.
    lab.manifests().write(
        "any-host",
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: any-host\n  namespace: default\nspec:\n  \
         ingressClassName: xdp\n  defaultBackend:\n    service:\n      name: service1\n      port:\n        number: 80\n",
    )?;
    lab.node(0).start_daemon()?;
    let (client, vip) = (lab.client(0), lab.vips()[0]);
    let target = Target::new(vip, "any", "/");
    load::until(client, &target, Instant::now(), PATIENCE, |answer| {
        answer.as_ref().is_ok_and(|answer| answer.status == 200)
    })?;
    let failed = |tls: bool| h2spec(client, vip, tls, CASES);
    let (tls, plain) = (failed(true)?, failed(false)?);
    println!("h2spec: {CASES} cases, failed over TLS: {tls:?}, by prior knowledge: {plain:?}");
    ensure!(tls.is_empty(), "over TLS: {tls:?}");
    ensure!(plain.iter().all(|case| case == KNOWN), "by prior knowledge: {plain:?}");
    Ok(())
}

/// The cases that failed, of `cases` that must have run.
fn h2spec(client: &Host, vip: IpAddr, tls: bool, cases: usize) -> Result<Vec<String>> {
    let mut command = client.command(paths::go_bin().join("h2spec"));
    command.args(["--strict", "--host", &vip.to_string(), "--path", "/"]);
    command.args(["--timeout", &PATIENCE.as_secs().to_string()]);
    if tls {
        command.args(["--tls", "--insecure", "--port", "443"]);
    } else {
        command.args(["--port", "80"]);
    }
    let output = command.stdin(Stdio::null()).output().context("starting h2spec")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    ensure!(last.starts_with(&format!("{cases} tests, ")) && last.contains(" 0 skipped, "), "h2spec: {text}");
    // Failures stand twice: where they happen, and in a summary behind this word.
    let summary = text.split_once("\nFailures:").map_or("", |(_, summary)| summary);
    let failed: Vec<String> = summary
        .lines()
        .filter_map(|line| line.trim().strip_prefix('×')?.split_once(": "))
        .map(|(_, case)| case.trim().to_owned())
        .collect();
    ensure!(last.ends_with(&format!(", {} failed", failed.len())), "h2spec: {text}");
    Ok(failed)
}
