//! Hosts and paths: `xdp_ingress::fuzz::target` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xdp_ingress::fuzz::target(data));
