//! File notifications (inotify) of a changing set of directories. Called by `directory`. Where the system has none to
//! give, the rescan alone finds the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// What has happened, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A file came, went, or was closed after writing: it can be read.
    Complete,
    /// Somebody is writing.
    Writing,
}

/// The notifications.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    changes: mpsc::UnboundedReceiver<Change>,
    /// Keeps the channel open where there is no watcher.
    _sender: mpsc::UnboundedSender<Change>,
    /// With device and inode: a directory that was made anew needs a new watch.
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let handler = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(change) = event.as_ref().map_or(Some(Change::Complete), change) {
                // Nobody listens any more: the source has ended.
                let _ = handler.send(change);
            }
        });
        let watcher = watcher
            .inspect_err(
                |error| tracing::warn!(%error, "no file notifications: changes are found by rescans only"),
            )
            .ok();
        Self { watcher, changes, _sender: sender, watched: BTreeMap::new() }
    }

    /// Watches these directories and no others; whether one is new.
    pub(super) fn follow(&mut self, directories: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let wanted: BTreeMap<PathBuf, (u64, u64)> = directories
            .iter()
            .filter_map(|path| std::fs::metadata(path).ok().map(|at| (path.clone(), (at.dev(), at.ino()))))
            .collect();
        self.watched.retain(|path, inode| {
            let keep = wanted.get(path) == Some(inode);
            if !keep {
                // An error means that the directory has gone, and its watch with it.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        let mut new = false;
        for (path, inode) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    new = true;
                    self.watched.insert(path, inode);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot be watched: changes are found by rescans only");
                }
            }
        }
        new
    }

    /// The next change. Cancel-safe.
    pub(super) async fn changed(&mut self) -> Change {
        self.changes.recv().await.unwrap_or(Change::Complete)
    }
}

fn change(event: &Event) -> Option<Change> {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Change::Complete),
        EventKind::Access(_) => None,
        // A file that was just created is about to be written; a file that was renamed comes as `Modify(Name)`.
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Create(CreateKind::File) => Some(Change::Writing),
        _ => Some(Change::Complete),
    }
}
