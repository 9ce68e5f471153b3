//! Two daemons of one node side by side, while one takes over from the other, over the control socket of the earlier one.
//!
//! The new one introduces itself and gets the admin address, so that probes ask whoever comes. It reads the objects and
//! listens on the VIPs beside the earlier one; then it asks for the rest: the earlier one leaves the front (membership, maps,
//! heartbeat) as it stands, says with what to go on, closes its listeners, whose queues the kernel moves to the new ones, and
//! serves its connections to their end. It ends when it is told to: whoever started it would start it again otherwise.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::Method;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::daemon::{Daemon, lock};
use crate::cli::client;
use crate::l4::{self, L4, Prepared};
use crate::observe::admin::{self, SocketFile};

/// Whoever introduced itself is expected to take over within this time.
const EXPECTED: Duration = Duration::from_secs(15);

/// One that does not answer within this time hangs.
const ANSWER: Duration = Duration::from_secs(10);

/// How long to ask a daemon that is not able to hand over yet, or ends by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the next daemon goes on with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Legacy {
    /// `None`: there was none.
    pub(super) front: Option<l4::Legacy>,
    /// An operator wants this node drained.
    pub(super) draining: bool,
}

/// The earlier daemon's side.
#[derive(Default)]
pub(super) struct Succession {
    introduced: Notify,
    introduced_at: Mutex<Option<Instant>>,
    handed_over: Notify,
    is_over: AtomicBool,
}

impl Succession {
    /// A successor has come.
    pub(super) fn introduced(&self) {
        *lock(&self.introduced_at) = Some(Instant::now());
        self.introduced.notify_one();
    }

    /// Waits for one.
    pub(super) async fn successor(&self) {
        self.introduced.notified().await;
    }

    /// How long one may still be waited for that has come and not taken over.
    pub(super) fn expected(&self) -> Option<Duration> {
        let at = (*lock(&self.introduced_at))?;
        EXPECTED.checked_sub(at.elapsed()).filter(|_| !self.is_over())
    }

    /// The successor has it all.
    pub(super) fn handed_over(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.handed_over.notify_one();
    }

    /// Waits for that; only one waits at a time.
    pub(super) async fn end(&self) {
        if !self.is_over() {
            self.handed_over.notified().await;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// The new daemon's side: its place on the node, which may still be another one's.
pub(super) struct Place {
    socket: PathBuf,
    /// Set once the place is ours.
    file: Option<SocketFile>,
    is_free: bool,
    /// Waits for the place.
    prepared: Option<Prepared>,
}

impl Place {
    /// Looks whether a daemon answers at the control socket `socket` and introduces this one to it. An error if that one
    /// cannot hand over. Where nobody is, the socket is ours at once.
    pub(super) async fn find(socket: PathBuf, daemon: &Arc<Daemon>) -> anyhow::Result<Self> {
        if UnixStream::connect(&socket).await.is_err() {
            let file = admin::serve_unix(&socket, Arc::clone(daemon) as _)
                .with_context(|| format!("listening on the control socket {}", socket.display()))?;
            return Ok(Self { socket, file: Some(file), is_free: true, prepared: None });
        }
        // Names of nodes are DNS subdomains: they stand in a URI as they are.
        let path = format!("/introduce?{}", daemon.node());
        let introduced = client::request(&socket, Method::POST, &path);
        let introduced =
            tokio::time::timeout(ANSWER, introduced).await.map_err(anyhow::Error::from).flatten();
        introduced.with_context(|| {
            format!("another daemon runs on {} and does not hand over: stop it first", socket.display())
        })?;
        tracing::info!(socket = %socket.display(), "another daemon runs on this node: taking over from it");
        Ok(Self { socket, file: None, is_free: false, prepared: None })
    }

    /// Whether there is nobody to take over from.
    pub(super) const fn is_free(&self) -> bool {
        self.is_free
    }

    /// The front to start in it; without one it is off.
    pub(super) fn prepare(&mut self, prepared: Prepared) {
        self.prepared = Some(prepared);
    }

    /// Takes over, if it must, and starts the front.
    pub(super) async fn take(&mut self, daemon: &Arc<Daemon>) -> anyhow::Result<()> {
        let legacy = if self.is_free { Legacy::default() } else { ask_for_all(&self.socket).await? };
        let front = self.prepared.take().map(|prepared| L4::start(prepared, legacy.front)).transpose()?;
        daemon.set_front(front);
        if legacy.draining {
            admin::Daemon::drain(&**daemon, true);
        }
        self.is_free = true;
        if self.file.is_none() {
            let file = admin::replace_unix(&self.socket, Arc::clone(daemon) as _)
                .with_context(|| format!("taking over the control socket {}", self.socket.display()))?;
            self.file = Some(file);
        }
        Ok(())
    }
}

/// What the daemon at `socket` leaves: nothing if it ends before it is asked.
async fn ask_for_all(socket: &Path) -> anyhow::Result<Legacy> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = tokio::time::timeout(ANSWER, client::request(socket, Method::POST, "/hand-over"));
        let error = match asked.await.map_err(anyhow::Error::from).flatten() {
            Ok(legacy) => {
                return serde_json::from_str(&legacy).context("reading what the daemon before left");
            }
            Err(_) if UnixStream::connect(socket).await.is_err() => return Ok(Legacy::default()),
            Err(error) => error,
        };
        anyhow::ensure!(Instant::now() < deadline, "the daemon before does not hand over: {error:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
