//! No bytes make the decision panic, and what it passes it has not touched.
extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::memory::Memory;
use super::*;

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

/// A SYN to port 80 of address 1.1.1.1 or 0101:…:0101, an ARP request and a solicitation for them: headers only.
fn frames() -> [Vec<u8>; 4] {
    let ethernet = |kind: [u8; 2]| [MAC.octets(), [2, 0, 0, 0, 0, 9]].concat().into_iter().chain(kind);
    let tcp = [0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];
    let v4 = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 9, 9, 9, 9, 1, 1, 1, 1];
    let v6 = |next, len, hops| [[0x60, 0, 0, 0, 0, len, next, hops].as_slice(), &[9; 16], &[1; 16]].concat();
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
    let solicitation = [[135, 0, 0, 0, 0, 0, 0, 0].as_slice(), &[1; 16], &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    [
        ethernet([8, 0]).chain(v4).chain(tcp).collect(),
        ethernet([0x86, 0xdd]).chain(v6(6, 20, 64)).chain(tcp).collect(),
        ethernet([8, 6]).chain(arp).collect(),
        ethernet([0x86, 0xdd]).chain(v6(58, 32, 255)).chain(solicitation).collect(),
    ]
}

fn world() -> Memory {
    Memory::with_one_peer(MAC)
}

#[test]
fn whole_frames_are_understood() {
    let reasons = frames().map(|mut frame| steer(frame.as_mut_slice(), &world(), 1).reason);
    let want = [Reason::ForwardNew, Reason::ForwardNew, Reason::ArpAnswered, Reason::NdpAnswered];
    assert_eq!(reasons, want);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn nothing_panics_and_what_passes_is_untouched(
        which in 0_usize..4,
        changes in proptest::collection::vec((0_usize..80, any::<u8>()), 0..6),
        len in 0_usize..100,
        tail in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut frame = frames()[which].clone();
        frame.extend(tail);
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(len.max(14));
        let before = frame.clone();
        let verdict = steer(frame.as_mut_slice(), &world(), 1);
        if verdict.action == Action::Pass {
            prop_assert_eq!(frame, before);
        }
    }
}
