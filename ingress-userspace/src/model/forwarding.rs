//! How long an exchange with a backend may take and when another endpoint is tried: `proxy-*-timeout` and
//! `proxy-next-upstream*`, per route. What is not set is as everywhere.

use std::time::Duration;

/// One route's patience and persistence. All of it unset is the usual case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// `proxy-connect-timeout`: for an endpoint to accept a connection.
    pub connect_timeout: Option<Duration>,
    /// `proxy-read-timeout`: between two reads of an answer.
    pub read_timeout: Option<Duration>,
    /// `proxy-send-timeout`: between two writes of a request.
    pub send_timeout: Option<Duration>,
    /// `proxy-next-upstream*`.
    pub retry: Retry,
}

/// When a request goes to another endpoint. A pure function of the annotations; ingress-nginx's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// On what.
    pub on: RetryOn,
    /// `proxy-next-upstream-tries`: endpoints asked at most; 0: as many as there are.
    pub tries: u32,
    /// `proxy-next-upstream-timeout`: no further one after so long. `None`: no limit.
    pub timeout: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { on: RetryOn::default(), tries: 3, timeout: None }
    }
}

/// The conditions of `proxy-next-upstream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of conditions that are independent of each other")]
pub struct RetryOn {
    /// The connection could not be made, or ended before an answer.
    pub error: bool,
    /// It took too long to connect or to answer.
    pub timeout: bool,
    /// The answer was no HTTP.
    pub invalid_header: bool,
    /// Also requests whose method is not idempotent, once they were sent.
    pub non_idempotent: bool,
    /// Answers with these statuses.
    pub statuses: RetryStatuses,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            invalid_header: false,
            non_idempotent: false,
            statuses: RetryStatuses::default(),
        }
    }
}

impl RetryOn {
    /// `off`.
    pub const OFF: Self = Self {
        error: false,
        timeout: false,
        invalid_header: false,
        non_idempotent: false,
        statuses: RetryStatuses(0),
    };
}

/// A set of those statuses that nginx knows as conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryStatuses(u8);

impl RetryStatuses {
    const KNOWN: [u16; 7] = [500, 502, 503, 504, 403, 404, 429];

    /// Adds one; whether nginx knows it.
    pub fn insert(&mut self, status: u16) -> bool {
        let bit = Self::KNOWN.iter().position(|known| *known == status);
        self.0 |= bit.map_or(0, |bit| 1 << bit);
        bit.is_some()
    }

    /// Whether it is one of the set.
    pub fn contains(self, status: u16) -> bool {
        self.0 != 0
            && Self::KNOWN.iter().position(|known| *known == status).is_some_and(|bit| self.0 & 1 << bit != 0)
    }
}
