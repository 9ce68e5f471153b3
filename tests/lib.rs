//! The lab and the real cluster as a library, for the tests and for `cargo xtask demo|lab|cluster`; and the packet tables,
//! which run on the host and in the kernel.

pub mod cluster;
pub mod demo;
pub mod lab;
pub mod packets;
pub mod paths;
