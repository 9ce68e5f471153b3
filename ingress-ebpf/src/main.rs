//! The XDP front and the programs that it calls for what is rare: binds `ingress-common`'s steering decision to maps and
//! helpers, nothing else.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the macro wants entry points so")]
#![expect(
    clippy::inline_always,
    reason = "the packet path must become one function: BPF calls cost, and lose what the verifier knows"
)]

mod env;
mod maps;
mod protection;
mod sockets;

use core::ptr;

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect, macros::xdp, programs::XdpContext};
use aya_log_ebpf::info;
use ingress_common::{
    abi::{COOKIE, Config, DETOUR, Errand, FRAGMENT, ICMP, NodeIndex, RETAG, TOO_BIG, Told},
    packet::Packet as _,
    steer::{
        Action, Reason, Tables as _, Verdict, cookie, detour, encapsulate, fragment, icmp, retag, steer,
        too_big,
    },
};

/// Entry point on each uplink.
#[xdp]
fn xdp_front(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let verdict = steer(&mut frame, &env::kernel(&ctx), ifindex(&ctx));
    if verdict.reason == Reason::NotOurs {
        return xdp_action::XDP_PASS;
    }
    if verdict.action == Action::Detour {
        // SAFETY: the program is of the same type; if it is not there (yet), this goes on.
        unsafe { maps::PROGRAMS.tail_call(&ctx, DETOUR) };
        return xdp_action::XDP_PASS;
    }
    finish(&ctx, &mut frame, verdict)
}

/// Called by the front for what is rare.
#[xdp]
fn xdp_detour(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let verdict = detour(&mut frame, &env::kernel(&ctx), ifindex(&ctx));
    if verdict.reason == Reason::NotOurs {
        return xdp_action::XDP_PASS;
    }
    if matches!(verdict.action, Action::Icmp | Action::Fragment) {
        send_on(Errand { in_tunnel: verdict.detail, ..NO_ERRAND });
        let program = if verdict.action == Action::Icmp { ICMP } else { FRAGMENT };
        // SAFETY: as in the front.
        unsafe { maps::PROGRAMS.tail_call(&ctx, program) };
        return xdp_action::XDP_PASS;
    }
    finish(&ctx, &mut frame, verdict)
}

/// Called by the detour for ICMP to a VIP's address.
#[xdp]
fn xdp_icmp(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let verdict = icmp(&mut frame, &env::kernel(&ctx), ifindex(&ctx), came_in_tunnel());
    if verdict.reason == Reason::NotOurs {
        return xdp_action::XDP_PASS;
    }
    finish(&ctx, &mut frame, verdict)
}

/// Called by the detour for pieces of packets to a VIP's address.
#[xdp]
fn xdp_fragment(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let verdict = fragment(&mut frame, &env::kernel(&ctx), ifindex(&ctx), came_in_tunnel());
    if verdict.reason == Reason::NotOurs {
        return xdp_action::XDP_PASS;
    }
    finish(&ctx, &mut frame, verdict)
}

/// Called by the others for a packet that is too big for its tunnel.
#[xdp]
fn xdp_too_big(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let bytes = frame.len();
    let Some(errand) = maps::ERRAND.get(0) else { return xdp_action::XDP_DROP };
    let verdict = too_big(&mut frame, &env::kernel(&ctx), *errand);
    act(&ctx, &verdict, bytes)
}

/// Called by the others for a SYN that is one too many.
#[xdp]
fn xdp_cookie(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let bytes = frame.len();
    let Some(errand) = maps::ERRAND.get(0) else { return xdp_action::XDP_PASS };
    let verdict = cookie(&mut frame, &env::kernel(&ctx), ifindex(&ctx), *errand);
    act(&ctx, &verdict, bytes)
}

/// Called by the others for a frame that leaves by another VLAN than it came in by. They have counted it.
#[xdp]
fn xdp_retag(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let bytes = frame.len();
    let Some(errand) = maps::ERRAND.get(0) else { return xdp_action::XDP_DROP };
    let verdict = Verdict { node: errand.node, ..Verdict::NOT_OURS };
    let verdict = retag(&mut frame, &env::kernel(&ctx), ifindex(&ctx), verdict);
    match verdict.action {
        Action::Transmit | Action::Redirect => code(&verdict),
        _ => act(&ctx, &verdict, bytes),
    }
}

