//! Whether a VIP takes a packet at all: its lists, and the limit of new connections by source. Asked where the packet arrives
//! from outside, before anything else about the flow; VIPs without any of it never get here.

use crate::abi::{Be32, Ip6, RULE_ALLOW, RULE_DENY, SourceKey, Vip, VipId};

use super::{Reason, Tables};

/// Why the VIP (its number and its flags) does not take a packet from `source` (IPv4: mapped); [`Reason::NotOurs`]: it does.
#[inline(always)]
pub fn guard<T: Tables>(tables: &T, vip: VipId, flags: u16, source: Ip6, opens_flow: bool) -> Reason {
    if flags & Vip::LISTS != 0 {
        let rule = tables.rule(vip, source);
        if rule == Some(RULE_DENY) {
            return Reason::DropDenied;
        }
        if rule != Some(RULE_ALLOW) && flags & Vip::ALLOWED_ONLY != 0 {
            return Reason::DropNotAllowed;
        }
    }
    if flags & Vip::SOURCE_LIMIT != 0
        && opens_flow
        && let Some(guard) = tables.guard_of(vip)
        && !tables.take_source(source_key(vip, source), guard.flow_cost_ns, guard.flow_burst_ns)
    {
        return Reason::DropSourceRate;
    }
    Reason::NotOurs
}

/// Whom a new connection from `source` is charged to.
#[inline(always)]
fn source_key(vip: VipId, source: Ip6) -> SourceKey {
    let [a, b, ..] = source.0;
    let is_v4 = a.raw() | b.raw() == 0;
    let zero = Be32::new(0);
    let addr = if is_v4 { source } else { Ip6([a, b, zero, zero]) };
    SourceKey { vip: u32::from(vip.0), reserved: 0, addr }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    #[test]
    fn an_ipv6_source_is_its_network_of_64_bits() {
        let key = |text: &str| source_key(VipId(1), text.parse::<Ipv6Addr>().expect("an address").into());
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::"));
        assert_ne!(key("2001:db8:1:2::"), key("2001:db8:1:3::"));
        assert_ne!(key("::ffff:192.0.2.1"), key("::ffff:192.0.2.2"));
    }
}
