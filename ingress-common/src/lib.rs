//! What the kernel and userspace halves share: packet views, checksums, hashing, the steering decision and the
//! map ABI. Pure: no maps, no IO, no allocation. The same code runs in the XDP program, in host tests and in the
//! simulator.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "the packet path must become one function: BPF calls cost, and lose what the verifier knows"
)]

pub mod abi;
pub mod checksum;
pub mod hash;
pub mod packet;
pub mod rank;
pub mod steer;
