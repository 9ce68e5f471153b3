//! The directory source: a file or a directory of ordinary manifests, watched for changes. Started by `source`;
//! `cli::check` reads once without watching. What a file's content means is `manifest`'s to say, which versions stay in
//! use while a file is broken is `files`' to say; this file only waits and publishes.

mod files;
mod scan;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::{COALESCE, Objects, Receiver};
use files::Files;
use watch::{Change, Watch};

/// The safety net under the file notifications (network file systems have none): how often everything is looked at.
const RESCAN: Duration = Duration::from_secs(10);
/// How long a file that somebody has open for writing must rest before it is read: half a file is not its content.
const SETTLE: Duration = Duration::from_millis(50);

/// Reads manifests once.
pub fn read_once(paths: &[PathBuf]) -> anyhow::Result<Objects> {
    let mut files = Files::default();
    for path in paths {
        exists(path)?;
    }
    files.update(&scan::scan(paths));
    Ok(files.objects())
}

fn exists(path: &Path) -> anyhow::Result<()> {
    std::fs::metadata(path).map(drop).with_context(|| format!("cannot read manifests at {}", path.display()))
}

/// Reads the manifests and goes on watching them until the receiver is dropped.
pub(super) async fn start(path: PathBuf) -> anyhow::Result<Receiver> {
    exists(&path)?;
    let mut state = State { roots: vec![path], files: Files::default(), watch: Watch::new() };
    state = tokio::task::spawn_blocking(move || {
        state.scan();
        state
    })
    .await?;
    let (sender, receiver) = tokio::sync::watch::channel(Some(state.files.objects()));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = wait(&mut state.watch) => {}
            }
            let Ok((next, changed)) = tokio::task::spawn_blocking(move || {
                let changed = state.scan();
                (state, changed)
            })
            .await
            else {
                return;
            };
            state = next;
            if changed {
                sender.send_replace(Some(state.files.objects()));
            }
        }
    });
    Ok(receiver)
}

/// Until something has changed and rests, or the time for a rescan has come.
async fn wait(watch: &mut Watch) {
    let Ok(first) = tokio::time::timeout(RESCAN, watch.changed()).await else { return };
    let mut rest = rest_after(first);
    // A stream of changes that never rests is read all the same.
    let deadline = tokio::time::Instant::now() + SETTLE * 4;
    while let Ok(change) =
        tokio::time::timeout_at(deadline.min(tokio::time::Instant::now() + rest), watch.changed()).await
    {
        rest = rest_after(change);
    }
}

fn rest_after(change: Change) -> Duration {
    match change {
        Change::Complete => COALESCE,
        Change::Writing => SETTLE,
    }
}

struct State {
    roots: Vec<PathBuf>,
    files: Files,
    watch: Watch,
}

impl State {
    /// Looks at everything; whether something has changed.
    fn scan(&mut self) -> bool {
        let mut found = scan::scan(&self.roots);
        // A directory that is new to the watch may have changed between the look and the watch: look again.
        while self.watch.follow(&found.directories) {
            found = scan::scan(&self.roots);
        }
        self.files.update(&found)
    }
}

#[cfg(test)]
mod tests;
