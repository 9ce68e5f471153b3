//! `cargo xtask demo`: builds what the demo needs and runs it (`ingress_tests::demo`).

use anyhow::{Result, bail};

use crate::{build, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave the lab up at the end and say what to try.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&setup::LAB)?;
    build::run()?;
    if !ingress_tests::demo::run(args.keep)? {
        bail!("the demo shows that a promise was not kept (see above)");
    }
    Ok(())
}
