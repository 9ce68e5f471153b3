//! The sources of `core` for `-Z build-std`, of the very version of the compiler. In this order: the toolchain's own
//! `rust-src` (or a nightly's), Debian's package of that version, an archive named by `XDP_INGRESS_RUST_SRC`.
//! What comes from Debian or the archive lies below `target/xtask/rust-src/`. The toolchain is the user's: adding the
//! component to it (`rustup component add rust-src`) is only suggested, never done.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use ingress_tests::paths;

use super::{Prerequisite, State, debian};
use crate::{
    process, report,
    toolchain::{self, Sources, Toolchain},
};

/// An archive (`library/` at its top, any compression that tar knows) for machines that reach nothing else.
const ARCHIVE_VAR: &str = "XDP_INGRESS_RUST_SRC";

/// Suites that carry newer compilers than the stable release.
const SUITES: [&str; 2] = ["trixie-backports", "unstable"];

pub(super) struct CoreSources;

impl Prerequisite for CoreSources {
    fn name(&self) -> String {
        "sources of core".into()
    }

    fn state(&self) -> Result<State> {
        let toolchain = Toolchain::choose()?;
        let version = &toolchain.release.version;
        Ok(match toolchain.sources {
            Some(Sources::Component(_)) => State::Ready(format!("rust-src of Rust {version} is installed")),
            Some(Sources::Private(library)) => State::Ready(format!("{version} in {}", library.display())),
            None => State::Missing(format!("Rust {version} has no rust-src")),
        })
    }

    fn install(&self) -> Result<()> {
        let release = Toolchain::choose()?.release;
        let library = toolchain::private_sources(&release);
        if from_debian(&release.version, &library) || from_archive(&library)? {
            return Ok(());
        }
        bail!(
            "Debian's {} have no rust-src of Rust {}: run `rustup component add rust-src`, or name an archive of that \
             compiler's `library/` in {ARCHIVE_VAR}",
            SUITES.join(" and "),
            release.version,
        )
    }
}

/// Debian's package puts the tree at `usr/src/rustc-VERSION/library`, linked from `usr/lib/rustlib/src/rust`.
fn from_debian(version: &str, library: &Path) -> bool {
    if paths::program("apt-get").is_none() || paths::program("dpkg").is_none() {
        return false;
    }
    SUITES.iter().any(|suite| {
        let fetched = unpack_debian(version, suite, library);
        match &fetched {
            Ok(true) => {}
            Ok(false) => report::skipped(&format!("rust-src from {suite}"), &format!("it has no {version}")),
            Err(error) => report::skipped(&format!("rust-src from {suite}"), &format!("{error:#}")),
        }
        fetched.unwrap_or(false)
    })
}

fn unpack_debian(version: &str, suite: &str, library: &Path) -> Result<bool> {
    let unpacked = fresh_dir("debian")?;
    if !debian::fetch_from_suite("rust-src", version, suite, &unpacked)? {
        return Ok(false);
    }
    let sources = unpacked.join("usr/src");
    let tree = fs::read_dir(&sources)
        .with_context(|| format!("the package has no {}", sources.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|tree| tree.join("library").is_dir())
        .context("the package has no library/")?;
    put(&tree.join("library"), &tree, library)?;
    Ok(true)
}

fn from_archive(library: &Path) -> Result<bool> {
    let Some(archive) = std::env::var_os(ARCHIVE_VAR).filter(|value| !value.is_empty()) else {
        return Ok(false);
    };
    let archive = paths::workspace().join(archive);
    let unpacked = fresh_dir("archive")?;
    process::logged(
        &format!("unpack {}", archive.display()),
        "rust-src-archive",
        Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&unpacked),
    )?;
    put(&unpacked.join("library"), &unpacked, library)?;
    Ok(true)
}

/// Moves `from` to `library`, with the tree's `Cargo.lock` where Cargo looks for it: inside `library`.
fn put(from: &Path, tree: &Path, library: &Path) -> Result<()> {
    if !from.join("Cargo.lock").exists() && tree.join("Cargo.lock").is_file() {
        fs::copy(tree.join("Cargo.lock"), from.join("Cargo.lock"))?;
    }
    if !toolchain::has_core(from) {
        bail!("{} is no library/ with core and a Cargo.lock", from.display());
    }
    let parent = library.parent().context("the library folder has no parent")?;
    if parent.exists() {
        fs::remove_dir_all(parent)?;
    }
    fs::create_dir_all(parent)?;
    fs::rename(from, library)
        .with_context(|| format!("cannot move {} to {}", from.display(), library.display()))?;
    fs::remove_dir_all(paths::xtask_dir().join("unpack"))?;
    Ok(())
}

fn fresh_dir(name: &str) -> Result<PathBuf> {
    let dir = paths::xtask_dir().join("unpack").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
