//! `cargo xtask build`: the release binary with the BPF object inside, at `target/release/xdp-ingress`.

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use crate::{build_ebpf, process, report};

pub(crate) fn run() -> Result<()> {
    build_ebpf::run()?;
    report::heading("release binary");
    process::streamed(process::cargo().args(["build", "--release", "--package", "ingress-userspace"]))
        .context("the daemon does not build")?;
    report::note(&paths::target_dir().join("release/xdp-ingress").display().to_string());
    Ok(())
}

/// The daemon as it ships, at `target/dist/xdp-ingress`: slow to build, and what is measured.
pub(crate) fn dist() -> Result<()> {
    build_ebpf::run()?;
    report::heading("daemon as it ships (profile dist)");
    let build = ["build", "--profile", "dist", "--package", "ingress-userspace"];
    process::streamed(process::cargo().args(build)).context("the daemon does not build")
}
