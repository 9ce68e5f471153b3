//! Tells the link that this node now owns a VIP: gratuitous ARP and unsolicited neighbour advertisements, in a short
//! burst and then from time to time. `engine` says what is owned and when something changed; `frame` makes the bytes.
//! Questions are answered by the XDP program, not here. `ears` hears who else answers.

mod ears;
mod frame;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ingress_common::abi::{Mac, Vlan};
use tracing::{debug, warn};

use super::packet_socket::PacketSocket;

pub(crate) use ears::Ears;
pub(crate) use frame::tagged;

/// When the announcements of a burst go out, counted from its start: at once, and again for those who lost it.
const BURST: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// What is due for one owned VIP.
#[derive(Debug, PartialEq, Eq)]
struct Owned {
    burst_start: Instant,
    /// How many of the burst went out.
    sent: usize,
    next: Instant,
}

/// When to announce what. No IO.
#[derive(Debug)]
pub(crate) struct Schedule {
    owned: BTreeMap<IpAddr, Owned>,
    interval: Duration,
}

impl Schedule {
    /// Announcements are repeated every `interval` while a VIP is owned.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { owned: BTreeMap::new(), interval }
    }

    /// This node owns exactly these. New ones are announced in a burst. `again` repeats the burst for all: a node
    /// died or came, and its last ARP request may have taught somebody a wrong address (the kernel puts the source
    /// of the packet that it wants to send into the request, and for our answers that is the VIP).
    pub(crate) fn own(&mut self, now: Instant, vips: impl IntoIterator<Item = IpAddr>, again: bool) {
        let mut old = std::mem::take(&mut self.owned);
        for vip in vips {
            let owned =
                old.remove(&vip).filter(|_| !again).unwrap_or(Owned { burst_start: now, sent: 0, next: now });
            self.owned.insert(vip, owned);
        }
    }

    /// What is due now; it counts as sent.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for (vip, owned) in &mut self.owned {
            if owned.next <= now {
                due.push(*vip);
                owned.sent += 1;
                owned.next = match BURST.get(owned.sent) {
                    Some(offset) => (owned.burst_start + *offset).max(now),
                    None => now + self.interval,
                };
            }
        }
        due
    }

    /// When [`Schedule::due`] has something next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.owned.values().map(|owned| owned.next).min()
    }
}

/// Where announcements go out, and what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index of the interface.
    pub(crate) link: u32,
    /// Tags ([`Vlan`]).
    pub(crate) vlan: u32,
    /// Our hardware address there.
    pub(crate) mac: Mac,
}

/// Sends one announcement of the VIP there.
pub(crate) fn announce(socket: &PacketSocket, vip: IpAddr, Place { link, vlan, mac }: Place) {
    for frame in frame::announcements(vip, mac.octets()) {
        let frame = tagged(frame, Vlan(vlan));
        if let Err(error) = socket.send(link, &frame) {
            warn!(%vip, link, %error, "cannot announce the VIP on this interface");
        }
    }
    debug!(%vip, link, %mac, "announced");
}

/// Asks on that interface whether somebody else has the VIP. `link_local`: the interface's IPv6 address, for IPv6.
pub(crate) fn ask(socket: &PacketSocket, vip: IpAddr, link: u32, mac: Mac, link_local: Option<Ipv6Addr>) {
    let Some(frame) = frame::question(vip, mac.octets(), link_local) else { return };
    if let Err(error) = socket.send(link, &frame) {
        debug!(%vip, link, %error, "cannot ask who has the VIP");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use super::Schedule;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    /// Milliseconds after the start at which something went out, up to 40 s.
    fn run(schedule: &mut Schedule, start: Instant, from: u64) -> Vec<(u64, IpAddr)> {
        let mut sent = Vec::new();
        for ms in (from..40_000).step_by(10) {
            sent.extend(schedule.due(start + Duration::from_millis(ms)).into_iter().map(|vip| (ms, vip)));
        }
        sent
    }

    #[test]
    fn a_burst_then_from_time_to_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::from_secs(30));
        assert_eq!(schedule.next(), None);
        schedule.own(start, [A], false);
        assert_eq!(schedule.next(), Some(start));
        let times: Vec<u64> = run(&mut schedule, start, 0).into_iter().map(|(ms, _)| ms).collect();
        assert_eq!(times, [0, 50, 200, 1000, 3000, 33_000]);
    }

    #[test]
    fn only_new_ones_burst_unless_asked() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut schedule = Schedule::new(Duration::from_mins(1));
        schedule.own(start, [A], false);
        for ms in (0..5000).step_by(10) {
            schedule.due(at(ms));
        }
        schedule.own(at(5000), [A, B], false);
        assert_eq!(schedule.due(at(5000)), [B]);
        schedule.own(at(6000), [A, B], true);
        assert_eq!(schedule.due(at(6000)), [A, B]);
        schedule.own(at(6000), [B], false);
        assert!(run(&mut schedule, start, 6010).iter().all(|(_, vip)| *vip == B));
    }
}
