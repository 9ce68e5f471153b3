//! Who else answers for a VIP that this node owns: a pure record of what was heard, and when to ask the link. `engine` sends
//! the questions (`announce`) and brings in the claims (`announce::Ears`).
//!
//! Only the owner watches, so a peer need not be told from a stranger: none of them has a reason to claim what is ours. What is
//! heard while a VIP moves is not counted, and one claim alone neither: it must be made again when we ask (RFC 5227 calls
//! that detection; our announcing again is its defence, section 2.4).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ingress_common::abi::Mac;

/// A former owner goes on answering for a moment, and longer where it has no CPU.
const SETTLE: Duration = Duration::from_secs(2);
/// A claim counts if it is made again after this.
const CONFIRM: Duration = Duration::from_secs(1);
/// How often we ask while there is a claim.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A claimant that was silent for so long is gone.
const FORGET: Duration = Duration::from_secs(13);
/// Between two announcements against a claim (RFC 5227, `DEFEND_INTERVAL`): two that both defend must not fill the link.
const DEFEND: Duration = Duration::from_secs(10);
/// Claimants of one VIP that are remembered: whoever makes up addresses fills nothing.
const MOST: usize = 4;

/// Somebody says on the link that a VIP is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) vip: IpAddr,
    pub(crate) mac: Mac,
    /// Index of the interface where it was heard.
    pub(crate) link: u32,
}

#[derive(Debug)]
struct Claimant {
    link: u32,
    first: Instant,
    last: Instant,
}

impl Claimant {
    fn is_confirmed(&self) -> bool {
        self.last.duration_since(self.first) >= CONFIRM
    }
}

#[derive(Debug)]
struct Held {
    since: Instant,
    ask_at: Instant,
    defended: Option<Instant>,
    claimants: BTreeMap<Mac, Claimant>,
}

/// The VIPs that this node owns, and who claims them.
#[derive(Debug)]
pub(crate) struct Watch {
    /// How often we ask where nothing was heard.
    interval: Duration,
    held: BTreeMap<IpAddr, Held>,
    claims: u64,
}

