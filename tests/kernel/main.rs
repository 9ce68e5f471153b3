//! Kernel level: the real BPF object against the verifier and `BPF_PROG_TEST_RUN`. `cargo xtask test kernel` runs it as
//! root, in a network namespace of its own.

mod connections;
mod cookies;
mod differential;
mod front;
mod packets;
mod sockets;
mod verifier;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let args = Arguments::from_args();
    if !args.list
        && let Err(error) = connections::own_namespace()
    {
        eprintln!("kernel tests cannot run: {error:#}");
        return ExitCode::FAILURE;
    }
    let trials =
        [verifier::trials(), packets::trials(), sockets::trials(), differential::trials(), cookies::trials()]
            .into_iter()
            .flatten()
            .collect();
    libtest_mimic::run(&args, trials).exit_code()
}

/// A test that fails with the whole chain of errors.
fn trial(name: &str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || test().map_err(|error| Failed::from(format!("{error:#}"))))
}
