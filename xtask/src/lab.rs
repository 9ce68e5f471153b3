//! `cargo xtask lab up|exec|down`: the lab of network namespaces for a person (`ingress_tests::lab`).

use anyhow::{Result, bail};

use crate::{build, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// up, exec, down.
    #[arg(trailing_var_arg = true)]
    words: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&setup::LAB)?;
    build::run()?;
    bail!("the lab is not written yet ({:?})", args.words)
}
