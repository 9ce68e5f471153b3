//! Look-ups of the node's own TCP sockets, as functions that the verifier checks once each. Called by `env.rs` and
//! `protection.rs`.

use core::mem;

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, xdp_md},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie},
    programs::XdpContext,
};
use ingress_common::{
    abi::{Be16, Be32, Ip4, Ip6},
    packet::{
        View,
        ipv4::Ipv4Hdr,
        ipv6::Ipv6Hdr,
        tcp::{Ports, TcpFlags, TcpHdr},
    },
};

use crate::env::Frame;

/// State of a listening socket (`TCP_LISTEN` in the kernel's `tcp_states.h`).
pub(crate) const LISTEN: u32 = 10;
/// State of a connection that this end closed first (`TCP_TIME_WAIT`), kept for a minute.
const TIME_WAIT: u32 = 6;
/// The network namespace of the interface that the packet came in by.
const CURRENT_NETNS: u64 = (BPF_F_CURRENT_NETNS as i64).cast_unsigned();
/// Flags of a map look-up or socket look-up that wants nothing special.
pub(crate) const NO_FLAGS: u64 = 0;

/// The key of a socket look-up, aligned as the verifier wants it when the compiler writes two words at once.
#[repr(align(8))]
pub(crate) struct SocketKey(bpf_sock_tuple);

impl SocketKey {
    /// The key of the segment, and how many bytes of it count.
    #[inline(always)]
    pub(crate) fn v4(ip: &Ipv4Hdr, tcp: &TcpHdr) -> (Self, usize) {
        Self::between4(ip.src, ip.dst, tcp.src, tcp.dst)
    }

    /// As [`Self::v4`].
    #[inline(always)]
    pub(crate) fn v6(ip: &Ipv6Hdr, tcp: &TcpHdr) -> (Self, usize) {
        Self::between6(ip.src, ip.dst, tcp.src, tcp.dst)
    }

    #[inline(always)]
    fn between4(src: Ip4, dst: Ip4, src_port: Be16, dst_port: Be16) -> (Self, usize) {
        // SAFETY: plain integers.
        let mut key: Self = unsafe { mem::zeroed() };
        // SAFETY: writes to a union of plain integers.
        let ipv4 = unsafe { &mut key.0.__bindgen_anon_1.ipv4 };
        (ipv4.saddr, ipv4.daddr) = (src.raw(), dst.raw());
        (ipv4.sport, ipv4.dport) = (src_port.raw(), dst_port.raw());
        let size = size_of_val(ipv4);
        (key, size)
    }

    #[inline(always)]
    fn between6(src: Ip6, dst: Ip6, src_port: Be16, dst_port: Be16) -> (Self, usize) {
        // SAFETY: plain integers.
        let mut key: Self = unsafe { mem::zeroed() };
        // SAFETY: writes to a union of plain integers.
        let ipv6 = unsafe { &mut key.0.__bindgen_anon_1.ipv6 };
        (ipv6.saddr, ipv6.daddr) = (src.0.map(Be32::raw), dst.0.map(Be32::raw));
        (ipv6.sport, ipv6.dport) = (src_port.raw(), dst_port.raw());
        let size = size_of_val(ipv6);
        (key, size)
    }

    /// The socket: a connection, a request or a listener, in the network namespace of the interface. Null if there is none; to
    /// be released otherwise.
    #[inline(always)]
    pub(crate) fn look_up(mut self, ctx: *mut xdp_md, size: usize) -> *mut bpf_sock {
        // SAFETY: the key has at least `size` bytes; the kernel only reads them.
        unsafe { bpf_skc_lookup_tcp(ctx.cast(), &raw mut self.0, size as u32, CURRENT_NETNS, NO_FLAGS) }
    }
}

/// What [`find_socket`] may find.
pub(crate) const NOTHING: u32 = 0;
pub(crate) const CONNECTION: u32 = 1;
pub(crate) const LISTENER: u32 = 2;

