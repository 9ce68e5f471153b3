//! `cargo xtask setup`: one file per prerequisite below, each of which knows whether it is there and how to get it.
//! Idempotent: what is there is skipped with the reason. Verbs call `ensure` with what they need. Nothing of the host
//! is changed but installed packages and `target/`.

use anyhow::{Context as _, Result, bail};

use crate::report;

mod bpf_linker;
mod core_sources;
mod debian;
mod go;
pub(crate) mod go_programs;
mod packages;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only say what is there and what is missing; exit status 1 if anything is.
    #[arg(long)]
    check: bool,
}

/// Something that has to be on the machine.
pub(crate) trait Prerequisite: Sync {
    fn name(&self) -> String;

    /// Looks without changing anything.
    fn state(&self) -> Result<State>;

    /// Gets it. Called only when `state` said that it is missing; one clear sentence if it can't.
    fn install(&self) -> Result<()>;
}

pub(crate) enum State {
    /// There, and what it is.
    Ready(String),
    /// Not there, and what exactly is lacking.
    Missing(String),
}

/// For building the BPF object.
pub(crate) const BUILD: [&dyn Prerequisite; 2] = [&core_sources::CoreSources, &bpf_linker::BpfLinker];
/// For the lab and the demo.
pub(crate) const LAB: [&dyn Prerequisite; 1] = [&packages::LAB];
/// For the scenarios in the lab: a scraper, and what knows HTTP/2 by heart.
pub(crate) const SCENARIOS: [&dyn Prerequisite; 4] =
    [&packages::LAB, &packages::SCENARIOS, &go::Go, &go_programs::H2SPEC];
/// For the real cluster.
pub(crate) const CLUSTER: [&dyn Prerequisite; 4] =
    [&packages::LAB, &packages::CLUSTER, &go::Go, &go_programs::KUBERNETES];
/// For Kubernetes' own tests on that cluster. Not part of `cargo xtask setup`: nothing else needs them, and they take long.
pub(crate) const KUBERNETES_TESTS: [&dyn Prerequisite; 2] =
    [&packages::KUBERNETES_TESTS, &go_programs::KUBERNETES_TESTS];
/// For benches beside nginx and HAProxy.
pub(crate) const BENCH: [&dyn Prerequisite; 1] = [&packages::BENCH];
/// For the fuzzers.
pub(crate) const FUZZ: [&dyn Prerequisite; 1] = [&packages::FUZZ];
const ALL: [&dyn Prerequisite; 10] = [
    &packages::LAB,
    &packages::SCENARIOS,
    &packages::CLUSTER,
    &packages::BENCH,
    &packages::FUZZ,
    &core_sources::CoreSources,
    &bpf_linker::BpfLinker,
    &go::Go,
    &go_programs::KUBERNETES,
    &go_programs::H2SPEC,
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check { check(&ALL) } else { ensure(&ALL) }
}

/// Gets whatever of `wanted` is missing.
pub(crate) fn ensure(wanted: &[&dyn Prerequisite]) -> Result<()> {
    report::heading("prerequisites");
    for prerequisite in wanted {
        let name = prerequisite.name();
        match prerequisite.state()? {
            State::Ready(what) => report::skipped(&name, &what),
            State::Missing(_) => prerequisite.install().with_context(|| format!("{name} cannot be had"))?,
        }
    }
    Ok(())
}

fn check(wanted: &[&dyn Prerequisite]) -> Result<()> {
    report::heading("prerequisites (nothing is changed)");
    let mut lacking = 0;
    for prerequisite in wanted {
        match prerequisite.state()? {
            State::Ready(what) => report::skipped(&prerequisite.name(), &what),
            State::Missing(why) => {
                lacking += 1;
                report::missing(&prerequisite.name(), &why);
            }
        }
    }
    if lacking > 0 {
        bail!("{lacking} of {} missing: `cargo xtask setup` installs them", wanted.len());
    }
    Ok(())
}
