//! Requests of clients: `xdp_ingress::fuzz::request` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xdp_ingress::fuzz::request(data));
