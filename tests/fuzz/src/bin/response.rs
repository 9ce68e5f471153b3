//! Answers of backends: `xdp_ingress::fuzz::response` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xdp_ingress::fuzz::response(data));
