//! Brings together what the watches say, and publishes it: for the first time when every kind has been listed, since a
//! half-filled store would withdraw routes that are in use. What is remembered is not half-filled: after a while it is
//! served, with all that has been heard since. Run by `kubernetes`.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::secrets::Secrets;
use super::{Heard, Update};
use crate::source::{COALESCE, Objects};

/// How long the API server may take to list everything before what an earlier daemon left is served.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long objects wait for the Secrets that they name: at the start, and later.
const WAIT_FOR_SECRETS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

pub(super) struct Collector {
    objects: Objects,
    /// Kinds that have not been listed yet.
    missing: usize,
    secrets: Option<Secrets>,
    sender: watch::Sender<Option<Objects>>,
    is_remembered: bool,
    /// The store is not what was published last.
    changed: bool,
    /// Until when objects wait for the Secrets that they name.
    hold: Option<Instant>,
}

impl Collector {
    pub(super) fn new(
        kinds: usize,
        secrets: Option<Secrets>,
        remembered: Option<Objects>,
        sender: watch::Sender<Option<Objects>>,
    ) -> Self {
        let is_remembered = remembered.is_some();
        let objects = remembered.unwrap_or_default();
        Self { objects, missing: kinds, secrets, sender, is_remembered, changed: false, hold: None }
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
                self.take(update);
                let rest = Instant::now() + COALESCE;
                while let Ok(Some(update)) = timeout_at(rest, inbox.recv()).await {
                    self.take(update);
                }
            }
            if is_patient && Instant::now() >= patience {
                is_patient = false;
                if self.is_remembered && self.missing > 0 {
                    tracing::warn!(
                        "the API server has not told everything yet: serving what was known before, from disk"
                    );
                    self.changed = true;
                }
            }
            if self.missing == 0 {
                self.follow_secrets();
                self.publish_if(self.hold.is_none());
            } else {
                self.publish_if(self.is_remembered && !is_patient);
            }
        }
    }

    fn take(&mut self, update: Update) {
        self.changed |= (update.apply)(&mut self.objects);
        match update.first {
            Some(Heard::Kind) => {
                self.missing -= 1;
                self.changed |= self.missing == 0;
            }
            Some(Heard::Secrets(scope)) => {
                if let Some(secrets) = &mut self.secrets {
                    secrets.heard(&scope);
                }
            }
            None => {}
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
            self.is_remembered &= self.missing > 0;
            self.objects.is_remembered = self.is_remembered;
            self.sender.send_replace(Some(self.objects.clone()));
        }
    }
}
