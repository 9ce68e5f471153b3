//! The binary `xdp-ingress`; everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    xdp_ingress::cli::main()
}