impl Watch {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, held: BTreeMap::new(), claims: 0 }
    }

    /// This node owns exactly these. `again`: nodes came or went, so who owns what may be seen differently for a moment.
    pub(crate) fn own(&mut self, now: Instant, vips: impl IntoIterator<Item = IpAddr>, again: bool) {
        let mut old = std::mem::take(&mut self.held);
        for vip in vips {
            let fresh =
                || Held { since: now, ask_at: now + SETTLE, defended: None, claimants: BTreeMap::new() };
            let mut held = old.remove(&vip).unwrap_or_else(fresh);
            if again {
                (held.since, held.ask_at) = (now, now + SETTLE);
            }
            self.held.insert(vip, held);
        }
    }

    /// Takes a claim in. True: announce the VIP now, against it.
    pub(crate) fn heard(&mut self, now: Instant, claim: Claim) -> bool {
        let Some(held) = self.held.get_mut(&claim.vip) else { return false };
        if now.saturating_duration_since(held.since) < SETTLE {
            return false;
        }
        self.claims += 1;
        let count = held.claimants.len();
        let claimant = match held.claimants.entry(claim.mac) {
            std::collections::btree_map::Entry::Vacant(_) if count >= MOST => return false,
            entry => entry.or_insert(Claimant { link: claim.link, first: now, last: now }),
        };
        (claimant.link, claimant.last) = (claim.link, now);
        if !claimant.is_confirmed() {
            held.ask_at = held.ask_at.min(now + CONFIRM);
        }
        let defends = held.defended.is_none_or(|at| now.saturating_duration_since(at) >= DEFEND);
        if defends {
            held.defended = Some(now);
        }
        defends
    }

    /// For which VIPs to ask the link now; it counts as asked. Forgets who was not heard for long.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for (vip, held) in &mut self.held {
            held.claimants.retain(|_, claimant| now.saturating_duration_since(claimant.last) < FORGET);
            if held.ask_at <= now {
                due.push(*vip);
                held.ask_at = now + if held.claimants.is_empty() { self.interval } else { ASK_AGAIN };
            }
        }
        due
    }

    /// When [`Watch::due`] has something next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.held.values().map(|held| held.ask_at).min()
    }

    /// Who claims what, beyond doubt.
    pub(crate) fn conflicts(&self) -> Vec<Claim> {
        let of = |(vip, held): (&IpAddr, &Held)| -> Vec<Claim> {
            let confirmed = held.claimants.iter().filter(|(_, claimant)| claimant.is_confirmed());
            confirmed.map(|(mac, claimant)| Claim { vip: *vip, mac: *mac, link: claimant.link }).collect()
        };
        self.held.iter().flat_map(of).collect()
    }

    /// Claims heard since the start.
    pub(crate) const fn claims(&self) -> u64 {
        self.claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const INTERVAL: Duration = Duration::from_secs(30);

    const fn claim(mac: u8) -> Claim {
        Claim { vip: VIP, mac: Mac::new([2, 0, 0, 0, 9, mac]), link: 7 }
    }

    /// A watch over [`VIP`], and the time in milliseconds after it became ours.
    fn owner() -> (Watch, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let mut watch = Watch::new(INTERVAL);
        watch.own(start, [VIP], false);
        (watch, move |ms| start + Duration::from_millis(ms))
    }

    #[test]
    fn a_stranger_that_answers_twice_is_a_conflict_until_it_is_silent() {
        let (mut watch, at) = owner();
        assert!(watch.due(at(1999)).is_empty());
        assert_eq!(watch.due(at(2000)), [VIP]);
        assert!(watch.heard(at(2001), claim(1)), "defends");
        assert!(watch.conflicts().is_empty(), "once is not enough");
        assert_eq!(watch.next(), Some(at(3001)));
        assert_eq!(watch.due(at(3001)), [VIP]);
        assert!(!watch.heard(at(3002), claim(1)), "defended a moment ago");
        assert_eq!(watch.conflicts(), [claim(1)]);
        assert_eq!((watch.due(at(8001)), watch.claims()), (vec![VIP], 2), "asked more often meanwhile");
        watch.due(at(16_001));
        assert_eq!(watch.conflicts(), [claim(1)]);
        watch.due(at(16_002));
        assert!(watch.conflicts().is_empty());
        assert!(watch.next().unwrap() <= at(21_100));
    }

    #[test]
    fn what_is_heard_while_a_vip_moves_does_not_count() {
        let (mut watch, at) = owner();
        for ms in (0..2000).step_by(100) {
            assert!(!watch.heard(at(ms), claim(1)));
        }
        assert!(watch.conflicts().is_empty());
        watch.own(at(60_000), [VIP], true);
        watch.heard(at(60_500), claim(1));
        watch.heard(at(61_900), claim(1));
        assert!(watch.conflicts().is_empty(), "nodes came or went");
        watch.own(at(61_950), [VIP], false);
        assert_eq!(watch.due(at(62_000)), [VIP], "the same VIPs again change nothing");
        watch.own(at(63_000), [], false);
        assert!(!watch.heard(at(70_000), claim(1)), "not ours any more");
    }

    #[test]
    fn a_single_claim_is_forgotten_and_many_claimants_fill_nothing() {
        let (mut watch, at) = owner();
        watch.heard(at(5000), claim(1));
        for ms in (6000..20_000).step_by(1000) {
            watch.due(at(ms));
        }
        assert!(watch.conflicts().is_empty());
        for mac in 0..=255 {
            watch.heard(at(30_000), claim(mac));
            watch.heard(at(31_500), claim(mac));
        }
        assert_eq!(watch.conflicts().len(), MOST);
    }
}
