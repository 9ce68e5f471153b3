//! The XDP front: binds `ingress-common`'s steering decision to maps and helpers, nothing else.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the macro wants entry points so")]
#![expect(
    clippy::inline_always,
    reason = "the packet path must become one function: BPF calls cost, and lose what the verifier knows"
)]

mod env;
mod maps;

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect, macros::xdp, programs::XdpContext};
use aya_log_ebpf::info;
use ingress_common::{
    abi::Config,
    packet::Packet as _,
    steer::{Action, Reason, Tables as _, Verdict, steer},
};

/// Entry point on each uplink.
#[xdp]
fn xdp_front(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let bytes = frame.len();
    // SAFETY: the kernel gives a valid context to every run.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    let kernel = env::kernel(&ctx);
    let verdict = steer(&mut frame, &kernel, ifindex);
    if verdict.reason == Reason::NotOurs {
        return xdp_action::XDP_PASS;
    }
    env::count(&verdict, bytes);
    if maps::BPF_LOG.load() != 0 && kernel.config().is_some_and(|config| config.flags & Config::LOG != 0) {
        log(&ctx, &verdict);
    }
    match verdict.action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
        // SAFETY: takes two integers; a wrong interface index makes the kernel drop the packet.
        Action::Redirect => unsafe { bpf_redirect(verdict.ifindex, 0).cast_unsigned() as u32 },
    }
}

/// Tells the daemon's log. Only in programs loaded with logging on: the verifier removes it from all others.
#[inline(never)]
fn log(ctx: &XdpContext, verdict: &Verdict) {
    let (reason, vip, node) = (verdict.reason.name(), verdict.vip.0, verdict.node.0);
    info!(ctx, "{} vip={} node={} new={}", reason, vip, node, u8::from(verdict.new_flow));
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