/// What the front would do with a packet, as a number (`Told`). Attached nowhere: `xdp-ingress why` runs it over the front's maps.
/// It counts nothing and remembers nothing.
#[xdp]
fn xdp_why(ctx: XdpContext) -> u32 {
    let mut frame = env::Frame::new(&ctx);
    let verdict = steer(&mut frame, &env::question(&ctx), ifindex(&ctx));
    let is_cookie = verdict.action == Action::Cookie;
    Told { reason: verdict.reason.index(), node: verdict.node, is_cookie }.pack()
}

/// Says nothing.
const NO_ERRAND: Errand = Errand { node: NodeIndex::NONE, vip: 0, in_tunnel: 0 };

/// Tells the program that is called next.
#[inline(always)]
fn send_on(errand: Errand) {
    if let Some(place) = maps::ERRAND.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe { *place = errand };
    }
}

#[inline(always)]
fn came_in_tunnel() -> bool {
    maps::ERRAND.get(0).is_some_and(|errand| errand.in_tunnel != 0)
}

#[inline(always)]
fn ifindex(ctx: &XdpContext) -> u32 {
    // SAFETY: the kernel gives a valid context to every run.
    unsafe { (*ctx.ctx).ingress_ifindex }
}

/// Puts the packet into its tunnel if it needs one, then does what the verdict says.
#[inline(always)]
fn finish(ctx: &XdpContext, frame: &mut env::Frame, verdict: Verdict) -> u32 {
    let bytes = frame.len();
    if verdict.action == Action::Cookie {
        send_on(Errand { node: verdict.node, vip: verdict.vip.0, in_tunnel: 0 });
        // SAFETY: the program is of the same type; if it is not there (yet), the SYN goes to the stack.
        unsafe { maps::PROGRAMS.tail_call(ctx, COOKIE) };
    }
    if verdict.action != Action::Encapsulate {
        return act(ctx, &verdict, bytes);
    }
    let verdict = encapsulate(frame, &env::kernel(ctx), ifindex(ctx), verdict);
    if verdict.action == Action::TooBig {
        send_on(Errand { node: verdict.node, vip: verdict.vip.0, in_tunnel: 0 });
        // SAFETY: as above.
        unsafe { maps::PROGRAMS.tail_call(ctx, TOO_BIG) };
        return xdp_action::XDP_DROP;
    }
    act(ctx, &verdict, bytes)
}

/// Counts the verdict about a frame that came in with `bytes` bytes, and turns it into what the kernel understands.
#[inline(always)]
fn act(ctx: &XdpContext, verdict: &Verdict, bytes: usize) -> u32 {
    env::count(verdict, bytes);
    if maps::BPF_LOG.load() != 0
        && env::kernel(ctx).config().is_some_and(|config| config.flags & Config::LOG != 0)
    {
        let vip_and_node = u32::from(verdict.vip.0) << 16 | u32::from(verdict.node.0);
        log(verdict.reason.index(), vip_and_node, u32::from(verdict.new_flow));
    }
    if verdict.lacks_tags() {
        send_on(Errand { node: verdict.node, ..NO_ERRAND });
        // SAFETY: the program is of the same type; if it is not there (yet), the packet is lost.
        unsafe { maps::PROGRAMS.tail_call(ctx, RETAG) };
        return xdp_action::XDP_DROP;
    }
    code(verdict)
}

/// The verdict as the kernel understands it.
#[inline(always)]
fn code(verdict: &Verdict) -> u32 {
    match verdict.action {
        Action::Pass | Action::Cookie => xdp_action::XDP_PASS,
        Action::Transmit => xdp_action::XDP_TX,
        // SAFETY: takes two integers; a wrong interface index makes the kernel drop the packet.
        Action::Redirect => unsafe { bpf_redirect(verdict.ifindex, 0).cast_unsigned() as u32 },
        Action::Drop
        | Action::Encapsulate
        | Action::Detour
        | Action::Icmp
        | Action::Fragment
        | Action::TooBig => xdp_action::XDP_DROP,
    }
}

/// Tells the daemon's log. Only in programs loaded with logging on: the verifier removes it from all others. A global function:
/// verified by itself, once, not once for each way to get here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn log(reason: u32, vip_and_node: u32, new_flow: u32) -> u32 {
    let Some(reason) = Reason::from_index(reason) else { return 0 };
    // Nothing is read of the context, and a function that is verified by itself is not given what it does not use.
    let (ctx, reason) = (XdpContext::new(ptr::null_mut()), reason.name());
    info!(&ctx, "{} vip={} node={} new={}", reason, vip_and_node >> 16, vip_and_node & 0xffff, new_flow);
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
