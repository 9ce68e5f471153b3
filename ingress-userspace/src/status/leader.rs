//! Who may write: leader election on a Lease as a state machine without IO. `lease` asks it what to do next, does that
//! and reports back; time is an argument everywhere.
//!
//! Why there are never two writers: a leader may write until `renew_deadline` after it *sent* its last successful
//! renewal. Another one takes the Lease over only when it has seen it unchanged for `lease`, counted from when it
//! *received* it, and only if it is still unchanged then (`resourceVersion`). Receiving comes after sending, so
//! `lease - renew_deadline` remains for requests under way. No clocks are compared between machines.

use std::time::Duration;

use super::clock::Moment;

/// The periods of the election; client-go's defaults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// A Lease that did not change for so long may be taken over.
    pub(super) lease: Duration,
    /// A leader that could not renew for so long stops writing. Shorter than `lease` by the longest request.
    pub(super) renew_deadline: Duration,
    /// The leader renews so often; failed requests are repeated after so long.
    pub(super) retry: Duration,
    /// The others look so often, or when the Lease may be over if that is sooner. Longer than `retry`: every node of the
    /// cluster is a candidate, and a released Lease is no emergency.
    pub(super) look: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
            look: Duration::from_secs(5),
        }
    }
}

/// What a candidate needs to know of the Lease object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// `metadata.resourceVersion`.
    pub(super) version: String,
    /// `spec.holderIdentity`; empty: released.
    pub(super) holder: String,
    /// `spec.leaseDurationSeconds`, if its holder says one.
    pub(super) duration: Option<Duration>,
}

/// A write of the Lease with us as the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// The version that it replaces: the write must fail if there is another one. `None`: create the Lease.
    pub(super) over: Option<String>,
    /// The holder changes: `acquireTime` and `leaseTransitions` do too.
    pub(super) takes_over: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing before then.
    Wait(Moment),
    /// Get the Lease; report by `saw` or `failed`.
    Read,
    /// Write it; report by `claimed`, `refused` or `failed`.
    Write(Claim),
}

/// One candidate.
#[derive(Debug)]
pub(super) struct Elector {
    me: String,
    timing: Timing,
    /// The Lease as last seen, and when this version of it was received first.
    known: Option<(Record, Moment)>,
    next: Next,
    not_before: Option<Moment>,
    writes_until: Option<Moment>,
    random: u64,
}

#[derive(Debug)]
enum Next {
    Read,
    Write(Claim),
}

impl Elector {
    /// A candidate that is called `me`, which nobody else ever was. `seed` spreads the candidates' requests in time.
    pub(super) fn new(me: String, timing: Timing, seed: u64) -> Self {
        Self {
            me,
            timing,
            known: None,
            next: Next::Read,
            not_before: None,
            writes_until: None,
            random: seed | 1,
        }
    }

    /// What to do at `now`.
    pub(super) fn next(&self, now: Moment) -> Action {
        match (&self.next, self.not_before) {
            (_, Some(moment)) if now < moment => Action::Wait(moment),
            (Next::Read, _) => Action::Read,
            (Next::Write(claim), _) => Action::Write(claim.clone()),
        }
    }

    /// Until when this candidate may write, if it may at all. To be compared with the time just before each write.
    pub(super) fn writes_until(&self) -> Option<Moment> {
        self.writes_until
    }

    /// The Lease was received at `now`; `None`: there is none.
    pub(super) fn saw(&mut self, now: Moment, lease: Option<Record>) {
        self.not_before = None;
        let Some(lease) = lease else {
            self.lost();
            self.known = None;
            self.next = Next::Write(Claim { over: None, takes_over: true });
            return;
        };
        let since = match &self.known {
            Some((known, since)) if known.version == lease.version => *since,
            _ => now,
        };
        let over_at = since + lease.duration.unwrap_or_default().max(self.timing.lease);
        let over = Some(lease.version.clone());
        if lease.holder == self.me {
            // Also after a write whose answer got lost.
            self.next = Next::Write(Claim { over, takes_over: false });
        } else {
            self.lost();
            if lease.holder.is_empty() || over_at <= now {
                self.next = Next::Write(Claim { over, takes_over: true });
            } else {
                self.next = Next::Read;
                let look = self.jittered(self.timing.look);
                self.not_before = Some(over_at.min(now + look));
            }
        }
        self.known = Some((lease, since));
    }

    /// A claim that was sent at `sent` succeeded; the Lease has `version` now.
    pub(super) fn claimed(&mut self, sent: Moment, version: String) {
        self.writes_until = Some(sent + self.timing.renew_deadline);
        self.not_before = Some(sent + self.timing.retry);
        self.next = Next::Write(Claim { over: Some(version.clone()), takes_over: false });
        let lease = Record { version, holder: self.me.clone(), duration: Some(self.timing.lease) };
        self.known = Some((lease, sent));
    }

    /// A claim was refused because the Lease has another version, exists already, or no longer exists.
    pub(super) fn refused(&mut self, now: Moment) {
        self.next = Next::Read;
        // Not at once: whoever was faster is now seen at the first look.
        self.not_before = Some(now + self.jittered(self.timing.retry / 10));
    }

    /// A request got no usable answer: the server may or may not have done it.
    pub(super) fn failed(&mut self, now: Moment) {
        self.next = Next::Read;
        self.not_before = Some(now + self.jittered(self.timing.retry));
    }

    /// Gives the Lease up: stops writing now and returns the version to release, if it is ours.
    pub(super) fn resign(&mut self) -> Option<String> {
        self.lost();
        self.next = Next::Read;
        let (lease, _) = self.known.take()?;
        (lease.holder == self.me).then_some(lease.version)
    }

    fn lost(&mut self) {
        self.writes_until = None;
    }

    /// `duration` to 1.2 times `duration` (client-go's jitter).
    fn jittered(&mut self, duration: Duration) -> Duration {
        // xorshift64: spreads requests, keeps no secrets.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        duration + duration / 1000 * u32::try_from(self.random % 200).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
