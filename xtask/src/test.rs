//! `cargo xtask test [LEVEL] [FILTER]`: sets up what each level needs, runs its test binaries with their output
//! passed on, and closes with the plain line `N passed, N failed` over all of them. A level that cannot run fails.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{build, build_ebpf, image, process, report, setup};
use summary::Summary;

mod summary;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this level.
    level: Option<Level>,
    /// Run only tests whose name contains this.
    filter: Option<String>,
}

/// What is tested, and with that what it needs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Pure code, properties, the many-node simulator; needs nothing.
    Unit,
    /// The real BPF object: verifier, packets and verdicts; needs root.
    Kernel,
    /// The daemon on every node of a lab of network namespaces; needs root.
    Lab,
    /// The daemon against a real API server, and a real cluster with our image and chart installed; needs root.
    Cluster,
    /// Rules about the code itself; needs nothing.
    House,
}

/// Returns the exit code itself: nothing may be printed after the closing line.
pub(crate) fn run(args: &Args) -> ExitCode {
    let levels: &[Level] = match &args.level {
        Some(level) => std::slice::from_ref(level),
        None => Level::value_variants(),
    };
    let mut total = Summary::default();
    for &level in levels {
        let name = level.name();
        report::heading(&format!("tests: {name}"));
        match level.run(args.filter.as_deref()) {
            Ok(summary) => total += summary,
            Err(error) => {
                println!("level {name} did not run: {error:#}");
                total.failed += 1;
            }
        }
    }
    println!("{total}");
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(clap::Args)]
pub(crate) struct ConformanceArgs {
    /// Kubernetes' own end-to-end tests, too, and agnhost through the VIP; builds them and runs for some ten minutes.
    #[arg(long)]
    kubernetes: bool,
}

/// `cargo xtask conformance`: the scenarios by name, with their table written to the docs. What is written is known to
/// the test itself, so that `cargo xtask test cluster` notices when it is no longer true.
pub(crate) fn conformance(args: &ConformanceArgs) -> ExitCode {
    let mut cluster = Level::Cluster.commands();
    let run = Level::Cluster.set_up().and_then(|()| {
        if args.kubernetes {
            setup::ensure(&setup::KUBERNETES_TESTS)?;
            image::for_kubernetes_tests()?;
        }
        let mut total = Summary::default();
        for command in &mut cluster {
            if args.kubernetes {
                command.env("XDP_INGRESS_AGNHOST_IMAGE", setup::go_programs::agnhost_image()?);
            }
            command.args(["--", "conformance", "--nocapture"]).env("XDP_INGRESS_UPDATE", "1");
            total += run_binaries(command)?;
        }
        Ok(total)
    });
    match run {
        Ok(total) => {
            println!("{total}");
            if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("conformance did not run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Level {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, filter: Option<&str>) -> Result<Summary> {
        self.set_up()?;
        let mut summary = Summary::default();
        for mut command in self.commands() {
            command.arg("--").args(filter);
            summary += run_binaries(&mut command)?;
        }
        Ok(summary)
    }

    fn set_up(self) -> Result<()> {
        if !matches!(self, Self::Unit | Self::House) && !process::is_root() {
            bail!(
                "it needs root (network namespaces, BPF): run `sudo -E env PATH=\"$PATH\" cargo xtask test {}`",
                self.name()
            );
        }
        match self {
            Self::Unit | Self::House => Ok(()),
            Self::Kernel => build_ebpf::run(),
            Self::Lab => setup::ensure(&setup::SCENARIOS).and_then(|()| build::run()),
            Self::Cluster => setup::ensure(&setup::CLUSTER).and_then(|()| image::for_tests()),
        }
    }

    fn commands(self) -> Vec<Command> {
        // One selection of packages for every level: with another one Cargo would choose other features and build
        // half of the dependencies again.
        let test = |arguments: &[&str]| {
            let mut command = process::cargo();
            command
                .args(["test", "--no-fail-fast", "--workspace", "--exclude", "ingress-ebpf"])
                .args(arguments);
            command
        };
        match self {
            // The other levels are tests too, so not `--tests`: it would run them all. What is named is the many-node
            // simulator, the HTTP/1 engine between raw sockets, and the manifests with what they translate to.
            Self::Unit => vec![test(&[
                "--lib",
                "--bins",
                "--test",
                "simulator",
                "--test",
                "http1",
                "--test",
                "translate",
            ])],
            level => vec![test(&["--test", &level.name()])],
        }
    }
}

/// Runs one `cargo test`, passes its output on and adds up what its binaries closed with.
fn run_binaries(command: &mut Command) -> Result<Summary> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    let mut summary = Summary::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary.add_line(&line);
    }
    let status = child.wait()?;
    if !status.success() && summary.failed == 0 {
        bail!("cargo test ended with {status} without naming a failed test (a build error, or a crash)");
    }
    Ok(summary)
}
