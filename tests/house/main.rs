//! House level: rules about the code itself. `cargo xtask test house` runs it; it needs nothing but the sources.

use libtest_mimic::{Arguments, Trial};

fn main() -> std::process::ExitCode {
    let args = Arguments::from_args();
    let trials: Vec<Trial> = Vec::new();
    libtest_mimic::run(&args, trials).exit_code()
}
