//! Kernel level: the real BPF object against the verifier and `BPF_PROG_TEST_RUN`. `cargo xtask test kernel`
//! runs it as root; each file of this folder is one table of packets and verdicts.

use libtest_mimic::{Arguments, Trial};

fn main() -> std::process::ExitCode {
    let args = Arguments::from_args();
    let trials: Vec<Trial> = Vec::new();
    libtest_mimic::run(&args, trials).exit_code()
}
