//! ARP requests for a VIP: the owner answers from here, everybody else drops them, because the address sits on every node's
//! `lo` and the kernel would answer. Everything else in ARP passes.

use crate::abi::Mac;
use crate::packet::Packet;
use crate::packet::arp::{ArpHdr, REPLY};
use crate::packet::eth::{EthHdr, Link};

use super::{Action, Reason, Tables, Verdict, answering_mac, ready};

#[inline(always)]
pub(super) fn answer<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    link: &Link,
) -> Verdict {
    let Some(arp) = packet.at::<ArpHdr>(link.l3) else { return Verdict::NOT_OURS };
    if !arp.is_request() {
        return Verdict::NOT_OURS;
    }
    let Some(addr) = tables.addr4(arp.target_ip) else { return Verdict::NOT_OURS };
    let Some(config) = ready(tables) else { return Verdict::other(Action::Pass, Reason::PassNotReady) };
    let mac = match answering_mac(config, addr, ifindex, Reason::ArpNotOwner) {
        Ok(mac) => mac,
        Err(reason) => return Verdict::other(Action::Drop, reason),
    };
    let done = write_reply(packet, link, mac);
    debug_assert!(done.is_some(), "the headers were read before");
    Verdict::other(Action::Transmit, Reason::ArpAnswered)
}

#[inline(always)]
fn write_reply<P: Packet + ?Sized>(packet: &mut P, link: &Link, mac: Mac) -> Option<()> {
    let arp = packet.at_mut::<ArpHdr>(link.l3)?;
    let (asker, asker_ip, vip) = (arp.sender_mac, arp.sender_ip, arp.target_ip);
    arp.operation = REPLY;
    arp.sender_mac = mac;
    arp.sender_ip = vip;
    arp.target_mac = asker;
    arp.target_ip = asker_ip;
    let eth = packet.at_mut::<EthHdr>(0)?;
    eth.dst = link.src;
    eth.src = mac;
    Some(())
}
