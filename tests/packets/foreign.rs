//! Traffic of the node that is none of our business: it must pass byte for byte, uncounted.

use super::{
    Case, OWN_MAC, ROUTER_MAC,
    build::{ACK, SYN, ethernet, v4, v6},
    ip6, world,
};
use ingress_common::abi::Mac;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("TCP to another port of the VIP", v4(SYN).with(|segment| segment.dst_port = 22)),
        Case::new("TCP to another address", v4(ACK).with(|segment| segment.dst = [192, 0, 2, 200])),
        Case::new("v6: TCP to another port of the VIP", v6(SYN).with(|segment| segment.dst_port = 22)),
        Case::new("v6: TCP to another address", v6(ACK).with(|segment| segment.dst6 = ip6("2001:db8::200"))),
        Case::new("UDP to the VIP", {
            let mut frame = v4(0).bytes();
            frame[14 + 9] = 17;
            frame
        }),
        Case::new("ICMP to the VIP", {
            let mut frame = v4(0).bytes();
            frame[14 + 9] = 1;
            frame
        }),
        Case::new("another Ethertype", ethernet(ROUTER_MAC, OWN_MAC, 0x88cc, &[0; 46])),
        Case::new("an 802.3 frame with a length", ethernet(ROUTER_MAC, Mac::BROADCAST, 38, &[0x42; 46])),
        Case::new("an Ethernet header and nothing else", ethernet(ROUTER_MAC, OWN_MAC, 0x0800, &[])),
        Case::new("everything while the maps are empty", v4(SYN)).when(|fresh| {
            *fresh = world();
            fresh.vips4.clear();
        }),
    ]
}
