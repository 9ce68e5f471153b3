//! Programs built from Go modules: etcd, Kubernetes' own and helm for the cluster level, Kubernetes' tests for its conformance,
//! h2spec for the lab. Nothing has to be downloaded but sources, and their checksums are in `xtask/*/go.sum`. One build cache
//! for all of them; a minute or two each the first time, eight for kube-apiserver, seconds for h2spec.

use std::{fs, path::PathBuf, process::Command};

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
    /// The package's tests are meant, as a program.
    is_test: bool,
}

/// A set of them for one purpose.
pub(super) struct Programs {
    name: &'static str,
    binaries: &'static [Binary],
}

const fn binary(name: &'static str, module: &'static str, package: &'static str) -> Binary {
    Binary { name, module, package, is_test: false }
}

/// The module of Kubernetes itself.
const MAIN: &str = "kubernetes";
/// That of its tests, of the same release: what the first of them has compiled, the second finds in the cache.
const E2E: &str = "e2e";

/// For the real cluster.
pub(super) const KUBERNETES: Programs = Programs {
    name: "Kubernetes binaries",
    binaries: &[
        // Go names the program after the package's last element that isn't a version: `server`.
        binary("etcd", MAIN, "go.etcd.io/etcd/server/v3"),
        binary("kube-apiserver", MAIN, "k8s.io/kubernetes/cmd/kube-apiserver"),
        binary("kube-controller-manager", MAIN, "k8s.io/kubernetes/cmd/kube-controller-manager"),
        binary("kube-scheduler", MAIN, "k8s.io/kubernetes/cmd/kube-scheduler"),
        binary("kubelet", MAIN, "k8s.io/kubernetes/cmd/kubelet"),
        binary("kube-proxy", MAIN, "k8s.io/kubernetes/cmd/kube-proxy"),
        binary("kubectl", MAIN, "k8s.io/kubernetes/cmd/kubectl"),
        binary("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    ],
};

/// Asks an HTTP/2 server about each requirement of the standard.
pub(super) const H2SPEC: Programs = Programs {
    name: "h2spec",
    binaries: &[binary("h2spec", "h2spec", "github.com/summerwind/h2spec/cmd/h2spec")],
};

/// Kubernetes' own end-to-end tests, the backend that they use, and the DNS that they ask.
pub(super) const KUBERNETES_TESTS: Programs = Programs {
    name: "Kubernetes' own tests",
    binaries: &[
        binary("agnhost", E2E, "k8s.io/kubernetes/test/images/agnhost"),
        Binary { name: "e2e.test", module: E2E, package: "k8s.io/kubernetes/test/e2e", is_test: true },
        binary("coredns", "coredns", "xdp-ingress.io/xtask/coredns"),
    ],
};

impl Prerequisite for Programs {
    fn name(&self) -> String {
        self.name.into()
    }

    fn state(&self) -> Result<State> {
        let lacking = self.lacking();
        if lacking.is_empty() {
            let module = self.binaries[0].module;
            let version = main_requirement(&go_mod(module)?)?;
            return Ok(State::Ready(format!("{version} in {}", paths::go_bin().display())));
        }
        let names: Vec<_> = lacking.iter().map(|binary| binary.name).collect();
        Ok(State::Missing(format!("{} not built", names.join(", "))))
    }

    fn install(&self) -> Result<()> {
        let version = kubernetes_version(&go_mod(MAIN)?)?;
        let bin = paths::go_bin();
        fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
        for binary in self.lacking() {
            let mut build = binary.build(&version);
            build.arg("-o").arg(bin.join(binary.name)).arg(binary.package);
            process::logged(&format!("go build {}", binary.package), binary.name, &mut build)?;
        }
        for binary in self.binaries {
            fs::write(stamp(binary.module), stamp_text(&go_mod(binary.module)?))?;
        }
        Ok(())
    }
}

impl Programs {
    /// Binaries of another `go.mod` count as missing, all of that module.
    fn lacking(&self) -> Vec<&'static Binary> {
        let bin = paths::go_bin();
        let is_there = |binary: &Binary| is_fresh(binary.module) && bin.join(binary.name).is_file();
        self.binaries.iter().filter(|binary| !is_there(binary)).collect()
    }
}

impl Binary {
    fn build(&self, version: &str) -> Command {
        let mut build = go::command();
        build.current_dir(module_dir(self.module)).env("CGO_ENABLED", "0");
        // What `go vet` says of them is their authors' business.
        build.args(if self.is_test { &["test", "-c", "-vet=off"][..] } else { &["build"] });
        build
            .args(["-trimpath", "-mod=readonly", "-ldflags"])
            // Clients compare versions: without this the API server says v0.0.0.
            .arg(format!("-s -w -X k8s.io/component-base/version.gitVersion={version}"));
        build
    }
}

/// What Kubernetes' tests call their backend's image, whose tag is in the sources that it is built from.
pub(crate) fn agnhost_image() -> Result<String> {
    let mut list = go::command();
    list.current_dir(module_dir(E2E)).args(["list", "-mod=readonly", "-f", "{{.Dir}}"]);
    let dir = process::output(list.arg("k8s.io/kubernetes/test/images/agnhost"))?;
    let file = PathBuf::from(dir.trim()).join("VERSION");
    let tag = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(format!("registry.k8s.io/e2e-test-images/agnhost:{}", tag.trim()))
}

/// The Go version that `go.mod` wants.
pub(super) fn go_directive() -> Result<String> {
    directive(&go_mod(MAIN)?, "go").context("xtask/kubernetes/go.mod has no `go` line")
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
    let name = if module == MAIN { "built-from".to_owned() } else { format!("built-from-{module}") };
    paths::xtask_dir().join(MAIN).join(name)
}

/// The versions that decide: enough to notice that somebody moved one.
fn stamp_text(go_mod: &str) -> String {
    let direct =
        |line: &&str| line.trim_start().starts_with("require ") || line.contains("k8s.io/kubernetes ");
    go_mod.lines().filter(direct).collect::<Vec<_>>().join("\n")
}

/// The first module that a `go.mod` requires, with its version: what it is there for.
fn main_requirement(go_mod: &str) -> Result<String> {
    directive(go_mod, "require").context("a go.mod under xtask/ requires nothing")
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
        for module in [MAIN, E2E] {
            let go_mod = go_mod(module).expect("the module is checked in");
            let version = kubernetes_version(&go_mod).expect("a version");
            let staging = version.replacen("v1.", "v0.", 1);
            let replaced: Vec<_> = go_mod
                .lines()
                .filter(|line| line.contains(" => "))
                .map(|line| line.ends_with(&staging))
                .collect();
            assert!(replaced.len() > 25, "{module}: {} replaced", replaced.len());
            assert!(replaced.iter().all(|same| *same), "{module}");
        }
    }

    #[test]
    fn kubernetes_and_its_tests_are_of_one_release() {
        let version = |module| kubernetes_version(&go_mod(module).expect("checked in")).expect("a version");
        assert_eq!(version(MAIN), version(E2E));
    }

    #[test]
    fn every_binary_is_imported_so_that_go_mod_tidy_keeps_it() {
        let all = [KUBERNETES, H2SPEC, KUBERNETES_TESTS];
        for binary in all.iter().flat_map(|programs| programs.binaries) {
            // One is a package of its module itself.
            if binary.package != format!("xdp-ingress.io/xtask/{}", binary.module) {
                let tools = fs::read_to_string(module_dir(binary.module).join("tools.go")).expect("tools.go");
                assert!(tools.contains(&format!("\"{}\"", binary.package)), "{}", binary.package);
            }
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
