//! Cluster level, `cargo xtask test cluster`, as root. Most scenarios run the daemon on the nodes of a lab, fed by a real
//! kube-apiserver: there is no kubelet, and what it and the controllers would write is applied by `world.rs`. Those in
//! `installed` have a whole cluster, with our image and chart.

use std::{env, time::Duration};

use anyhow::Result;
use ingress_tests::lab;
use libtest_mimic::{Arguments, Failed, Trial};

mod chart;
mod installed;
mod instruments;
mod leader;
mod outage;
mod scale;
mod secrets;
mod serving;
mod vips;
mod world;

fn main() -> std::process::ExitCode {
    lab::run_if_asked();
    let mut args = Arguments::from_args();
    // An API server alone keeps a core busy for seconds while it starts.
    args.test_threads.get_or_insert(1);
    let trials = [
        instruments::trials(),
        serving::trials(),
        outage::trials(),
        leader::trials(),
        vips::trials(),
        secrets::trials(),
        chart::trials(),
        scale::trials(),
        installed::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    installed::finish();
    conclusion.exit_code()
}

/// How long the API server is to be away: `usual`, which is longer than a watch's first retries (what follows is the same
/// again), or so many seconds as `XDP_INGRESS_TEST_OUTAGE_SECONDS` says.
fn outage(usual: Duration) -> Duration {
    let seconds = env::var("XDP_INGRESS_TEST_OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(usual, Duration::from_secs)
}

/// A scenario: fails with its error's whole chain, in one line.
fn scenario(name: &str, run: fn() -> Result<()>) -> Trial {
    Trial::test(name.to_owned(), move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}
