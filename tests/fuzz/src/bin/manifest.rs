//! Manifests, translated and asked: `xdp_ingress::fuzz::manifest` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xdp_ingress::fuzz::manifest(data));
