//! `xdp-ingress status`.

use http::Method;

use super::Output;
use super::client::{self, DaemonArgs};

/// Prints what the daemon knows and does.
pub fn status(daemon: &DaemonArgs, output: Output) -> anyhow::Result<()> {
    let body = client::ask(daemon, Method::GET, "/status")?;
    if output == Output::Json {
        super::say(&body);
    }
    Ok(())
}
