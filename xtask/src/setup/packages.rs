//! Programs from Debian's packages that the lab, the demo, the tests and the benches call. What is installed is known
//! by the programs themselves, so that on another distribution one only has to install them by hand.

use std::path::Path;

use anyhow::Result;
use ingress_tests::paths;

use super::{Prerequisite, State, debian};

/// A Debian package and the program in it that we call.
struct Package {
    name: &'static str,
    program: &'static str,
}

/// A set of packages for one purpose.
pub(super) struct Packages {
    purpose: &'static str,
    packages: &'static [Package],
}

const fn package(name: &'static str, program: &'static str) -> Package {
    Package { name, program }
}

/// What the lab and the demo call, what stands in front of us there (HAProxy), and what a person wants at hand inside the lab
/// (tcpdump).
pub(super) const LAB: Packages = Packages {
    purpose: "lab",
    packages: &[
        package("iproute2", "ip"),
        package("curl", "curl"),
        package("ethtool", "ethtool"),
        package("nftables", "nft"),
        package("iptables", "iptables"),
        package("iputils-ping", "ping"),
        package("tcpdump", "tcpdump"),
        package("haproxy", "haproxy"),
    ],
};

/// Scrapes the daemon's metrics.
pub(super) const SCENARIOS: Packages =
    Packages { purpose: "scenarios", packages: &[package("prometheus", "prometheus")] };

/// What runs containers on the nodes of the real cluster, and sets clocks.
pub(super) const CLUSTER: Packages = Packages {
    purpose: "cluster",
    packages: &[
        package("containerd", "containerd"),
        package("runc", "runc"),
        package("containernetworking-plugins", "/usr/lib/cni/ptp"),
        package("iptables", "iptables"),
        package("faketime", "faketime"),
    ],
};

/// What Kubernetes' own tests call in the containers of their backend.
pub(super) const KUBERNETES_TESTS: Packages = Packages {
    purpose: "Kubernetes' own tests",
    packages: &[
        package("netcat-openbsd", "nc.openbsd"),
        package("bind9-dnsutils", "nslookup"),
        package("wget", "wget"),
        package("curl", "curl"),
        package("iproute2", "ss"),
    ],
};

/// The peers we measure ourselves against, and what puts load on all of us.
pub(super) const BENCH: Packages = Packages {
    purpose: "bench",
    packages: &[
        package("nginx-core", "nginx"),
        package("haproxy", "haproxy"),
        package("wrk", "wrk"),
        package("nghttp2-client", "h2load"),
        package("valgrind", "valgrind"),
        package("linux-perf", "perf"),
    ],
};

/// What builds libFuzzer.
pub(super) const FUZZ: Packages = Packages { purpose: "fuzz", packages: &[package("g++", "c++")] };

impl Packages {
    fn lacking(&self) -> Vec<&'static str> {
        self.packages
            .iter()
            .filter(|package| !is_there(package.program))
            .map(|package| package.name)
            .collect()
    }
}

/// A program by its name, or a file where a package keeps it out of everybody's `PATH`.
fn is_there(program: &str) -> bool {
    if program.starts_with('/') { Path::new(program).is_file() } else { paths::program(program).is_some() }
}

impl Prerequisite for Packages {
    fn name(&self) -> String {
        format!("Debian packages ({})", self.purpose)
    }

    fn state(&self) -> Result<State> {
        let lacking = self.lacking();
        if lacking.is_empty() {
            let programs: Vec<_> = self.packages.iter().map(|package| package.program).collect();
            return Ok(State::Ready(format!("{} are there", programs.join(", "))));
        }
        Ok(State::Missing(format!("{} not installed", lacking.join(", "))))
    }

    fn install(&self) -> Result<()> {
        debian::install(&self.lacking())
    }
}
