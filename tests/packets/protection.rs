//! The protection of VIPs: deny and allow lists, limits of new connections by source, what is not answered with a cookie.

use ingress_common::{
    abi::{Guard, Ip6, RULE_ALLOW, RULE_DENY, RuleKey, SourceKey, Vip, VipId},
    steer::{HOP_STEERED, Reason, memory::Memory},
};

use super::{
    CLIENT, Case, NEAR, OWN, OWN_MAC,
    build::{ACK, SYN, Segment, v4, v6},
    connected, ip6, mac_of, own_mac_towards, rank, remembered,
};

/// Number of `VIP` in the world.
const ID4: VipId = VipId(3);
/// Number of `VIP6`.
const ID6: VipId = VipId(5);

/// All VIPs have these flags.
fn flags(flags: u16) -> impl FnOnce(&mut Memory) {
    move |world| {
        for vip in world.vips4.values_mut().chain(world.vips6.values_mut()) {
            vip.flags = flags;
        }
    }
}

/// A list of `vip` has the network.
fn rule(vip: VipId, net: &str, bits: u32, rule: u32) -> impl FnOnce(&mut Memory) {
    let net = ip6(net);
    move |world| {
        let key = RuleKey { vip: u32::from(vip.0), addr: net };
        world.rules.insert((RuleKey::VIP_BITS + bits, key), rule);
    }
}

fn source(vip: VipId, addr: Ip6) -> SourceKey {
    SourceKey { vip: u32::from(vip.0), reserved: 0, addr }
}

/// The client has used all that it may, for longer than this machine will be up.
fn exhausted(world: &mut Memory) {
    for (vip, addr) in
        [(ID4, Ip6::mapped(std::net::Ipv4Addr::from(CLIENT).into())), (ID6, ip6("2001:db8:c::"))]
    {
        world.guards.insert(vip, Guard { flow_cost_ns: 1, ..Guard::default() });
        world.sources.get_mut().insert(source(vip, addr), u64::MAX / 2);
    }
}

/// Each SYN is one too many.
fn flooded(world: &mut Memory) {
    rank(world, &[OWN, NEAR]);
    for vip in [ID4, ID6] {
        world.guards.insert(vip, Guard { syn_cost_ns: 1 << 62, ..Guard::default() });
        world.syns.get_mut().insert(vip, u64::MAX / 2);
    }
}

fn to_near(segment: Segment) -> Segment {
    segment.macs(own_mac_towards(NEAR), mac_of(NEAR)).hops(HOP_STEERED)
}

/// As a peer hands it over.
fn from_near(segment: Segment) -> Segment {
    segment.macs(mac_of(NEAR), OWN_MAC).hops(HOP_STEERED)
}

pub(super) fn cases() -> Vec<Case> {
    let listed = Vip::LISTS;
    let allowed_only = Vip::LISTS | Vip::ALLOWED_ONLY;
    vec![
        Case::new("v4: a source in the deny list is dropped", v4(SYN))
            .when(flags(listed))
            .when(rule(ID4, "::ffff:198.51.100.0", 120, RULE_DENY))
            .drops(Reason::DropDenied),
        Case::new("v6: a source in the deny list is dropped", v6(SYN))
            .when(flags(listed))
            .when(rule(ID6, "2001:db8:c::", 48, RULE_DENY))
            .drops(Reason::DropDenied),
        Case::new("a denied source's established flow is dropped too", v4(ACK))
            .when(flags(listed))
            .when(connected)
            .when(remembered(NEAR))
            .when(rule(ID4, "::ffff:198.51.100.7", 128, RULE_DENY))
            .drops(Reason::DropDenied)
            .remembering(NEAR),
        Case::new("a source outside the deny list is taken", v4(SYN))
            .when(flags(listed))
            .when(rule(ID4, "::ffff:198.51.100.8", 128, RULE_DENY))
            .transmits(Reason::ForwardNew, to_near(v4(SYN))),
        Case::new("another VIP's deny list does not count", v4(SYN))
            .when(flags(listed))
            .when(rule(ID6, "::ffff:198.51.100.7", 128, RULE_DENY))
            .transmits(Reason::ForwardNew, to_near(v4(SYN))),
        Case::new("v4: a source outside the allow list is dropped", v4(SYN))
            .when(flags(allowed_only))
            .when(rule(ID4, "::ffff:203.0.113.0", 120, RULE_ALLOW))
            .drops(Reason::DropNotAllowed),
        Case::new("v6: a source outside the allow list is dropped", v6(ACK))
            .when(flags(allowed_only))
            .when(connected)
            .when(rule(ID6, "2001:db8:d::", 48, RULE_ALLOW))
            .drops(Reason::DropNotAllowed),
        Case::new("v6: a source in the allow list is taken", v6(SYN))
            .when(flags(allowed_only))
            .when(rule(ID6, "2001:db8:c::7", 128, RULE_ALLOW))
            .transmits(Reason::ForwardNew, to_near(v6(SYN))),
        Case::new("the longest prefix counts", v4(SYN))
            .when(flags(allowed_only))
            .when(rule(ID4, "::ffff:198.51.100.0", 120, RULE_ALLOW))
            .when(rule(ID4, "::ffff:198.51.100.0", 124, RULE_DENY))
            .drops(Reason::DropDenied),
        Case::new("lists without the flag are not asked", v4(SYN))
            .when(rule(ID4, "::ffff:198.51.100.7", 128, RULE_DENY))
            .transmits(Reason::ForwardNew, to_near(v4(SYN))),
        Case::new("what a peer has let in is not asked again", from_near(v4(SYN)))
            .when(flags(allowed_only | Vip::SOURCE_LIMIT))
            .when(exhausted)
            .passes(Reason::LocalNew),
        Case::new("v4: a source that opens too many connections is dropped", v4(SYN))
            .when(flags(Vip::SOURCE_LIMIT))
            .when(exhausted)
            .drops(Reason::DropSourceRate),
        Case::new("v6: its network of 64 bits is one source", v6(SYN))
            .when(flags(Vip::SOURCE_LIMIT))
            .when(exhausted)
            .drops(Reason::DropSourceRate),
        Case::new("the established flows of such a source go on", v4(ACK))
            .when(flags(Vip::SOURCE_LIMIT))
            .when(exhausted)
            .when(remembered(NEAR))
            .transmits(Reason::ForwardFlow, to_near(v4(ACK)))
            .remembering(NEAR),
        Case::new("another source still opens connections", v4(SYN))
            .when(flags(Vip::SOURCE_LIMIT))
            .when(|world| {
                exhausted(world);
                world.sources.get_mut().clear();
            })
            .transmits(Reason::ForwardNew, to_near(v4(SYN))),
        Case::new("v4: where the listener has room, a SYN too many stays", v4(SYN))
            .when(flags(Vip::COOKIES))
            .when(flooded)
            .passes(Reason::LocalNew),
        Case::new("v6: where the listener has room, a SYN too many stays", v6(SYN))
            .when(flags(Vip::COOKIES))
            .when(flooded)
            .passes(Reason::LocalNew),
        Case::new("a SYN too many for another node goes there", v4(SYN))
            .when(flags(Vip::COOKIES))
            .when(flooded)
            .when(|world| rank(world, &[NEAR, OWN]))
            .transmits(Reason::ForwardNew, to_near(v4(SYN))),
    ]
}
