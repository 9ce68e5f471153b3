//! What the protection of VIPs asks of maps and helpers: lists, budgets, cookies. Called by `env.rs`; the functions that are
//! not inlined are verified once each, so they cost the programs that call them nothing.
//!
//! Minimum kernels: LPM tries 4.11, `bpf_fib_lookup` 4.18, `bpf_tcp_gen_syncookie` 5.3.

use core::mem;

use aya_ebpf::{
    bindings::{bpf_fib_lookup as Lookup, xdp_md},
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_fib_lookup, bpf_sk_release, bpf_tcp_gen_syncookie},
    programs::XdpContext,
};
use ingress_common::{
    abi::{Be32, Ip4, Ip6, Mac, RuleKey, Source, SourceKey, VipId},
    packet::{View, ipv4::Ipv4Hdr, ipv6::Ipv6Hdr, tcp::TcpHdr},
    steer::{Cookie, Reason, Route, charge},
};

use crate::{
    env::{Frame, Kernel},
    maps,
    sockets::{LISTEN, SocketKey},
};

/// Families of addresses, as the kernel's `socket.h` has them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[inline(always)]
pub(crate) fn rule(vip: VipId, source: Ip6) -> Option<u32> {
    let key = Key { prefix_len: RuleKey::BITS, data: RuleKey { vip: u32::from(vip.0), addr: source } };
    maps::RULES.get(&key).copied()
}

#[inline(always)]
pub(crate) fn take_source(source: SourceKey, now_ns: u64, cost_ns: u64, burst_ns: u64) -> bool {
    let known = maps::SOURCES.get_ptr_mut(source);
    // SAFETY: other CPUs may write too; of two connections at the same moment one is then not charged.
    let paid_until = known.map_or(0, |known| unsafe { (*known).paid_until_ns });
    let Some(paid_until_ns) = charge(paid_until, now_ns, cost_ns, burst_ns) else { return false };
    match known {
        // SAFETY: as above.
        Some(known) => unsafe { (*known).paid_until_ns = paid_until_ns },
        // A map that is full forgets the source that was quiet for longest; if even that fails, this one has no limit.
        None => drop(maps::SOURCES.insert(source, Source { paid_until_ns }, 0)),
    }
    true
}

#[inline(always)]
pub(crate) fn guard(vip: VipId, flags: u16, source: Ip6, opens_flow: bool) -> Reason {
    let [a, b, c, d] = source.0.map(|word| u64::from(word.raw()));
    let vip = u32::from(vip.0) << 16 | u32::from(flags);
    let reason = guard_vip(vip, a << 32 | b, c << 32 | d, u32::from(opens_flow));
    // One by one: the verifier would not see that a place in a table is inside it.
    if reason == Reason::DropDenied.index() {
        Reason::DropDenied
    } else if reason == Reason::DropNotAllowed.index() {
        Reason::DropNotAllowed
    } else if reason == Reason::DropSourceRate.index() {
        Reason::DropSourceRate
    } else {
        Reason::NotOurs
    }
}

/// [`ingress_common::steer::guard`], with number and flags of the VIP in one word and the address in two.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn guard_vip(vip: u32, high: u64, low: u64, opens_flow: u32) -> u32 {
    let kernel = Kernel::without_context();
    let words = [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32];
    let source = Ip6(words.map(Be32::from_raw));
    ingress_common::steer::guard(&kernel, VipId((vip >> 16) as u16), vip as u16, source, opens_flow != 0)
        .index()
}

/// [`ingress_common::steer::Tables::take_syn`]; 0: none left.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_syn_of(vip: u32) -> u32 {
    let Some(guard) = maps::GUARDS.get(vip) else { return 1 };
    let budget = maps::SYN_BUDGETS.get_ptr_mut(vip);
    u32::from(Kernel::without_context().take(budget, guard.syn_cost_ns, guard.syn_burst_ns))
}

/// What [`cookie4`] and [`cookie6`] return has this bit if there is a cookie.
const IS_COOKIE: u64 = 1 << 32;

#[inline(always)]
pub(crate) fn cookie(found: u64) -> Option<Cookie> {
    (found & IS_COOKIE != 0).then_some(Cookie(found as u32))
}

/// The beginning of a TCP header as `bpf_tcp_gen_syncookie` gets it: with one option. What follows is not needed, and a
/// length that is known spares the verifier work.
#[repr(C, align(8))]
struct Head {
    tcp: TcpHdr,
    option: [u8; 4],
}

/// A TCP header length of 24 bytes.
const HEAD_OFFSET: u8 = 0x60;
/// "Maximum segment size", 4 bytes long.
const MSS: [u8; 2] = [2, 4];
const NO_OPERATION: u8 = 1;

