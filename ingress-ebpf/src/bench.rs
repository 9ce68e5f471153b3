//! What `cargo xtask bench l4` runs around the XDP front; not shipped. `BPF_PROG_TEST_RUN` does not give each run a fresh
//! packet, so a program that rewrites would be measured on its own output: `restore` writes the first bytes anew, with the next
//! flow's source address and port, and tail-calls the program under test.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the macro wants entry points so")]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use ingress_common::packet::{eth::EthHdr, ipv4::Ipv4Hdr, tcp::TcpHdr};

/// How the packets look. Written by the bench, in this order, as `[u64; 12]`.
#[repr(C)]
struct Plan {
    /// The first bytes of each packet, up to the TCP ports: 34 (IPv4) or 54 (IPv6) of them matter.
    head: [u64; 8],
    /// 4 or 6.
    version: u64,
    /// Number of flows to take in turn.
    flows: u64,
    /// The next flow.
    next: u64,
    reserved: u64,
}

#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();
/// The program under test, in place 0.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// The unit of all figures: looks at Ethernet, IPv4 and TCP, swaps the MAC addresses, sends back.
#[xdp]
fn reference(ctx: XdpContext) -> u32 {
    const LEN: usize = size_of::<EthHdr>() + size_of::<Ipv4Hdr>() + size_of::<TcpHdr>();
    let start = ctx.data();
    if start + LEN > ctx.data_end() {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the frame has as many bytes, and the headers have no alignment.
    let (eth, ip, tcp) = unsafe {
        (&mut *(start as *mut EthHdr), &*((start + 14) as *const Ipv4Hdr), &*((start + 34) as *const TcpHdr))
    };
    if { eth.ethertype }.get() != 0x0800 || ip.version_ihl != 0x45 || ip.proto != 6 || { tcp.dst }.get() == 0
    {
        return xdp_action::XDP_PASS;
    }
    (eth.dst, eth.src) = (eth.src, eth.dst);
    xdp_action::XDP_TX
}

/// What is subtracted: `restore` around this costs what `restore` costs.
#[xdp]
fn transmit(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Writes the packet anew and runs the program under test.
#[xdp]
fn restore(ctx: XdpContext) -> u32 {
    if write(&ctx).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the program is of the same type; only an empty place makes the call return.
    unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

fn write(ctx: &XdpContext) -> Option<()> {
    // SAFETY: the bench writes it before it starts; nobody writes to it while it runs but this program, on one CPU.
    let plan = unsafe { &mut *PLAN.get_ptr_mut(0)? };
    let flow = plan.next;
    plan.next = if flow + 1 >= plan.flows { 0 } else { flow + 1 };
    let start = ctx.data();
    let (words, address, port) = if plan.version == 4 { (4, 26, 34) } else { (6, 34, 54) };
    if start + 58 > ctx.data_end() {
        return None;
    }
    // SAFETY: all offsets are below the length that was just checked.
    unsafe {
        for word in 0..words {
            ((start + 8 * word) as *mut u64).write_unaligned(plan.head[word]);
        }
        ((start + 8 * words) as *mut u32).write_unaligned(plan.head[words] as u32);
        let low = (start + address + 2) as *mut u16;
        low.write_unaligned(((flow >> 16) as u16).to_be());
        ((start + port) as *mut u16).write_unaligned((flow as u16).to_be());
    }
    Some(())
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
