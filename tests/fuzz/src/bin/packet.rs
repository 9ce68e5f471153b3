//! Frames from the wire, against the steering code that runs in the kernel: it never panics, and what it passes to the
//! node's own kernel it has not touched.
#![no_main]

use ingress_common::abi::Mac;
use ingress_common::steer::{Action, memory::Memory, steer};

/// To where the seeds are addressed.
const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The shortest frame that a driver hands to XDP is an Ethernet header.
    if data.len() < 14 {
        return;
    }
    let mut frame = data.to_vec();
    let verdict = steer(frame.as_mut_slice(), &Memory::with_one_peer(MAC), 1);
    if verdict.action == Action::Pass {
        assert_eq!(frame, data);
    }
});
