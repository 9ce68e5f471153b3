//! `xdp-ingress run`.

use super::config::RunArgs;

/// Runs the daemon until it is told to stop.
pub fn run(_arguments: &RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
