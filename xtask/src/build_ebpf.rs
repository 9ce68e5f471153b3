//! `cargo xtask build-ebpf`: builds `ingress-ebpf` for the BPF target and leaves the object where the daemon's build
//! script and the kernel tests look for it. Whether anything has to be rebuilt is Cargo's own business.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use crate::{process, report, setup, toolchain::Toolchain};

pub(crate) fn run() -> Result<()> {
    setup::ensure(&setup::BUILD)?;
    report::heading("BPF object");
    process::streamed(&mut cargo(&Toolchain::choose()?, "build")).context("the BPF programs do not build")?;

    let built = target_dir().join(TARGET).join(PROFILE);
    for (program, object) in
        [("xdp-ingress-ebpf", paths::bpf_object()), ("xdp-ingress-ebpf-bench", paths::bpf_bench_object())]
    {
        let bytes = copy_if_changed(&built.join(program), &object)?;
        report::note(&format!("{} ({bytes} bytes)", object.display()));
    }
    Ok(())
}

/// The programs run on the machine that builds them, or on one of its kind.
const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Not `release`, which is cut into units so that the daemon is built quickly.
const PROFILE: &str = "bpf";

/// A target directory of its own: other flags than the host's in the same one would rebuild its build scripts.
fn target_dir() -> PathBuf {
    paths::target_dir().join("bpf")
}

/// A Cargo command (`build`, `clippy`) over the BPF crate, with the flags that its code is written for: the kernel
/// structures differ by the machine's architecture, and BTF comes from debug information through the linker.
pub(crate) fn cargo(toolchain: &Toolchain, verb: &str) -> Command {
    let mut command = toolchain.cargo();
    let flags = [
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Headers in packets are aligned to two bytes; without this a 32-bit address is read in four pieces (LLVM 22).
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
    ];
    command
        .args([verb, "--profile", PROFILE, "--package", "ingress-ebpf", "--bins", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(target_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command
}

/// Keeps the time stamp of an object that didn't change, so that the daemon isn't rebuilt for it.
fn copy_if_changed(from: &Path, to: &Path) -> Result<usize> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(new.len());
    }
    let folder = to.parent().context("the object has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(to, &new).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(new.len())
}
