//! bpf-linker, which turns the compiler's bitcode into a BPF object through the LLVM library that rustc brings along.
//! A version reads bitcode up to its own LLVM, so the right one depends on the compiler. Built by Cargo into
//! `target/xtask/tools`; one in `PATH` is used if it suits.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use ingress_tests::paths;

use super::{Prerequisite, State};
use crate::{
    process,
    toolchain::{Toolchain, tools_bin, tools_root},
};

/// The version pinned for compilers with LLVM up to `PINNED_LLVM` (Rust 1.95 has 22). For newer ones the newest.
const PINNED: &str = "0.10.3";
const PINNED_LLVM: u32 = 22;

pub(super) struct BpfLinker;

impl Prerequisite for BpfLinker {
    fn name(&self) -> String {
        "bpf-linker".into()
    }

    fn state(&self) -> Result<State> {
        let llvm = Toolchain::choose()?.release.llvm_major;
        let mut unfit = None;
        for program in candidates() {
            let version = process::output(Command::new(&program).arg("--version")).unwrap_or_default();
            let version = version.split_whitespace().last().unwrap_or_default().to_owned();
            if suits(&version, llvm) {
                return Ok(State::Ready(format!("{version} at {}", program.display())));
            }
            unfit = Some(format!("{} is {version}, not fit for LLVM {llvm}", program.display()));
        }
        Ok(State::Missing(unfit.unwrap_or_else(|| "not installed".into())))
    }

    fn install(&self) -> Result<()> {
        let mut command = process::cargo();
        command.args(["install", "bpf-linker", "--locked", "--force", "--root"]).arg(tools_root());
        // Cargo reads our workspace's flags otherwise; the tool is its own world.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let llvm = Toolchain::choose()?.release.llvm_major;
        let what = if llvm <= PINNED_LLVM {
            command.args(["--version", PINNED]);
            format!("cargo install bpf-linker {PINNED} (takes one to four minutes)")
        } else {
            format!("cargo install bpf-linker, the newest, for LLVM {llvm}")
        };
        process::logged(&what, "bpf-linker", &mut command)
    }
}

/// Ours first: that is the order of the `PATH` which the build gets.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let ours = Some(tools_bin().join("bpf-linker")).filter(|program| program.is_file());
    ours.into_iter().chain(paths::program("bpf-linker"))
}

/// 0.10 was the last to read rustc's LLVM 22; 0.11 begins with LLVM 23.
fn suits(version: &str, llvm: u32) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    if llvm <= PINNED_LLVM { (major, minor) == (0, 10) } else { (major, minor) >= (0, 11) }
}

#[cfg(test)]
mod tests {
    use super::suits;

    #[test]
    fn the_linker_must_fit_the_compilers_llvm() {
        assert!(suits("0.10.3", 22));
        assert!(!suits("0.9.15", 22));
        assert!(!suits("0.11.0", 22));
        assert!(suits("0.12.1", 23));
        assert!(!suits("0.10.3", 23));
        assert!(!suits("", 22));
    }
}
