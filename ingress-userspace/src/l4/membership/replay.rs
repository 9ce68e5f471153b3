//! Gossip counts once: what somebody recorded and sends again is refused, also of a sender's earlier runs. Datagrams may
//! overtake each other a little.

use std::collections::VecDeque;

use super::machine::Incarnation;

/// How far a datagram may come late.
const LATE: u64 = 64;
/// Earlier runs that are remembered.
const FORMER: usize = 8;

/// What was heard of one sender.
#[derive(Debug, Default)]
pub(crate) struct Window {
    incarnation: Option<Incarnation>,
    former: VecDeque<Incarnation>,
    highest: u64,
    /// Bit `i`: `highest - i` was heard.
    heard: u64,
}

impl Window {
    /// Whether this was not heard yet; it counts as heard from now on.
    pub(crate) fn is_news(&mut self, incarnation: Incarnation, sequence: u64) -> bool {
        if self.incarnation != Some(incarnation) {
            if self.former.contains(&incarnation) {
                return false;
            }
            if let Some(former) = self.incarnation.replace(incarnation) {
                self.former.push_back(former);
                if self.former.len() > FORMER {
                    self.former.pop_front();
                }
            }
            (self.highest, self.heard) = (sequence, 1);
            return true;
        }
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.heard = if ahead < LATE { self.heard << ahead | 1 } else { 1 };
            self.highest = sequence;
            return true;
        }
        let late = self.highest - sequence;
        let is_news = late < LATE && self.heard & 1 << late == 0;
        if is_news {
            self.heard |= 1 << late;
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::{Incarnation, Window};

    #[test]
    fn each_counts_once_in_any_near_order() {
        let mut window = Window::default();
        let (one, two) = (Incarnation(1), Incarnation(2));
        for (incarnation, sequence, is_news) in [
            (one, 5, true),
            (one, 5, false),
            (one, 3, true),
            (one, 3, false),
            (one, 200, true),
            (one, 137, true),
            (one, 136, false),
            (one, 137, false),
            (two, 1, true),
            (one, 201, false),
            (two, 2, true),
        ] {
            assert_eq!(window.is_news(incarnation, sequence), is_news, "{incarnation:?} {sequence}");
        }
    }
}
