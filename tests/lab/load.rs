//! Load clients that count what users would notice: connections that broke, requests that were lost, and how long a
//! change took to be live. Each runs in threads on a host of the lab, in plain blocking Rust; scenarios read the
//! reports. `tests/scenarios/instruments.rs` proves that they count, without the product.

pub mod hold;
pub mod mixed;
pub mod steady;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub use hold::{Habit, HeldConnections, HoldReport};
pub use mixed::{Load, LoadReport};
pub use steady::{Lost, SteadyReport, SteadyRequests};

use super::{
    Host,
    http::{self, Failure, Response, Target},
};

/// How long a load client waits for a connection or a response. A SYN that is lost is sent again after 1 s and after
/// 3 s, so what takes longer than this was lost for a user too.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Asks again and again, each time on a new connection, until `wanted` says yes; how long that took since `since`.
pub fn until(
    host: &Host,
    target: &Target,
    since: Instant,
    at_most: Duration,
    wanted: impl Fn(&Result<Response, Failure>) -> bool + Send,
) -> Result<Duration> {
    host.run(move || {
        loop {
            let answer = http::get(target, Duration::from_millis(500));
            if wanted(&answer) {
                return Ok(since.elapsed());
            }
            if since.elapsed() > at_most {
                bail!("{target}: not as wanted after {at_most:?}; the last answer: {answer:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
    })
}

/// Repeats `check` until it holds.
pub fn wait_for(what: &str, at_most: Duration, mut check: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !check()? {
        if start.elapsed() > at_most {
            bail!("{what}: not within {at_most:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(start.elapsed())
}