/// The socket of the segment whose headers are at `l3` and `l4`, in the network namespace of the interface: see
/// [`Tables::has_socket4`]. The socket is released before this returns.
#[inline(always)]
fn find_socket<H: View>(
    ctx: *mut xdp_md,
    l3: u32,
    l4: u32,
    key: impl Fn(&H, &TcpHdr) -> (SocketKey, usize),
) -> u32 {
    let frame = Frame::new(&XdpContext::new(ctx));
    // Bounds that the verifier understands.
    let (l3, l4) = ((l3 & 0xff) as usize, (l4 & 0x3ff) as usize);
    let (Some(ip), Some(tcp)) = (frame.pointer::<H>(l3), frame.pointer::<TcpHdr>(l4)) else { return NOTHING };
    // SAFETY: both lie inside the frame, as just checked; headers have no alignment.
    let (flags, (key, size)) = unsafe { ((*tcp).flags, key(&*ip, &*tcp)) };
    let socket = key.look_up(ctx, size);
    if socket.is_null() {
        return NOTHING;
    }
    // SAFETY: not null, and valid until it is released.
    let state = unsafe { (*socket).state };
    let found = match state {
        // What is closed waits for its peer's FIN to be repeated. Everything else belongs to a new flow of a client that uses
        // its port again, which another node may have got: the kernel would swallow it here without a word.
        TIME_WAIT => flags.has(TcpFlags::FIN | TcpFlags::RST),
        // A listener counts if the segment answers a SYN cookie that it has sent.
        LISTEN => {
            flags.is_plain_ack()
                // SAFETY: both headers lie inside the frame; the kernel reads no more than the lengths given.
                && unsafe {
                    bpf_tcp_check_syncookie(
                        socket.cast(),
                        ip.cast(),
                        size_of::<H>() as u32,
                        tcp.cast(),
                        size_of::<TcpHdr>() as u32,
                    )
                } == 0
        }
        _ => true,
    };
    // SAFETY: looked up above, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    if found { CONNECTION } else { LISTENER }
}

/// [`find_socket`] as a global function: verified by itself, once, and compiled without a thought of what its callers have
/// checked; what the compiler then leaves out, the verifier would miss.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_socket4(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_socket::<Ipv4Hdr>(ctx, l3, l4, SocketKey::v4)
}

/// As [`find_socket4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_socket6(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_socket::<Ipv6Hdr>(ctx, l3, l4, SocketKey::v6)
}

/// Whether there is a connection for the packet that an ICMP error quotes, with its IP header at `l3` and its ports at `l4`: one
/// that this node has sent, so that its source is our end.
#[inline(always)]
fn find_quoted<H: View>(
    ctx: *mut xdp_md,
    l3: u32,
    l4: u32,
    key: impl Fn(&H, &Ports) -> (SocketKey, usize),
) -> u32 {
    let frame = Frame::new(&XdpContext::new(ctx));
    // Bounds that the verifier understands.
    let (l3, l4) = ((l3 & 0xff) as usize, (l4 & 0x3ff) as usize);
    let (Some(ip), Some(ports)) = (frame.pointer::<H>(l3), frame.pointer::<Ports>(l4)) else {
        return NOTHING;
    };
    // SAFETY: both lie inside the frame, as just checked; headers have no alignment.
    let (key, size) = unsafe { key(&*ip, &*ports) };
    let socket = key.look_up(ctx, size);
    if socket.is_null() {
        return NOTHING;
    }
    // SAFETY: not null, and valid until it is released.
    let listens = unsafe { (*socket).state } == LISTEN;
    // SAFETY: looked up above, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    if listens { LISTENER } else { CONNECTION }
}

/// [`find_quoted`] as a global function, as [`find_socket4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_quoted4(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_quoted::<Ipv4Hdr>(ctx, l3, l4, |ip, ports| SocketKey::between4(ip.dst, ip.src, ports.dst, ports.src))
}

/// As [`find_quoted4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_quoted6(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_quoted::<Ipv6Hdr>(ctx, l3, l4, |ip, ports| SocketKey::between6(ip.dst, ip.src, ports.dst, ports.src))
}
