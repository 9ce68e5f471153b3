//! `xdp-ingress cleanup`: takes everything off the node that the daemon left there on purpose (it stays through
//! restarts): programs on the uplinks, pinned maps and links, VIPs on `lo`, the objects that it remembers, the control
//! socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::client::{DaemonArgs, SOCKET_NAME};
use crate::{l4, source};

/// `xdp-ingress cleanup`.
#[derive(Debug, Clone, Args)]
pub struct CleanupArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Directory of the pinned maps and links.
    #[arg(long, env = "XDP_INGRESS_PIN_PATH", default_value = "/sys/fs/bpf/xdp-ingress", value_name = "DIR")]
    pin_path: PathBuf,
}

/// Leaves nothing behind. Refuses while a daemon runs, which would put it all back.
pub fn cleanup(arguments: &CleanupArgs) -> anyhow::Result<()> {
    let state = &arguments.daemon.state_dir;
    let socket = state.join(SOCKET_NAME);
    ensure!(
        UnixStream::connect(&socket).is_err(),
        "a daemon is running (it answers at {}): stop it first",
        socket.display()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(l4::cleanup(&arguments.pin_path))
        .with_context(|| format!("taking the XDP front off this node ({})", arguments.pin_path.display()))?;
    source::forget(state).context("removing the remembered objects")?;
    gone(std::fs::remove_file(&socket)).with_context(|| format!("removing {}", socket.display()))?;
    // Others may have put something there; then it is theirs.
    let _ = std::fs::remove_dir(state);
    super::say("nothing of xdp-ingress is left on this node");
    Ok(())
}

/// That it is gone already is fine.
fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
