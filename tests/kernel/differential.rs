//! Many packets of many flows, hosts and peers, one after the other, through the real program and through the same decision on
//! the host: both must agree on verdict, reason and every byte, and so on the hash, the slots and what they remember.

use anyhow::{Result, ensure};
use ingress_common::{
    abi::{FlowSet, NodeIndex},
    hash::NodeKey,
    rank::{Candidate, build_table},
    steer::{Action, memory::Flows, steer},
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
const FLOW_SETS: u32 = 16;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("differential::host_and_kernel_agree", host_and_kernel_agree)]
}

fn host_and_kernel_agree() -> Result<()> {
    let mut world = packets::world();
    // So small that flows push each other out.
    world.config.flow_sets = FLOW_SETS;
    world.flows = Flows::with_sets(FLOW_SETS as usize);
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
    let words = |flows: &Flows| flows.sets().iter().map(FlowSet::words).collect::<Vec<_>>();
    let remembered = words(&world.flows);
    ensure!(words(&front.flows(FLOW_SETS as usize)?) == remembered, "the flow tables differ");
    let count = remembered.iter().flatten().filter(|entry| **entry != 0).count();
    ensure!(count > 2 * FLOW_SETS as usize, "only {count} flows remembered: these packets show little");
    Ok(())
}
