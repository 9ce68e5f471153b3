//! Where built things lie: the workspace, Cargo's target directory, the daemon, the BPF object, the Kubernetes
//! binaries. Used by the test binaries and by xtask, which puts the things there. Pure: builds paths, makes nothing.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target directory that the running program was built into, wherever configuration put it (Cargo marks it
/// with a `CACHEDIR.TAG`); `target/` of the workspace for a program that was copied elsewhere.
pub fn target_dir() -> PathBuf {
    env::current_exe()
        .ok()
        .and_then(|exe| exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf))
        .unwrap_or_else(|| workspace().join("target"))
}

/// xtask's own folder: tools, sources, logs, everything that isn't Cargo's.
pub fn xtask_dir() -> PathBuf {
    target_dir().join("xtask")
}

/// The daemon under test: `XDP_INGRESS_BIN`, else what `cargo xtask build` makes.
pub fn daemon() -> PathBuf {
    env::var_os("XDP_INGRESS_BIN")
        .map_or_else(|| target_dir().join("release/xdp-ingress"), |named| workspace().join(named))
}

/// The BPF object that `cargo xtask build-ebpf` makes (an empty placeholder before that).
pub fn bpf_object() -> PathBuf {
    xtask_dir().join("xdp-ingress.bpf.o")
}

/// The BPF programs that `cargo xtask bench l4` runs around the one in [`bpf_object`].
pub fn bpf_bench_object() -> PathBuf {
    xtask_dir().join("xdp-ingress-bench.bpf.o")
}

/// `etcd`, `kube-apiserver`, `kubelet`, `kubectl`, `helm`, `h2spec` and so on, built by `cargo xtask setup` from Go modules.
pub fn go_bin() -> PathBuf {
    xtask_dir().join("kubernetes/bin")
}

/// The OCI archive of the image `name`: `xdp-ingress`, or `pod` (backends and sandboxes), made by `cargo xtask image`.
pub fn image(name: &str) -> PathBuf {
    xtask_dir().join(format!("images/{name}.tar"))
}

/// The first executable file called `name` in `PATH` or in the folders for system programs, which the `PATH` of an
/// ordinary user lacks.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_found_and_the_target_directory_lies_in_cargos_hands() {
        assert!(workspace().join("Cargo.lock").is_file());
        assert!(target_dir().join("CACHEDIR.TAG").is_file());
    }

    #[test]
    fn programs_are_found_by_name_only_when_executable() {
        assert_eq!(program("sh").map(|sh| sh.file_name().map(|name| name == "sh")), Some(Some(true)));
        assert_eq!(program("no-such-program-anywhere"), None);
    }
}
