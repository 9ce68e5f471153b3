//! `cargo xtask ci`: what is checked before the tests: format, clippy with warnings as errors on the host and on the
//! BPF target, and the supply chain rules. Runs all of them and names every one that failed.

use anyhow::{Result, bail};

use crate::{build_ebpf, deny, process, report, setup, toolchain::Toolchain};

/// A check's name and what runs it.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 4] = [
    ("format", format),
    ("supply chain (deny.toml)", deny::run),
    ("clippy", clippy),
    ("clippy of the BPF programs", clippy_ebpf),
];

pub(crate) fn run() -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        report::heading(name);
        if let Err(error) = check() {
            report::missing(name, &format!("{error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    process::streamed(process::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let scope = ["clippy", "--workspace", "--exclude", "ingress-ebpf", "--all-targets", "--locked"];
    // What only the fuzzers call is checked here, too: nothing else of CI compiles it.
    let fuzzed = ["--features", "ingress-userspace/fuzzing"];
    process::streamed(process::cargo().args(scope).args(fuzzed).args(["--", "-D", "warnings"]))
}

fn clippy_ebpf() -> Result<()> {
    setup::ensure(&setup::BUILD)?;
    let mut command = build_ebpf::cargo(&Toolchain::choose()?, "clippy");
    process::streamed(command.arg("--locked").args(["--", "-D", "warnings"]))
}
