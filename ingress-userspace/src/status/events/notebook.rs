//! Which problems have to be reported as Events now: each once, again only when its Event has expired, and never faster
//! than the API server likes. Pure; `events` feeds it the problems and the time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::{Kind, Problem};
use crate::status::clock::Moment;

/// A problem that is still there is reported again after so long: an API server keeps Events for an hour by default.
pub(super) const REPEAT: Duration = Duration::from_mins(61);
/// An Event that the server refused is tried again after so long: while a server starts, it refuses what it grants later.
const REFUSED: Duration = Duration::from_mins(5);
/// Events about one object: a page of `kubectl describe`. The log and `xdp-ingress status` have the rest.
const PER_OBJECT: usize = 10;
/// Events at once, and the time in which one more may be sent.
const BURST: u32 = 50;
const REFILL: Duration = Duration::from_millis(200);
/// First and longest pause after the API server failed; doubled in between.
const API_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Report this, then say `reported`, `refused` or `failed`.
    Report(Problem),
    /// Nothing before then.
    Wait(Moment),
    /// Nothing until the problems change.
    Idle,
}

/// Remembers what was reported.
#[derive(Debug)]
pub(super) struct Notebook {
    problems: Vec<Problem>,
    /// Those before it are reported.
    cursor: usize,
    /// When they are due again.
    reported: HashMap<Problem, Moment>,
    bucket: Bucket,
    api_pause: Option<(Moment, Duration)>,
}

impl Notebook {
    /// An empty one at `now`.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            problems: Vec::new(),
            cursor: 0,
            reported: HashMap::new(),
            bucket: Bucket { tokens: BURST, since: now },
            api_pause: None,
        }
    }

    /// These are the problems now.
    pub(super) fn problems(&mut self, now: Moment, problems: &[Problem]) {
        let mut seen = HashSet::new();
        let mut of_object: HashMap<_, usize> = HashMap::new();
        let kept = problems.iter().filter(|problem| {
            if problem.object.kind == Kind::File || !seen.insert(*problem) {
                return false;
            }
            let count = of_object.entry(&problem.object).or_default();
            *count += 1;
            *count <= PER_OBJECT
        });
        self.problems = kept.cloned().collect();
        self.cursor = 0;
        // One that comes back soon is not news; one that went long ago is.
        self.reported.retain(|problem, due| seen.contains(problem) || now < *due);
    }

    /// What to do at `now`.
    pub(super) fn next(&mut self, now: Moment) -> Next {
        if let Some((until, _)) = self.api_pause.filter(|(until, _)| now < *until) {
            return Next::Wait(until);
        }
        while let Some(problem) = self.problems.get(self.cursor) {
            if self.due(now, problem) {
                return match self.bucket.take(now) {
                    Ok(()) => Next::Report(problem.clone()),
                    Err(until) => Next::Wait(until),
                };
            }
            self.cursor += 1;
        }
        let again = self.problems.iter().filter_map(|problem| self.reported.get(problem)).min();
        match again {
            Some(first) => {
                self.cursor = 0;
                Next::Wait(*first)
            }
            None => Next::Idle,
        }
    }

    /// `problem` was reported.
    pub(super) fn reported(&mut self, now: Moment, problem: Problem) {
        self.api_pause = None;
        self.reported.insert(problem, now + REPEAT);
    }

    /// The API server refused the Event about `problem`.
    pub(super) fn refused(&mut self, now: Moment, problem: Problem) {
        self.api_pause = None;
        self.reported.insert(problem, now + REFUSED);
    }

    /// The API server could not be reached.
    pub(super) fn failed(&mut self, now: Moment) {
        let pause = self.api_pause.map_or(API_PAUSE.0, |(_, pause)| (pause * 2).min(API_PAUSE.1));
        self.api_pause = Some((now + pause, pause));
    }

    fn due(&self, now: Moment, problem: &Problem) -> bool {
        self.reported.get(problem).is_none_or(|due| *due <= now)
    }
}

/// A token bucket: `BURST` at once, one more each `REFILL`.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// When the last token was added.
    since: Moment,
}

impl Bucket {
    /// Takes a token, or says when there is one.
    fn take(&mut self, now: Moment) -> Result<(), Moment> {
        let added = now.since(self.since).as_nanos() / REFILL.as_nanos();
        let added = u32::try_from(added).unwrap_or(u32::MAX);
        if self.tokens.saturating_add(added) >= BURST {
            self.tokens = BURST;
            self.since = now;
        } else {
            self.tokens += added;
            self.since = self.since + REFILL * added;
        }
        if self.tokens == 0 {
            return Err(self.since + REFILL);
        }
        self.tokens -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
