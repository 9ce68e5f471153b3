//! Puts the BPF object where `src/l4/` embeds it from: `$OUT_DIR/xdp-ingress.bpf.o`.
//!
//! The object is built by `cargo xtask build-ebpf` (it needs a toolchain of its own) and found through
//! `XDP_INGRESS_BPF_OBJECT` (relative paths count from the workspace), else at `target/xtask/xdp-ingress.bpf.o`.
//! Without one an empty file is embedded, so that `cargo build|clippy|test` work on any machine; the daemon then
//! says at run time that it was built without the BPF programs.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

const OBJECT_VAR: &str = "XDP_INGRESS_BPF_OBJECT";
const OBJECT_NAME: &str = "xdp-ingress.bpf.o";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT_VAR}");

    let out = required_dir("OUT_DIR")?.join(OBJECT_NAME);
    let manifest_dir = required_dir("CARGO_MANIFEST_DIR")?;
    let workspace = manifest_dir.parent().unwrap_or(&manifest_dir);

    // Somebody who names an object wants that one: embedding nothing would only show up at run time.
    if let Some(named) = env::var_os(OBJECT_VAR).filter(|value| !value.is_empty()) {
        let object = workspace.join(named);
        println!("cargo::rerun-if-changed={}", object.display());
        let bytes = fs::read(&object).map_err(|error| {
            io::Error::new(error.kind(), format!("{OBJECT_VAR} names {}: {error}", object.display()))
        })?;
        return write_if_changed(&out, &bytes);
    }

    let object = default_object(workspace, &out);
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.exists() {
        // Cargo rebuilds the whole crate each time when a watched path is missing. An empty placeholder, older than
        // any build, is watched as well and gives way to the real object.
        leave_placeholder(&object);
    }
    let bytes = if object.exists() { fs::read(&object)? } else { Vec::new() };
    write_if_changed(&out, &bytes)
}

/// Where `cargo xtask build-ebpf` leaves the object: in the workspace's target directory. `OUT_DIR` lies in that
/// directory wherever `--target-dir`, `CARGO_TARGET_DIR` or Cargo's configuration put it, four or (with `--target`)
/// five levels down; Cargo marks it with a `CACHEDIR.TAG`.
fn default_object(workspace: &Path, out: &Path) -> PathBuf {
    let target = out
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| workspace.join("target"), Path::to_path_buf);
    target.join("xtask").join(OBJECT_NAME)
}

/// Failing is no harm: it only means that Cargo runs this script again.
fn leave_placeholder(object: &Path) {
    let made = object
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| File::create(object))
        .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH));
    if let Err(error) = made {
        println!("cargo::warning=cannot leave a placeholder at {}: {error}", object.display());
    }
}

/// Keeps the file's time stamp when nothing changed, so that the crate isn't recompiled for it.
fn write_if_changed(out: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(out).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(out, bytes)
}

fn required_dir(name: &str) -> io::Result<PathBuf> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("Cargo did not set {name}")))
}
