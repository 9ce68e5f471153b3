//! PROXY headers: `xdp_ingress::fuzz::proxy` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xdp_ingress::fuzz::proxy(data));
