//! The protection of a VIP as the program reads it: its flags, its limits, and its lists as one table in which the longest
//! prefix says what counts. Pure, like the rest of `sync`.

use std::collections::BTreeSet;

use ingress_common::abi::{Guard, MAX_RULES, RULE_ALLOW, RULE_DENY, RuleKey, Vip, VipId};
use ipnet::IpNet;
use tracing::warn;

use super::{Desired, Input, outer};
use crate::model::{Protection, Rate};

const SECOND_NS: u64 = 1_000_000_000;
/// What a quiet VIP may have saved of SYNs: browsers open their connections all at once.
const SYN_BURST_NS: u64 = SECOND_NS / 10;
/// What a segment's headers take of a packet: IPv4's 20 bytes and TCP's 20.
const HEADERS: u16 = 40;
/// What a client is asked for on a link of 1,500 bytes.
const SEGMENT: u16 = 1460;

/// When SYNs are answered with cookies, unless a VIP says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cookies {
    /// SYNs per second to one VIP on this node; 0: never.
    pub(crate) above: u32,
    /// Each of them counts for itself.
    pub(crate) cpus: u32,
}

/// Puts guard and rules of the VIP `id` into `desired`; returns its flags.
pub(super) fn place(input: &Input<'_>, id: VipId, protection: &Protection, desired: &mut Desired) -> u16 {
    let mut flags = 0;
    let mut guard = Guard::default();
    if let Some(Rate { per_second, burst }) = protection.new_connections {
        flags |= Vip::SOURCE_LIMIT;
        guard.flow_cost_ns = SECOND_NS / u64::from(per_second.max(1));
        // Once more than that: the bucket may be in debt by as much when a connection is charged.
        guard.flow_burst_ns = guard.flow_cost_ns * u64::from(burst.max(1) - 1);
    }
    let above = protection.syn_cookies_above.unwrap_or(input.cookies.above);
    if above != 0 {
        flags |= Vip::COOKIES;
        guard.syn_cost_ns = SECOND_NS * u64::from(input.cookies.cpus.max(1)) / u64::from(above);
        guard.syn_burst_ns = SYN_BURST_NS;
    }
    if flags != 0 {
        desired.guards.insert(id, guard);
    }
    if protection.allow.is_some() {
        flags |= Vip::LISTS | Vip::ALLOWED_ONLY;
    }
    let rules = rules(id, protection);
    if !rules.is_empty() {
        flags |= Vip::LISTS;
        if desired.rules.len() + rules.len() > MAX_RULES as usize {
            warn!(
                vip = id.0,
                max = MAX_RULES,
                "too many networks in the deny and allow lists of all VIPs: this VIP's are left out, so an allow list lets \
                 nobody in; write larger networks"
            );
        } else {
            desired.rules.extend(rules);
        }
    }
    flags
}

/// Each network of both lists, with what counts for those of its addresses that are in no smaller one: denied if any
/// denied network holds it, whatever else is allowed inside.
fn rules(id: VipId, protection: &Protection) -> Vec<((u32, RuleKey), u32)> {
    let denied: BTreeSet<IpNet> = protection.deny.iter().map(IpNet::trunc).collect();
    let allowed = protection.allow.iter().flatten().map(IpNet::trunc);
    let all: BTreeSet<IpNet> = allowed.chain(denied.iter().copied()).collect();
    all.into_iter()
        .map(|net| {
            let mut around = std::iter::successors(Some(net), IpNet::supernet);
            let rule = if around.any(|net| denied.contains(&net)) { RULE_DENY } else { RULE_ALLOW };
            (key(id, net), rule)
        })
        .collect()
}

fn key(id: VipId, net: IpNet) -> (u32, RuleKey) {
    let mapped = if net.addr().is_ipv4() { 96 } else { 0 };
    let bits = RuleKey::VIP_BITS + mapped + u32::from(net.prefix_len());
    (bits, RuleKey { vip: u32::from(id.0), addr: outer(net.addr()) })
}

/// The largest segment of packets of at most `mtu` bytes ([`Desired::tunnelled_mtu`]).
pub(super) fn segment_size(mtu: Option<u16>) -> u16 {
    mtu.map_or(SEGMENT, |mtu| SEGMENT.min(mtu.saturating_sub(HEADERS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &[&str]) -> Vec<IpNet> {
        text.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn a_denied_network_is_denied_whatever_is_allowed_inside() {
        let protection = Protection {
            deny: nets(&["10.1.0.0/16", "2001:db8::/32"]),
            allow: Some(nets(&["10.0.0.0/8", "10.1.2.0/24", "192.0.2.1/32"])),
            ..Protection::default()
        };
        let rules = rules(VipId(7), &protection);
        let rule =
            |net: &str| rules.iter().find(|(k, _)| *k == key(VipId(7), net.parse().unwrap())).unwrap().1;
        assert_eq!(rules.len(), 5);
        assert_eq!(rule("10.0.0.0/8"), RULE_ALLOW);
        assert_eq!(rule("10.1.0.0/16"), RULE_DENY);
        assert_eq!(rule("10.1.2.0/24"), RULE_DENY);
        assert_eq!(rule("192.0.2.1/32"), RULE_ALLOW);
        assert_eq!(rule("2001:db8::/32"), RULE_DENY);
    }

    #[test]
    fn keys_have_the_vip_in_front() {
        let (bits, key4) = key(VipId(3), "192.0.2.0/24".parse().unwrap());
        assert_eq!((bits, key4.vip), (32 + 96 + 24, 3));
        let (bits, _) = key(VipId(3), "::/0".parse().unwrap());
        assert_eq!(bits, 32);
    }
}
