//! Cluster level: the daemon on the nodes of a lab, fed by a real kube-apiserver. `cargo xtask test cluster` runs it
//! as root. There is no kubelet: what it and the controllers would write is applied by `world.rs`.

use anyhow::Result;
use ingress_tests::lab;
use libtest_mimic::{Arguments, Failed, Trial};

mod instruments;
mod leader;
mod outage;
mod serving;
mod world;

fn main() -> std::process::ExitCode {
    lab::run_if_asked();
    let mut args = Arguments::from_args();
    // An API server alone keeps a core busy for seconds while it starts.
    args.test_threads.get_or_insert(1);
    let trials = [instruments::trials(), serving::trials(), outage::trials(), leader::trials()]
        .into_iter()
        .flatten()
        .collect();
    libtest_mimic::run(&args, trials).exit_code()
}

/// A scenario: fails with its error's whole chain, in one line.
fn scenario(name: &str, run: fn() -> Result<()>) -> Trial {
    Trial::test(name.to_owned(), move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}
