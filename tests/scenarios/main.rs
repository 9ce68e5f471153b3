//! Lab level: the real daemon on every node of a lab of network namespaces, real clients. `cargo xtask test lab`
//! runs it as root; each file of this folder is a group of scenarios, each with a lab of its own, so they may run at
//! once. Scenarios print their figures.

use anyhow::Result;
use ingress_tests::lab;
use libtest_mimic::{Arguments, Failed, Trial};

mod announcement;
mod changes;
mod coexistence;
mod daemon;
mod examples;
mod handover;
mod instruments;
mod lifecycle;
mod membership;
mod observability;
mod packets;
mod partition;
mod promise;
mod protection;
mod proxies;
mod routed;
mod uplinks;

fn main() -> std::process::ExitCode {
    lab::run_if_asked();
    instruments::run_if_asked();
    let args = Arguments::from_args();
    let trials = [
        instruments::trials(),
        examples::trials(),
        changes::trials(),
        membership::trials(),
        partition::trials(),
        announcement::trials(),
        promise::trials(),
        routed::trials(),
        packets::trials(),
        daemon::trials(),
        lifecycle::trials(),
        handover::trials(),
        coexistence::trials(),
        protection::trials(),
        uplinks::trials(),
        proxies::trials(),
        observability::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&args, trials).exit_code()
}

/// A scenario: fails with its error's whole chain, in one line.
fn scenario(name: &str, run: fn() -> Result<()>) -> Trial {
    Trial::test(name.to_owned(), move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}
