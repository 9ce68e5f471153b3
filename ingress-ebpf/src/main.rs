//! The XDP front: binds `ingress-common`'s steering decision to maps and helpers, nothing else.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Entry point on each uplink.
#[xdp]
fn xdp_front(_ctx: XdpContext) -> u32 {
    if maps::BPF_LOG.load() != 0 && maps::CONFIG.get(0).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
