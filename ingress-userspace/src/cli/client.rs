//! How the verbs reach the running daemon: HTTP over the control socket in its state directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;

/// Where the daemon keeps its state unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/run/xdp-ingress";
/// Name of the control socket inside the state directory.
pub const SOCKET_NAME: &str = "control.sock";
/// Largest answer that we read, in bytes: a status with 10,000 Ingresses is a few MB.
const MAX_ANSWER: usize = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which daemon to ask.
#[derive(Debug, Clone, Args)]
pub struct DaemonArgs {
    /// State directory of the daemon.
    #[arg(long, env = "XDP_INGRESS_STATE_DIR", default_value = DEFAULT_STATE_DIR, value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// Asks the daemon and returns the body of its answer.
pub fn ask(daemon: &DaemonArgs, method: Method, path: &str) -> anyhow::Result<String> {
    let socket = daemon.state_dir.join(SOCKET_NAME);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, request(&socket, method, path))
            .await
            .with_context(|| format!("the daemon at {} did not answer in {TIMEOUT:?}", socket.display()))?
    })
}

/// One request over the control socket at `socket`.
pub(crate) async fn request(socket: &Path, method: Method, path: &str) -> anyhow::Result<String> {
    let stream = tokio::net::UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no daemon at {}: is it running, and is --state-dir the same as its own? (root may be needed)",
            socket.display()
        )
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request =
        Request::builder().method(method).uri(path).header("host", "localhost").body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("reading the daemon's answer: {error}"))?
        .to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    if !status.is_success() {
        bail!("the daemon answered {status}: {}", body.trim_end());
    }
    Ok(body)
}
