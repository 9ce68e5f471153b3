//! Lab level: the real daemon on every node of a lab of network namespaces, real clients. `cargo xtask test lab`
//! runs it as root; each file of this folder is one scenario.

use libtest_mimic::{Arguments, Trial};

fn main() -> std::process::ExitCode {
    let args = Arguments::from_args();
    let trials: Vec<Trial> = Vec::new();
    libtest_mimic::run(&args, trials).exit_code()
}
