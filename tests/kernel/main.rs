//! Kernel level: the real BPF object against the verifier and `BPF_PROG_TEST_RUN`. `cargo xtask test kernel`
//! runs it as root; each file of this folder is one table of packets and verdicts.

mod front;
mod verifier;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> std::process::ExitCode {
    let args = Arguments::from_args();
    let trials: Vec<Trial> = verifier::trials();
    libtest_mimic::run(&args, trials).exit_code()
}

/// A test that fails with the whole chain of errors.
fn trial(name: &str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || test().map_err(|error| Failed::from(format!("{error:#}"))))
}
