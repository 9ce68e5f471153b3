//! The time by which Leases are measured: `CLOCK_BOOTTIME`, which goes on while the machine sleeps and does not jump when
//! somebody sets the wall clock. Pure code takes a `Moment` as an argument; only IO asks for `Moment::now`.

use std::ops::Add;
use std::time::Duration;

/// A point in time on this machine, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(Duration);

impl Moment {
    /// The present.
    pub(super) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self(Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        ))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub(super) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Sleeps until `moment`.
pub(super) async fn sleep_until(moment: Moment) {
    tokio::time::sleep(moment.since(Moment::now())).await;
}

#[cfg(test)]
impl Moment {
    /// `duration` after an arbitrary start.
    pub(super) const fn at(duration: Duration) -> Self {
        Self(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = Moment::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(Moment::now().since(before) >= Duration::from_millis(2));
        assert_eq!(before.since(Moment::now()), Duration::ZERO);
    }
}
