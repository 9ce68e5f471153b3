//! Frames from the wire, against the steering code that runs in the kernel: it never panics, and what it passes to the
//! node's own kernel it has not touched.
#![no_main]

use ingress_common::abi::{
    ABI_VERSION, Addr, Be16, Config, Ip4, Ip6, Mac, Node, NodeIndex, Slot, Uplink, Vip, VipKey4, VipKey6,
};
use ingress_common::steer::{Action, memory::Memory, steer};

/// A node that owns 1.1.1.1 and 0101:…:0101, with one peer; TCP port 80 is served there.
fn world() -> Memory {
    let mac = Mac::new([2, 0, 0, 0, 0, 1]);
    let mut world = Memory::with_slots(1);
    world.config = Config { abi_version: ABI_VERSION, own_node: NodeIndex(0), ..Config::default() };
    world.config.uplinks[0] = Uplink { ifindex: 1, mac, reserved: 0 };
    let (ip4, ip6) = (Ip4::new(0x0101_0101), Ip6([Ip4::new(0x0101_0101); 4]));
    world.vips4.insert(VipKey4 { addr: ip4, port: Be16::new(80), proto: 6 }, Vip::default());
    world.vips6.insert(VipKey6 { addr: ip6, port: Be16::new(80), proto: 6 }, Vip::default());
    world.addrs4.insert(ip4, Addr { flags: Addr::OWNER });
    world.addrs6.insert(ip6, Addr { flags: Addr::OWNER });
    world.nodes[0].flags = Node::ALIVE;
    world.nodes[1] = Node { flags: Node::ALIVE | Node::WAY, ifindex: 1, ..Node::default() };
    let mut slot = Slot::EMPTY;
    slot.order[0] = NodeIndex(1);
    world.slots[0].fill(slot);
    world
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The shortest frame that a driver hands to XDP is an Ethernet header.
    if data.len() < 14 {
        return;
    }
    let mut frame = data.to_vec();
    let verdict = steer(frame.as_mut_slice(), &world(), 1);
    if verdict.action == Action::Pass {
        assert_eq!(frame, data);
    }
});
