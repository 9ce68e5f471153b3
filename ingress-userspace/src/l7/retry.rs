//! When a request that an endpoint failed goes to another one: `proxy-next-upstream*` of its route, and a budget, so that
//! retries cannot multiply the load of a cluster in trouble. Asked by both engines. Pure.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Instant;

use crate::model::Retry;

/// How an endpoint failed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It refused the connection: nothing of the request was sent.
    ConnectError,
    /// It did not accept the connection in time.
    ConnectTimeout,
    /// The connection ended before an answer.
    Error,
    /// No answer in time.
    Timeout,
    /// What it sent is no HTTP.
    Invalid,
    /// It answered with this status.
    Status(u16),
}

/// What counts beside the route's wishes.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The endpoints that failed it before.
    pub tried: &'a [SocketAddr],
    /// When the request came.
    pub started: Option<Instant>,
    /// Sent twice it does what it does once (RFC 9110 9.2.2).
    pub is_idempotent: bool,
    /// All of it is still there, and the client has seen nothing of an answer.
    pub is_whole: bool,
}

/// Whether the request may go to one more endpoint. Takes from the budget if it says so.
pub fn allowed(retry: &Retry, cause: Cause, attempt: Attempt<'_>, budget: &Budget) -> bool {
    let on = &retry.on;
    let (wanted, sent) = match cause {
        Cause::ConnectError => (on.error, false),
        Cause::ConnectTimeout => (on.timeout, false),
        Cause::Error => (on.error, true),
        Cause::Timeout => (on.timeout, true),
        Cause::Invalid => (on.invalid_header, true),
        Cause::Status(status) => (on.statuses.contains(status), true),
    };
    // With the one that just failed.
    let asked = u32::try_from(attempt.tried.len()).unwrap_or(u32::MAX).saturating_add(1);
    let in_time = |limit| attempt.started.is_none_or(|started| started.elapsed() < limit);
    wanted
        && (retry.tries == 0 || asked < retry.tries)
        && retry.timeout.is_none_or(in_time)
        && attempt.is_whole
        // What no endpoint has seen is safe to send, and costs none of them anything.
        && (!sent || ((attempt.is_idempotent || on.non_idempotent) && budget.withdraw()))
}

/// A cluster's budget of one worker: a fifth of its requests may be sent again, and a few in any case.
#[derive(Debug)]
pub struct Budget(Cell<u32>);

/// In hundredths of a retry.
const DEPOSIT: u32 = 20;
const COST: u32 = 100;
const START: u32 = 10 * COST;
const MOST: u32 = 100 * COST;

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(START))
    }
}

impl Budget {
    /// A request came.
    pub fn deposit(&self) {
        self.0.set((self.0.get() + DEPOSIT).min(MOST));
    }

    fn withdraw(&self) -> bool {
        let left = self.0.get().checked_sub(COST);
        if let Some(left) = left {
            self.0.set(left);
        }
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::RetryOn;

    const FRESH: Attempt<'static> =
        Attempt { tried: &[], started: None, is_idempotent: true, is_whole: true };

    fn asks(retry: &Retry, cause: Cause, attempt: Attempt<'_>) -> bool {
        allowed(retry, cause, attempt, &Budget::default())
    }

    #[test]
    fn conditions_methods_and_limits() {
        let default = Retry::default();
        assert!(asks(&default, Cause::ConnectError, FRESH) && asks(&default, Cause::Timeout, FRESH));
        assert!(!asks(&default, Cause::Invalid, FRESH) && !asks(&default, Cause::Status(502), FRESH));
        let post = Attempt { is_idempotent: false, ..FRESH };
        // nginx: a POST that no endpoint has seen may go to the next one, any other may not.
        assert!(asks(&default, Cause::ConnectError, post) && asks(&default, Cause::ConnectTimeout, post));
        assert!(!asks(&default, Cause::Error, post));
        let gone = Attempt { is_whole: false, ..FRESH };
        assert!(!asks(&default, Cause::Error, gone));
        let a = "192.0.2.1:80".parse().unwrap();
        let third = Attempt { tried: &[a, a], ..FRESH };
        assert!(!asks(&default, Cause::Error, third));
        assert!(asks(&Retry { tries: 0, ..default }, Cause::Error, third));
        assert!(!asks(&Retry { on: RetryOn::OFF, ..default }, Cause::ConnectError, FRESH));

        let mut on = RetryOn { non_idempotent: true, ..RetryOn::default() };
        assert!(on.statuses.insert(503) && !on.statuses.insert(501));
        let eager = Retry { on, ..default };
        assert!(asks(&eager, Cause::Error, post) && asks(&eager, Cause::Status(503), post));
        assert!(!asks(&eager, Cause::Status(500), post));

        let hurried = Retry { timeout: Some(Duration::ZERO), ..default };
        assert!(!asks(&hurried, Cause::Error, Attempt { started: Some(Instant::now()), ..FRESH }));
    }

    #[test]
    fn the_budget_ends_and_grows_with_requests() {
        let budget = Budget::default();
        let ask = || allowed(&Retry::default(), Cause::Error, FRESH, &budget);
        assert_eq!((0..100).filter(|_| ask()).count(), 10);
        (0..50).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| ask()).count(), 10);
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!((0..1000).filter(|_| ask()).count(), 100);
        // Connections that could not be made cost nothing.
        assert!(allowed(&Retry::default(), Cause::ConnectError, FRESH, &budget));
    }
}
