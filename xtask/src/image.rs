//! `cargo xtask image`: the release binary and the shared libraries it loads, as an OCI archive at
//! `target/xtask/xdp-ingress-image.tar`; no container engine takes part. The same inputs give the same bytes. Load it
//! with `ctr image import`, `podman load`, or `skopeo copy oci-archive:…`.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use ingress_tests::paths;

use crate::{build, process, report};

mod layer;
mod oci;

/// Where the binary lies in the image.
const PROGRAM: &str = "usr/bin/xdp-ingress";

pub(crate) fn run() -> Result<()> {
    build::run()?;
    report::heading("image");
    let binary = paths::target_dir().join("release/xdp-ingress");
    let files = files(&binary)?;
    for path in files.keys() {
        report::note(&format!("/{path}"));
    }
    let layer = layer::Layer::build(&files)?;
    let archive = oci::archive(&layer, &format!("/{PROGRAM}"), env!("CARGO_PKG_VERSION"))?;
    let out = paths::xtask_dir().join("xdp-ingress-image.tar");
    fs::write(&out, &archive.bytes).with_context(|| format!("cannot write {}", out.display()))?;
    report::note(&format!(
        "{} ({} bytes, manifest {})",
        out.display(),
        archive.bytes.len(),
        archive.manifest
    ));
    Ok(())
}

/// Path in the image → file on this machine.
fn files(binary: &PathBuf) -> Result<BTreeMap<String, PathBuf>> {
    let libraries =
        process::output(Command::new("ldd").arg(binary)).context("asking for the binary's libraries")?;
    let mut files = BTreeMap::from([(PROGRAM.to_owned(), binary.clone())]);
    for library in libraries_in(&libraries)? {
        let path = PathBuf::from(&library);
        files.insert(library.trim_start_matches('/').to_owned(), path);
    }
    Ok(files)
}

/// The files that `ldd` names, the loader included; a static binary has none.
fn libraries_in(ldd: &str) -> Result<Vec<String>> {
    if let Some(line) = ldd.lines().find(|line| line.contains("not found")) {
        bail!("a library of the binary is missing: {}", line.trim());
    }
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(ldd.lines().filter_map(path).collect())
}

#[cfg(test)]
mod tests {
    use super::libraries_in;

    #[test]
    fn libraries_and_the_loader_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x7)\n";
        assert_eq!(libraries_in(ldd).expect("complete"), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
        assert_eq!(libraries_in("\tstatically linked\n").expect("static"), Vec::<String>::new());
        assert!(libraries_in("\tlibz.so => not found\n").is_err());
    }
}
