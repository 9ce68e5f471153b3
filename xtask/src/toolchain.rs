//! Which Rust builds the BPF object. `-Z build-std` needs the sources of `core`, version for version the compiler's,
//! and bpf-linker needs to read the LLVM bitcode that this compiler writes. `setup` asks what is missing,
//! `build-ebpf` asks how to call Cargo. Looks only; installs nothing.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use crate::process;

/// A Rust toolchain that may build the BPF object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// rustup's name for it; `None` is the compiler that Cargo uses anyway.
    pub(crate) rustup_name: Option<&'static str>,
    pub(crate) release: Release,
    /// Where its `library/` lies; `None` if it isn't there.
    pub(crate) sources: Option<Sources>,
}

/// Where the sources of `core` come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The component `rust-src` of the toolchain itself: Cargo finds it.
    Component(PathBuf),
    /// Put aside by `setup`: Cargo has to be told.
    Private(PathBuf),
}

/// What `rustc -vV` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// As printed: `1.95.0`, `1.97.0-nightly`.
    pub(crate) version: String,
    pub(crate) llvm_major: u32,
}

impl Toolchain {
    /// rustup's nightly if it has `rust-src` and an LLVM that our bpf-linker reads, else the compiler in use.
    pub(crate) fn choose() -> Result<Self> {
        let active = Self::active()?;
        let nightly = Self::nightly().filter(|nightly| {
            nightly.sources.is_some() && nightly.release.llvm_major <= active.release.llvm_major
        });
        Ok(match (&active.sources, nightly) {
            (Some(_), _) | (None, None) => active,
            (None, Some(nightly)) => nightly,
        })
    }

    fn active() -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let release = process::output(Command::new(&rustc).arg("-vV")).context("no working Rust compiler")?;
        let release = Release::parse(&release)?;
        let sysroot = process::output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let component = component(Path::new(sysroot.trim()));
        let private = private_sources(&release);
        let sources = if has_core(&component) {
            Some(Sources::Component(component))
        } else {
            has_core(&private).then_some(Sources::Private(private))
        };
        Ok(Self { rustup_name: None, release, sources })
    }

    fn nightly() -> Option<Self> {
        paths::program("rustup")?;
        let rustc = |arguments: &[&str]| {
            process::output(Command::new("rustup").args(["run", "nightly", "rustc"]).args(arguments)).ok()
        };
        let release = Release::parse(&rustc(&["-vV"])?).ok()?;
        let component = component(Path::new(rustc(&["--print", "sysroot"])?.trim()));
        let sources = has_core(&component).then_some(Sources::Component(component));
        Some(Self { rustup_name: Some("nightly"), release, sources })
    }

    /// A Cargo command of this toolchain that accepts `-Z` options.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = match self.rustup_name {
            Some(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, "cargo"]).env_remove("RUSTC").current_dir(paths::workspace());
                command
            }
            None => process::cargo(),
        };
        command.env("RUSTC_BOOTSTRAP", "1");
        if let Some(Sources::Private(library)) = &self.sources {
            command.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        }
        command.env("PATH", path_with_tools());
        command
    }
}

impl Release {
    pub(crate) fn parse(verbose: &str) -> Result<Self> {
        let field = |name: &str| {
            verbose.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        let version = field("release").context("`rustc -vV` names no release")?.to_owned();
        let llvm_major = field("LLVM version")
            .and_then(|llvm| llvm.split('.').next()?.parse().ok())
            .context("`rustc -vV` names no LLVM version")?;
        Ok(Self { version, llvm_major })
    }
}

/// `PATH` with our own tools first.
pub(crate) fn path_with_tools() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tools_bin()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path)
}

/// Where `cargo install` puts tools for us.
pub(crate) fn tools_bin() -> PathBuf {
    tools_root().join("bin")
}

pub(crate) fn tools_root() -> PathBuf {
    paths::xtask_dir().join("tools")
}

/// `library/` of sources put aside for `release`.
pub(crate) fn private_sources(release: &Release) -> PathBuf {
    paths::xtask_dir().join("rust-src").join(&release.version).join("library")
}

fn component(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

/// True if `library` is a tree that `build-std` can use.
pub(crate) fn has_core(library: &Path) -> bool {
    library.join("core/src/lib.rs").is_file() && library.join("Cargo.lock").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_and_llvm_are_read_from_rustcs_report() {
        let report = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                      release: 1.95.0\nLLVM version: 22.1.2\n";
        let release = Release::parse(report).expect("a complete report");
        assert_eq!(release, Release { version: "1.95.0".into(), llvm_major: 22 });
    }

    #[test]
    fn a_compiler_without_llvm_is_refused() {
        assert!(Release::parse("release: 1.95.0\n").is_err());
    }
}
