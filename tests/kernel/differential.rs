//! Many packets of many flows, hosts and peers, one after the other, through the real program and through the same decision on
//! the host: both must agree on verdict, reason and every byte, and so on the hash, the slots and what they remember.

use anyhow::{Result, ensure};
use ingress_common::{
    abi::{self, NodeIndex},
    hash::NodeKey,
    rank::{Candidate, build_table},
    steer::{Action, steer},
};
use ingress_tests::packets::{
    self, DRAINING, FAR, NEAR, OWN, OWN_MAC, ROUTER_MAC, UPLINK,
    build::{ACK, SYN, v4, v6},
    mac_of,
};
use libtest_mimic::Trial;

use crate::{front::Front, trial};

const PACKETS: u64 = 3_000;
const FLOWS: u64 = 300;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("differential::host_and_kernel_agree", host_and_kernel_agree)]
}

fn host_and_kernel_agree() -> Result<()> {
    let mut world = packets::world();
    world.config.hash_key = 0x1234_5678_9abc_def0;
    let candidate =
        |node: NodeIndex| Candidate::new(node, NodeKey::of(&format!("node-{}", node.0)), 1, node != DRAINING);
    build_table(&[NEAR, OWN, FAR, DRAINING].map(candidate), 4, &mut world.slots[0]);
    let mut front = Front::load()?;
    front.fill(&world)?;

    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 20) % limit
    };
    for number in 0..PACKETS {
        let flags = [SYN, ACK, ACK, ACK | 1][below(4) as usize];
        let sender = [ROUTER_MAC, ROUTER_MAC, mac_of(NEAR), mac_of(FAR)][below(4) as usize];
        let segment = if below(2) == 0 { v4(flags) } else { v6(flags) };
        let port = 1024 + below(FLOWS) as u16;
        let hops = [64, 33, 32, 17, 16, 15, 2, 1][below(8) as usize];
        let packet = segment.macs(sender, OWN_MAC).hops(hops).with(|segment| segment.src_port = port).bytes();

        let mut expected = packet.clone();
        let verdict = steer(expected.as_mut_slice(), &world, UPLINK);
        let ran = front.run(&packet)?;
        ensure!(ran.reason == verdict.reason, "packet {number}: {:?}, not {:?}", ran.reason, verdict.reason);
        if verdict.action != Action::Drop {
            ensure!(ran.packet == expected, "packet {number}, {:?}: other bytes", verdict.reason);
        }
    }
    let remembered = world.flows4.borrow().len() as u64;
    let in_kernel = front.hash::<abi::FlowKey4, abi::Flow>(abi::FLOWS4)?.keys().count() as u64;
    ensure!(remembered == in_kernel, "{in_kernel} flows remembered, not {remembered}");
    ensure!(remembered > FLOWS / 5, "only {remembered} flows remembered: these packets show little");
    Ok(())
}
