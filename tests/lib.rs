//! The lab and the real cluster as a library, for the tests and for `cargo xtask demo|lab|cluster`.

pub mod cluster;
pub mod demo;
pub mod lab;
pub mod paths;
