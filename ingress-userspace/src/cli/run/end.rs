//! The end of a daemon: told to stop, or its place taken by another one. Established connections end by themselves within the
//! grace period, and still see changes of the objects.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::Stop;
use super::daemon::Daemon;
use super::following::Following;

/// How long the others need to learn that this node drains, before its router stops accepting: heartbeats of the
/// membership go out at once, and packets of new connections that are under way still arrive.
const DRAIN_NOTICE: Duration = Duration::from_millis(500);

/// Waits until the daemon shall end, and for whoever is about to take over.
pub(super) async fn told_to_end(daemon: &Daemon, stop: &mut Stop) {
    stop.asked().await;
    if let Some(expected) = daemon.succession().expected() {
        tracing::info!("told to stop: another daemon is about to take over, waiting for it");
        tokio::select! {
            () = tokio::time::sleep(expected) => {}
            () = daemon.succession().end() => {}
            () = stop.asked() => {}
        }
    }
}

/// Lets the established connections end; they still see changes. A daemon that has handed over stays until it is told to
/// end, as whoever runs it expects.
pub(super) async fn end_in_peace(
    mut following: Following,
    daemon: &Daemon,
    stop: &mut Stop,
    grace: Duration,
) -> anyhow::Result<()> {
    let is_over = daemon.succession().is_over();
    if is_over {
        tracing::info!(
            ?grace,
            "handed over: new connections are the next daemon's, established ones may end"
        );
    } else {
        tracing::info!(?grace, "draining: new connections go elsewhere, established ones may end");
    }
    let reporting = following.reporting.take();
    let mut ended = pin!(async {
        let report = async {
            if let Some((published, reporter)) = reporting {
                drop(published);
                reporter.finish().await;
            }
        };
        tokio::join!(drain(daemon, grace), report)
    });
    let mut is_told = !is_over;
    loop {
        tokio::select! {
            failed = following.follow(daemon) => match failed? {},
            _ = &mut ended => break,
            () = stop.asked() => {
                if std::mem::replace(&mut is_told, true) {
                    tracing::warn!("told to stop twice: cutting what is still open");
                    break;
                }
            }
        }
    }
    if !is_told {
        tracing::info!("the last connection has ended; waiting to be told to end");
        stop.asked().await;
    }
    Ok(())
}

async fn drain(daemon: &Daemon, grace: Duration) {
    let deadline = Instant::now() + grace;
    if !daemon.succession().is_over() {
        daemon.stop();
    }
    if daemon.has_peers() {
        tokio::time::sleep(DRAIN_NOTICE.min(grace)).await;
    }
    daemon.drain_router(deadline.saturating_duration_since(Instant::now())).await;
}
