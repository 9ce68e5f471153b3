//! Timeouts for many connections, nearly free: a new deadline is one store, and the wheel looks at a connection again
//! only when its old entry comes up. As coarse as its tick. Used by the engine; does not read the clock itself.

use std::time::Duration;

/// How exact timeouts are.
pub(crate) const TICK: Duration = Duration::from_millis(250);

const SLOTS: u64 = 1024;

/// A moment, in ticks since the engine started.
pub(crate) type Tick = u64;

/// A connection's deadline. Belongs to one token of the wheel.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    deadline: Option<Tick>,
    /// When the wheel looks at it next; 0: never.
    entry: Tick,
}

/// The wheel: tokens by the tick at which they must be looked at.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<(u64, Tick)>>,
    now: Tick,
}

/// The number of ticks in which `duration` has passed for sure.
pub(crate) fn ticks(duration: Duration) -> Tick {
    (duration.as_millis().div_ceil(TICK.as_millis()) as Tick).saturating_add(1)
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { slots: vec![Vec::new(); SLOTS as usize], now: 1 }
    }

    /// Lets the timer of `token` end `after` ticks from now, whatever it was set to before.
    pub(crate) fn set(&mut self, timer: &mut Timer, token: u64, after: Tick) {
        let deadline = self.now + after;
        timer.deadline = Some(deadline);
        if timer.entry == 0 || deadline < timer.entry {
            self.enter(timer, token, deadline);
        }
    }

    fn enter(&mut self, timer: &mut Timer, token: u64, deadline: Tick) {
        // Farther ahead than the wheel reaches: look again then.
        timer.entry = deadline.min(self.now + SLOTS - 1);
        self.slots[(timer.entry % SLOTS) as usize].push((token, timer.entry));
    }

    /// Goes on by one tick; the entries that came up, each to be handed to [`Wheel::is_due`].
    pub(crate) fn advance(&mut self) -> Vec<(u64, Tick)> {
        self.now += 1;
        std::mem::take(&mut self.slots[(self.now % SLOTS) as usize])
    }

    /// Whether the deadline of the timer that this entry belongs to has come. If it was moved, the wheel will look at
    /// it again.
    pub(crate) fn is_due(&mut self, timer: &mut Timer, (token, entry): (u64, Tick)) -> bool {
        if timer.entry != entry {
            // An earlier entry took over.
            return false;
        }
        timer.entry = 0;
        match timer.deadline {
            Some(deadline) if deadline <= self.now => {
                timer.deadline = None;
                true
            }
            Some(deadline) => {
                self.enter(timer, token, deadline);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which tick the timer ends, when it is set to `after` at each tick of `at`.
    fn ends(settings: &[(Tick, Tick)]) -> Option<Tick> {
        let mut wheel = Wheel::new();
        let mut timer = Timer::default();
        for tick in 0..5000 {
            for (_, after) in settings.iter().filter(|(at, _)| *at == tick) {
                wheel.set(&mut timer, 7, *after);
            }
            for entry in wheel.advance() {
                if wheel.is_due(&mut timer, entry) {
                    return Some(tick + 1);
                }
            }
        }
        None
    }

    #[test]
    fn deadlines_are_kept_whichever_way_they_move() {
        assert_eq!(ends(&[]), None);
        assert_eq!(ends(&[(0, 3)]), Some(3));
        assert_eq!(ends(&[(0, 10), (5, 10)]), Some(15));
        assert_eq!(ends(&[(0, 10), (5, 2)]), Some(7));
        assert_eq!(ends(&[(0, 10), (5, 2), (6, 100)]), Some(106));
        assert_eq!(ends(&[(0, 3000)]), Some(3000));
        assert_eq!(ends(&[(0, 3000), (2500, 1)]), Some(2501));
    }

    #[test]
    fn a_duration_has_passed_after_its_ticks() {
        assert_eq!((ticks(Duration::from_secs(1)), ticks(Duration::from_millis(1))), (5, 2));
    }
}
