//! `xdp-ingress drain` and `undrain`.

use http::Method;

use super::client::{self, DaemonArgs};

/// Tells the daemon to stop (or start again) taking new connections; the established ones stay.
pub fn drain(daemon: &DaemonArgs, draining: bool) -> anyhow::Result<()> {
    client::ask(daemon, Method::POST, if draining { "/drain" } else { "/undrain" })?;
    super::say(if draining {
        "draining: new connections go to other nodes, established ones stay"
    } else {
        "serving: this node takes new connections again"
    });
    Ok(())
}
