//! Cluster level: the daemon against a real etcd and kube-apiserver. `cargo xtask test cluster` runs it as root.

use libtest_mimic::{Arguments, Trial};

fn main() -> std::process::ExitCode {
    let args = Arguments::from_args();
    let trials: Vec<Trial> = Vec::new();
    libtest_mimic::run(&args, trials).exit_code()
}
