//! etcd, Kubernetes' own programs and helm for the cluster level, built from Go modules: nothing has to be downloaded
//! but sources, and their checksums are in `xtask/kubernetes/go.sum` and `xtask/helm/go.sum`. One build cache for all of
//! them; a minute or two each the first time, eight for kube-apiserver.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use super::{Prerequisite, State, go};
use crate::process;

/// A binary and the Go package that it is built from. A new one also needs its import in its module's `tools.go`.
struct Binary {
    name: &'static str,
    /// The folder of the Go module, below `xtask/`.
    module: &'static str,
    package: &'static str,
}

const fn kubernetes(name: &'static str, package: &'static str) -> Binary {
    Binary { name, module: KUBERNETES, package }
}

const KUBERNETES: &str = "kubernetes";

const BINARIES: [Binary; 8] = [
    // Go names the program after the package's last element that isn't a version: `server`.
    kubernetes("etcd", "go.etcd.io/etcd/server/v3"),
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    Binary { name: "helm", module: "helm", package: "helm.sh/helm/v4/cmd/helm" },
];

pub(super) struct Kubernetes;

impl Prerequisite for Kubernetes {
    fn name(&self) -> String {
        "Kubernetes binaries".into()
    }

    fn state(&self) -> Result<State> {
        let lacking = lacking();
        if lacking.is_empty() {
            let version = kubernetes_version(&go_mod(KUBERNETES)?)?;
            return Ok(State::Ready(format!("{version} in {}", paths::kubernetes_bin().display())));
        }
        let names: Vec<_> = lacking.iter().map(|binary| binary.name).collect();
        Ok(State::Missing(format!("{} not built", names.join(", "))))
    }

    fn install(&self) -> Result<()> {
        let version = kubernetes_version(&go_mod(KUBERNETES)?)?;
        let bin = paths::kubernetes_bin();
        fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
        for binary in lacking() {
            let mut build = go::command();
            build
                .current_dir(module_dir(binary.module))
                .env("CGO_ENABLED", "0")
                .args(["build", "-trimpath", "-mod=readonly", "-ldflags"])
                // Clients compare versions: without this the API server says v0.0.0.
                .arg(format!("-s -w -X k8s.io/component-base/version.gitVersion={version}"))
                .arg("-o")
                .arg(bin.join(binary.name))
                .arg(binary.package);
            process::logged(&format!("go build {}", binary.package), binary.name, &mut build)?;
        }
        for module in BINARIES.map(|binary| binary.module) {
            fs::write(stamp(module), stamp_text(&go_mod(module)?))?;
        }
        Ok(())
    }
}

/// The Go version that `go.mod` wants.
pub(super) fn go_directive() -> Result<String> {
    directive(&go_mod(KUBERNETES)?, "go").context("xtask/kubernetes/go.mod has no `go` line")
}

/// Binaries of another `go.mod` count as missing, all of that module.
fn lacking() -> Vec<&'static Binary> {
    let bin = paths::kubernetes_bin();
    let is_there = |binary: &Binary| is_fresh(binary.module) && bin.join(binary.name).is_file();
    BINARIES.iter().filter(|binary| !is_there(binary)).collect()
}

fn is_fresh(module: &str) -> bool {
    let wanted = go_mod(module).ok().map(|text| stamp_text(&text));
    fs::read_to_string(stamp(module)).is_ok_and(|text| Some(text) == wanted)
}

fn module_dir(module: &str) -> PathBuf {
    paths::workspace().join("xtask").join(module)
}

fn go_mod(module: &str) -> Result<String> {
    let path = module_dir(module).join("go.mod");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn stamp(module: &str) -> PathBuf {
    let name = if module == KUBERNETES { "built-from".to_owned() } else { format!("built-from-{module}") };
    paths::xtask_dir().join(KUBERNETES).join(name)
}

/// The versions that decide: enough to notice that somebody moved one.
fn stamp_text(go_mod: &str) -> String {
    let direct =
        |line: &&str| line.trim_start().starts_with("require ") || line.contains("k8s.io/kubernetes ");
    go_mod.lines().filter(direct).collect::<Vec<_>>().join("\n")
}

fn kubernetes_version(go_mod: &str) -> Result<String> {
    directive(go_mod, "require k8s.io/kubernetes")
        .context("xtask/kubernetes/go.mod does not require k8s.io/kubernetes")
}

/// What follows `key` on its line of a `go.mod`.
fn directive(go_mod: &str, key: &str) -> Option<String> {
    go_mod.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(' ')?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_staging_module_is_replaced_by_the_release_of_kubernetes_itself() {
        let go_mod = go_mod(KUBERNETES).expect("the module is checked in");
        let version = kubernetes_version(&go_mod).expect("a version");
        let staging = version.replacen("v1.", "v0.", 1);
        let replaced: Vec<_> = go_mod
            .lines()
            .filter(|line| line.contains(" => "))
            .map(|line| line.ends_with(&staging))
            .collect();
        assert!(replaced.len() > 25, "{} replaced", replaced.len());
        assert!(replaced.iter().all(|same| *same));
    }

    #[test]
    fn every_binary_is_imported_so_that_go_mod_tidy_keeps_it() {
        for binary in &BINARIES {
            let tools = fs::read_to_string(module_dir(binary.module).join("tools.go")).expect("tools.go");
            assert!(tools.contains(&format!("\"{}\"", binary.package)), "{}", binary.package);
        }
    }

    #[test]
    fn a_directive_is_read_by_its_whole_key() {
        let text = "module x\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.37.2\n";
        assert_eq!(directive(text, "go"), Some("1.26.0".into()));
        assert_eq!(kubernetes_version(text).ok(), Some("v1.37.2".into()));
        assert_eq!(directive(text, "require k8s.io/kube"), None);
    }
}
