//! VIPs on `lo`: the kernel must own an address to deliver to it and to answer from it. Adds what is missing, removes
//! only what it added itself, leaves what others configured alone. Called by `engine` and by `cleanup`.
//!
//! They do no harm there: ARP and neighbour solicitations for them are answered or dropped by the XDP program, and
//! neither is ever chosen as the source of a connection that the node opens by itself (IPv4: scope `host`, IPv6:
//! deprecated from the start). So no sysctl of the node has to change, and strict `rp_filter` stays content, because
//! the way back to a client is the interface that its packets came in by.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use tracing::{info, warn};

use super::netlink::{LOOPBACK, LoopbackAddress, Netlink, origin_attribute};

/// Marks our addresses in the kernel (`IFA_PROTO`; `ip address` shows it as `proto 88`), so that a restarted daemon
/// knows them. Kernels before 5.18 don't keep it: there an address stays on `lo` if the VIP goes while no daemon runs.
const ORIGIN: u8 = 88;

const FOREVER: u32 = u32::MAX;

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    add: Vec<IpAddr>,
    remove: Vec<IpAddr>,
}

/// `added` are those that this run of the daemon put there.
fn plan(present: &[LoopbackAddress], wanted: &BTreeSet<IpAddr>, added: &BTreeSet<IpAddr>) -> Plan {
    let is_present = |address: &IpAddr| present.iter().any(|p| p.address == *address);
    let is_ours =
        |p: &LoopbackAddress| p.origin == Some(ORIGIN) || (p.origin.is_none() && added.contains(&p.address));
    Plan {
        add: wanted.iter().filter(|address| !is_present(address)).copied().collect(),
        remove: present
            .iter()
            .filter(|p| !wanted.contains(&p.address) && is_ours(p))
            .map(|p| p.address)
            .collect(),
    }
}

fn message(address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = LOOPBACK;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    match address {
        IpAddr::V4(_) => {
            message.header.family = AddressFamily::Inet;
            message.header.prefix_len = 32;
            message.header.scope = AddressScope::Host;
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.prefix_len = 128;
            // The address is on every node on purpose: duplicate address detection must not take it away.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    message.attributes.push(origin_attribute(ORIGIN));
    message
}

/// The VIPs of this node on `lo`.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    added: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Those that an earlier daemon put there, as far as the kernel does not know it itself.
    pub(crate) const fn left(added: BTreeSet<IpAddr>) -> Self {
        Self { added }
    }

    /// Makes `lo` carry `wanted`. False if something failed; then call it again later.
    pub(crate) async fn apply(&mut self, netlink: &Netlink, wanted: &BTreeSet<IpAddr>) -> bool {
        let present = match netlink.loopback_addresses().await {
            Ok(present) => present,
            Err(error) => {
                warn!(%error, "cannot read the addresses of lo; VIPs are not added");
                return false;
            }
        };
        let plan = plan(&present, wanted, &self.added);
        let mut is_done = true;
        for address in plan.add {
            match netlink.add_address(message(address)).await {
                Ok(is_new) => {
                    if is_new {
                        self.added.insert(address);
                    }
                    info!(vip = %address, "VIP added to lo");
                }
                Err(error) => {
                    is_done = false;
                    warn!(vip = %address, %error, "cannot add the VIP to lo: clients cannot connect to it on this node");
                }
            }
        }
        for address in plan.remove {
            match netlink.remove_address(message(address)).await {
                Ok(()) => {
                    self.added.remove(&address);
                    info!(vip = %address, "VIP removed from lo");
                }
                Err(error) => {
                    is_done = false;
                    warn!(vip = %address, %error, "cannot remove the former VIP from lo");
                }
            }
        }
        is_done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use super::{LoopbackAddress, ORIGIN, Plan, plan};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_our_own_are_removed() {
        let on_lo = |address, origin| LoopbackAddress { address: ip(address), origin };
        let present = [
            on_lo("127.0.0.1", Some(1)),
            on_lo("192.0.2.1", Some(ORIGIN)),
            on_lo("192.0.2.2", Some(ORIGIN)),
            on_lo("192.0.2.3", None),
            on_lo("192.0.2.4", None),
            on_lo("192.0.2.5", Some(4)),
            on_lo("2001:db8::1", Some(ORIGIN)),
        ];
        let wanted = BTreeSet::from(["192.0.2.1", "192.0.2.9", "2001:db8::9"].map(ip));
        let added = BTreeSet::from(["192.0.2.4", "192.0.2.5"].map(ip));
        assert_eq!(
            plan(&present, &wanted, &added),
            Plan {
                add: vec![ip("192.0.2.9"), ip("2001:db8::9")],
                remove: ["192.0.2.2", "192.0.2.4", "2001:db8::1"].map(ip).to_vec(),
            }
        );
    }

    #[test]
    fn an_address_that_others_configured_is_used_and_left() {
        let present = [LoopbackAddress { address: ip("192.0.2.1"), origin: Some(4) }];
        assert_eq!(plan(&present, &BTreeSet::from([ip("192.0.2.1")]), &BTreeSet::new()), Plan::default());
        assert_eq!(plan(&present, &BTreeSet::new(), &BTreeSet::new()), Plan::default());
    }
}
