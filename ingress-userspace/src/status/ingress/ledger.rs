//! Which Ingress statuses have to be written, in which order and when: wanted (by the snapshot) against present (on the
//! API server). Pure; `ingress` feeds it and does what it says. It knows no Kubernetes types.
//!
//! An Ingress whose addresses we applied but which is no longer wanted gets them cleared. Latest wins: what to write is
//! decided when there is room to write it, never earlier.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{ObjectRef, Snapshot};
use crate::status::clock::Moment;

/// First and longest pause after the API server failed; doubled in between.
const API_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// First and longest pause between two writes of one Ingress whose wanted addresses did not change meanwhile. Such
/// writes mean that another controller keeps overwriting ours: it must not become a race of two machines.
const OBJECT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// An Ingress as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Present {
    /// `metadata.resourceVersion`.
    pub(super) version: String,
    /// The addresses that its status shows; `None` if it shows anything else than plain addresses.
    pub(super) addresses: Option<BTreeSet<IpAddr>>,
    /// We applied them.
    pub(super) ours: bool,
}

/// What to do with a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Show these addresses.
    Set(Vec<IpAddr>),
    /// Remove what we wrote.
    Clear,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(addresses) => write!(f, "set to {addresses:?}"),
            Self::Clear => f.write_str("cleared"),
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// The Ingress.
    pub(super) object: ObjectRef,
    /// The version on which the decision is based.
    pub(super) version: String,
    /// What to write.
    pub(super) change: Change,
}

/// How a write went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Done; this is how it looks now.
    Written(Present),
    /// There is a newer version, which the watch will show.
    Outdated,
    /// The Ingress no longer exists.
    Gone,
    /// The server understood and said no.
    Refused(String),
    /// The server could not be reached or was overloaded.
    Unreachable(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This, reporting by `done`.
    Write(Job),
    /// Nothing before then.
    Wait(Moment),
    /// Nothing until something changes.
    Idle,
}

/// The statuses that are wanted and present.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    wanted: Arc<Snapshot>,
    present: HashMap<ObjectRef, Present>,
    /// Changed since they were looked at last.
    dirty: BTreeSet<ObjectRef>,
    writing: HashSet<ObjectRef>,
    /// Ingresses written before: when again at the earliest, and the pause after that write.
    paced: HashMap<ObjectRef, (Moment, Duration)>,
    /// The API server failed: nothing before then, and the pause that led there.
    api_pause: Option<(Moment, Duration)>,
}

impl Ledger {
    /// A new snapshot.
    pub(super) fn want(&mut self, snapshot: Arc<Snapshot>) {
        let (old, new) = (&self.wanted.ingresses, &snapshot.ingresses);
        if old.is(new) {
            self.wanted = snapshot;
            return;
        }
        let changed = new.iter().filter(|(object, addresses)| old.get(object) != Some(addresses));
        let gone = old.iter().filter(|(object, _)| !new.contains_key(object));
        for (object, _) in changed.chain(gone) {
            self.paced.remove(object);
            self.dirty.insert(object.clone());
        }
        self.wanted = snapshot;
    }

    /// An Ingress appeared or changed on the API server.
    pub(super) fn saw(&mut self, object: ObjectRef, present: Present) {
        self.present.insert(object.clone(), present);
        self.dirty.insert(object);
    }

    /// An Ingress was deleted.
    pub(super) fn gone(&mut self, object: &ObjectRef) {
        self.present.remove(object);
        self.paced.remove(object);
        self.dirty.remove(object);
    }

    /// All Ingresses were listed anew.
    pub(super) fn relisted(&mut self, present: HashMap<ObjectRef, Present>) {
        self.paced.retain(|object, _| present.contains_key(object));
        self.dirty = present.keys().cloned().collect();
        self.present = present;
    }

    /// What to do at `now`.
    pub(super) fn next(&mut self, now: Moment) -> Next {
        let mut wake: Option<Moment> = None;
        let mut settled = Vec::new();
        let mut found = None;
        for object in &self.dirty {
            if self.writing.contains(object) {
                continue;
            }
            let Some((version, change)) = self.decide(object) else {
                settled.push(object.clone());
                continue;
            };
            let paced = self.paced.get(object).map(|(until, _)| *until);
            let until = paced.max(self.api_pause.map(|(until, _)| until));
            if let Some(until) = until.filter(|until| now < *until) {
                wake = Some(wake.map_or(until, |wake| wake.min(until)));
            } else {
                found = Some(Job { object: object.clone(), version: version.to_owned(), change });
                break;
            }
        }
        for object in &settled {
            self.dirty.remove(object);
        }
        match (found, wake) {
            (Some(job), _) => {
                self.dirty.remove(&job.object);
                self.writing.insert(job.object.clone());
                Next::Write(job)
            }
            (None, Some(until)) => Next::Wait(until),
            (None, None) => Next::Idle,
        }
    }

    /// A write that `next` asked for has ended at `now`.
    pub(super) fn done(&mut self, now: Moment, job: &Job, outcome: Outcome) {
        let object = &job.object;
        self.writing.remove(object);
        match outcome {
            Outcome::Written(present) => {
                self.api_pause = None;
                self.pace(now, object);
                // Deleted while it was written: the watch has said so already, and is right.
                if let Some(known) = self.present.get_mut(object) {
                    *known = present;
                    self.dirty.insert(object.clone());
                }
            }
            Outcome::Outdated | Outcome::Refused(_) => {
                self.api_pause = None;
                self.pace(now, object);
                self.dirty.insert(object.clone());
            }
            Outcome::Unreachable(_) => {
                let pause = self.api_pause.map_or(API_PAUSE.0, |(_, pause)| (pause * 2).min(API_PAUSE.1));
                // Writes that were under way together fail together: that is one failure.
                if self.api_pause.is_none_or(|(until, _)| until <= now) {
                    self.api_pause = Some((now + pause, pause));
                }
                self.dirty.insert(object.clone());
            }
            Outcome::Gone => self.gone(object),
        }
    }

    /// What has to be written to `object`, and over which version.
    fn decide(&self, object: &ObjectRef) -> Option<(&str, Change)> {
        let present = self.present.get(object)?;
        let wanted = self.wanted.ingresses.get(object).map(Vec::as_slice).unwrap_or_default();
        let change = if wanted.is_empty() {
            present.ours.then_some(Change::Clear)
        } else {
            // The right addresses that somebody else wrote are applied too: so they become ours to remove.
            let shown =
                present.addresses.as_ref().is_some_and(|shown| *shown == wanted.iter().copied().collect());
            (!shown || !present.ours).then(|| Change::Set(wanted.to_vec()))
        };
        change.map(|change| (present.version.as_str(), change))
    }

    fn pace(&mut self, now: Moment, object: &ObjectRef) {
        let pause = match self.paced.get(object) {
            // Quiet for long since: whatever it was is over.
            Some((until, pause)) if now.since(*until) < OBJECT_PAUSE.1 => (*pause * 2).min(OBJECT_PAUSE.1),
            _ => OBJECT_PAUSE.0,
        };
        self.paced.insert(object.clone(), (now + pause, pause));
    }
}

#[cfg(test)]
mod tests;