#[inline(always)]
fn find_cookie<H: View>(
    ctx: *mut xdp_md,
    l3: u32,
    l4: u32,
    key: impl Fn(&H, &TcpHdr) -> (SocketKey, usize),
) -> u64 {
    let frame = Frame::new(&XdpContext::new(ctx));
    // Bounds that the verifier understands.
    let (l3, l4) = ((l3 & 0xff) as usize, (l4 & 0x3ff) as usize);
    let (Some(ip), Some(tcp)) = (frame.pointer::<H>(l3), frame.pointer::<TcpHdr>(l4)) else { return 0 };
    // SAFETY: lies inside the frame, as just checked; headers have no alignment.
    let mut head = Head { tcp: unsafe { *tcp }, option: [NO_OPERATION; 4] };
    // All stacks of today send the segment size first; of others the smallest is assumed.
    if head.tcp.header_len() >= size_of::<Head>()
        && let Some(option) = frame.pointer::<[u8; 4]>(l4 + size_of::<TcpHdr>())
        // SAFETY: as above.
        && let option = unsafe { *option }
        && option[0] == MSS[0]
        && option[1] == MSS[1]
    {
        head.option = option;
    }
    head.tcp.offset = HEAD_OFFSET;
    // SAFETY: as above.
    let (key, size) = key(unsafe { &*ip }, &head.tcp);
    let socket = key.look_up(ctx, size);
    if socket.is_null() {
        return 0;
    }
    // SAFETY: not null, and valid until it is released; the kernel reads no more of the headers than the lengths given.
    let found = unsafe {
        if (*socket).state == LISTEN {
            bpf_tcp_gen_syncookie(
                socket.cast(),
                ip.cast(),
                size_of::<H>() as u32,
                (&raw mut head).cast(),
                size_of::<Head>() as u32,
            )
        } else {
            -1
        }
    };
    // SAFETY: looked up above, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    if found < 0 { 0 } else { IS_COOKIE | u64::from(found.cast_unsigned() as u32) }
}

/// The cookie for the SYN whose headers are at `l3` and `l4`, with [`IS_COOKIE`]; 0: the listener has room, or is not there.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cookie4(ctx: *mut xdp_md, l3: u32, l4: u32) -> u64 {
    find_cookie::<Ipv4Hdr>(ctx, l3, l4, SocketKey::v4)
}

/// As [`cookie4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cookie6(ctx: *mut xdp_md, l3: u32, l4: u32) -> u64 {
    find_cookie::<Ipv6Hdr>(ctx, l3, l4, SocketKey::v6)
}

#[inline(always)]
pub(crate) fn route4(ctx: *mut xdp_md, src: Ip4, dst: Ip4) -> Option<Route> {
    // SAFETY: plain integers.
    let mut lookup: Lookup = unsafe { mem::zeroed() };
    lookup.family = AF_INET;
    lookup.__bindgen_anon_3.ipv4_src = src.raw();
    lookup.__bindgen_anon_4.ipv4_dst = dst.raw();
    route(ctx, &mut lookup)
}

#[inline(always)]
pub(crate) fn route6(ctx: *mut xdp_md, src: Ip6, dst: Ip6) -> Option<Route> {
    // SAFETY: plain integers.
    let mut lookup: Lookup = unsafe { mem::zeroed() };
    lookup.family = AF_INET6;
    lookup.__bindgen_anon_3.ipv6_src = src.0.map(Be32::raw);
    lookup.__bindgen_anon_4.ipv6_dst = dst.0.map(Be32::raw);
    route(ctx, &mut lookup)
}

#[inline(always)]
fn route(ctx: *mut xdp_md, lookup: &mut Lookup) -> Option<Route> {
    // SAFETY: the kernel gives a valid context to every run.
    lookup.ifindex = unsafe { (*ctx).ingress_ifindex };
    // SAFETY: the structure is as long as is said.
    let result = unsafe { bpf_fib_lookup(ctx.cast(), lookup, size_of::<Lookup>().cast_signed() as i32, 0) };
    // 0: forwarded, and the neighbour is known. All else is for the stack.
    (result == 0).then(|| Route {
        ifindex: lookup.ifindex,
        src_mac: mac(&lookup.smac),
        dst_mac: mac(&lookup.dmac),
    })
}

/// Two bytes at a time: one of the two addresses is not aligned to more, and the verifier minds.
#[inline(always)]
fn mac(bytes: &[u8; 6]) -> Mac {
    let words = bytes.as_ptr().cast::<[u8; 2]>();
    // SAFETY: three times two bytes are the six that the reference is for.
    let [a, b, c] = [0, 1, 2].map(|word| unsafe { words.add(word).read_volatile() });
    Mac::new([a[0], a[1], b[0], b[1], c[0], c[1]])
}
