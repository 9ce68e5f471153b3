//! What routers between the nodes say of our tunnels' packets, as the program noted it (map `HEARD`): for how long a smaller path
//! MTU holds, and when to tell the operator that packets do not arrive. Pure; `engine` reads the map and asks here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ingress_common::abi::{Heard, NodeIndex};

/// Paths change, and nobody says when one is wider again: after this long a full packet is tried (RFC 1191, 6.3; the kernel's
/// `mtu_expires`).
const HOLDS: Duration = Duration::from_mins(10);
/// A node is named this often at most.
const PAUSE: Duration = Duration::from_mins(1);

/// The path MTU that holds at `now_ns` (`CLOCK_MONOTONIC`), in bytes with the outer IP header; `None`: no router has said one.
pub(crate) fn limit(heard: Heard, now_ns: u64) -> Option<u16> {
    let age = Duration::from_nanos(now_ns.saturating_sub(heard.too_big_ns));
    if heard.mtu == 0 || age >= HOLDS {
        return None;
    }
    u16::try_from(heard.mtu).ok()
}

/// What was counted of each node, and when it was named last.
#[derive(Debug, Default)]
pub(crate) struct Unreachable(BTreeMap<NodeIndex, (u32, Option<Instant>)>);

impl Unreachable {
    /// Whether the operator shall hear that packets to `node` do not arrive, now that it was said `count` times in all. What was
    /// counted before this daemon looked for the first time is not news.
    pub(crate) fn is_news(&mut self, node: NodeIndex, count: u32, now: Instant) -> bool {
        let (seen, named) = self.0.entry(node).or_insert((count, None));
        let is_new = *seen != count && named.is_none_or(|named| now.duration_since(named) >= PAUSE);
        *seen = count;
        if is_new {
            *named = Some(now);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_mtu_holds_for_ten_minutes() {
        let heard = Heard { too_big_ns: 5, mtu: 1400, unreachable: 0 };
        assert_eq!(limit(Heard::default(), 0), None);
        assert_eq!(limit(heard, 5), Some(1400));
        assert_eq!(limit(heard, 4), Some(1400), "another CPU's clock may be a little behind");
        assert_eq!(limit(heard, 5 + 599_999_999_999), Some(1400));
        assert_eq!(limit(heard, 5 + 600_000_000_000), None);
    }

    #[test]
    fn a_node_is_named_once_a_minute() {
        let (start, node) = (Instant::now(), NodeIndex(3));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut unreachable = Unreachable::default();
        assert!(!unreachable.is_news(node, 7, at(0)), "an earlier daemon's");
        assert!(!unreachable.is_news(node, 7, at(1)));
        assert!(unreachable.is_news(node, 8, at(2)));
        assert!(!unreachable.is_news(node, 9, at(61)));
        assert!(!unreachable.is_news(node, 9, at(63)), "nothing new since");
        assert!(unreachable.is_news(node, 10, at(63)));
    }
}
