//! What the kernel and userspace halves share: packet views, checksums, hashing, the steering decision and the
//! map ABI. Pure: no maps, no IO, no allocation. The same code runs in the XDP program, in host tests and in the
//! simulator.
#![no_std]

pub mod abi;
