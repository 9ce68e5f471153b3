//! Brings together what the watches say, and publishes it: for the first time when every kind has been listed, since a
//! half-filled store would withdraw routes that are in use. What is remembered is not half-filled: after a while it is
//! served, with all that has been heard since. Run by `kubernetes`.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::memory::Memory;
use super::namespaces::{Namespaces, Watch};
use super::secrets::Secrets;
use super::{Heard, Update};
use crate::model::Kind;
use crate::source::{COALESCE, Objects};

/// How long the API server may take to list everything before what an earlier daemon left is served.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long objects wait for the Secrets that they name: at the start, and later.
const WAIT_FOR_SECRETS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

pub(super) struct Collector {
    objects: Objects,
    /// Kinds that have not been listed yet.
    missing: BTreeSet<Kind>,
    memory: Memory,
    secrets: Option<Secrets>,
    namespaces: Namespaces,
    sender: watch::Sender<Option<Objects>>,
    is_remembered: bool,
    /// The store is not what was published last.
    changed: bool,
    /// When the first of those changes was heard.
    heard: Option<std::time::Instant>,
    /// Until when objects wait for the Secrets that they name.
    hold: Option<Instant>,
}

impl Collector {
    pub(super) fn new(
        missing: BTreeSet<Kind>,
        secrets: Option<Secrets>,
        namespaces: Namespaces,
        memory: Memory,
        sender: watch::Sender<Option<Objects>>,
    ) -> Self {
        Self {
            objects: Objects::default(),
            missing,
            memory,
            secrets,
            namespaces,
            sender,
            is_remembered: false,
            changed: false,
            heard: None,
            hold: None,
        }
    }

    /// Until nobody listens.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Update>) {
        let patience = Instant::now() + PATIENCE;
        let mut is_patient = true;
        loop {
            let wake = if is_patient { Some(patience) } else { None };
            let wake = [wake, self.hold].into_iter().flatten().min();
            let update = tokio::select! {
                () = self.sender.closed() => return,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => None,
                update = inbox.recv() => match update {
                    Some(update) => Some(update),
                    None => return,
                },
            };
            if let Some(update) = update {
                let mut until = (!update.is_urgent).then(|| Instant::now() + COALESCE);
                self.take(update);
                // What comes with it is translated with it. Endpoints alone are not waited for: while one change of
                // them is made live, the next ones gather by themselves.
                while let Some(update) = next(&mut inbox, until).await {
                    if !update.is_urgent {
                        until.get_or_insert_with(|| Instant::now() + COALESCE);
                    }
                    self.take(update);
                }
            }
            if is_patient && Instant::now() >= patience {
                is_patient = false;
                if !self.missing.is_empty() {
                    self.remember().await;
                }
            }
            if self.missing.is_empty() {
                self.follow_namespaces();
            }
            if self.missing.is_empty() {
                self.follow_secrets();
                self.publish_if(self.hold.is_none());
            } else {
                self.publish_if(self.is_remembered);
            }
        }
    }

    /// Takes from disk what the API server has not told yet.
    async fn remember(&mut self) {
        let memory = self.memory.clone();
        // Only now, and not on this thread: it may be much.
        let Ok(Some(remembered)) = tokio::task::spawn_blocking(move || memory.read()).await else { return };
        tracing::warn!(
            "the API server has not told everything yet: serving what was known before, from disk"
        );
        let mut kinds = self.missing.clone();
        // Those that Ingresses name and pools select are asked for when all else is known.
        kinds.extend([Kind::Secret, Kind::Namespace]);
        self.objects.take(&kinds, remembered);
        self.is_remembered = true;
        self.changed = true;
    }

    fn take(&mut self, update: Update) {
        if (update.apply)(&mut self.objects) {
            self.changed = true;
            self.heard.get_or_insert(update.at);
        }
        match update.first {
            Some(Heard::Kind(kind)) => {
                self.missing.remove(&kind);
                self.changed |= self.missing.is_empty();
            }
            Some(Heard::Secrets(scope)) => {
                if let Some(secrets) = &mut self.secrets {
                    secrets.heard(&scope);
                }
            }
            None => {}
        }
    }

    /// A pool that selects namespaces has nothing for anybody before they are known.
    fn follow_namespaces(&mut self) {
        match self.namespaces.follow(&mut self.objects) {
            Watch::Same => {}
            Watch::Begins => {
                self.missing.insert(Kind::Namespace);
            }
            Watch::Ended => self.changed = true,
        }
    }

    /// Sets `hold` while Secrets are named and not known: an Ingress and its certificate shall come together.
    fn follow_secrets(&mut self) {
        let Some(secrets) = &mut self.secrets else { return };
        self.changed |= secrets.follow(&mut self.objects);
        if !secrets.is_waiting() {
            self.hold = None;
            return;
        }
        let is_first = self.sender.borrow().as_ref().is_none_or(|last| last.is_remembered);
        let wait = if is_first { WAIT_FOR_SECRETS.0 } else { WAIT_FOR_SECRETS.1 };
        let until = *self.hold.get_or_insert_with(|| Instant::now() + wait);
        if until <= Instant::now() {
            secrets.give_up();
            self.hold = None;
        }
    }

    fn publish_if(&mut self, ready: bool) {
        if self.changed && ready {
            self.changed = false;
            self.is_remembered &= !self.missing.is_empty();
            self.objects.is_remembered = self.is_remembered;
            self.objects.heard = self.heard.take();
            self.sender.send_replace(Some(self.objects.clone()));
        }
    }
}

/// What has come already, or comes before `until`.
async fn next(inbox: &mut mpsc::Receiver<Update>, until: Option<Instant>) -> Option<Update> {
    match until {
        Some(until) => timeout_at(until, inbox.recv()).await.ok().flatten(),
        None => inbox.try_recv().ok(),
    }
}
