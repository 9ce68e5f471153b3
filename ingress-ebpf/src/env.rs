//! What the decision asks of the world, answered by maps and helpers. Called by `main.rs`; decides nothing.
//!
//! Minimum kernels: `bpf_ktime_get_ns` 4.1, LRU hash maps 4.10, XDP redirect 4.14, `bpf_sk_release` 4.20, `bpf_skc_lookup_tcp`
//! and `bpf_tcp_check_syncookie` 5.2 (both from XDP), the loops of the decision 5.3. From 6.10 on, per-CPU arrays (counters)
//! are read without a call.

use core::{hint::assert_unchecked, mem, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, xdp_md},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie, bpf_xdp_adjust_head,
        bpf_xdp_adjust_tail,
    },
    programs::XdpContext,
};
use ingress_common::{
    abi::{
        Addr, Be16, Be32, Config, Count, FlowSet, Fragment, FragmentKey, Ip4, Ip6, Mac, Node, NodeIndex,
        PeerKey, SLOT_PAGE_LEN, SLOT_PAGES, Slot, Tunnel, TunnelEndKey, Vip, VipKey4, VipKey6, WalkBudget,
    },
    hash::FlowHash,
    packet::{
        Packet, Resize, View,
        ipv4::Ipv4Hdr,
        ipv6::Ipv6Hdr,
        tcp::{Ports, TcpHdr},
    },
    steer::{ECHO_BURST_NS, ECHO_COST_NS, Question, Quote, Segment, Tables, Tuple, Verdict, charge, choose},
};

use crate::maps;

/// The frame in the kernel's buffer.
pub(crate) struct Frame {
    start: usize,
    end: usize,
    ctx: *mut xdp_md,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end(), ctx: ctx.ctx }
    }

    /// After a helper has moved the frame's ends: no pointer into it is good any more.
    #[inline(always)]
    fn moved(&mut self, result: i64) -> Option<()> {
        let moved = XdpContext::new(self.ctx);
        (self.start, self.end) = (moved.data(), moved.data_end());
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.start + offset;
        // SAFETY: no frame lies at address zero. Said, because a reference that may be null costs a comparison each time.
        unsafe { assert_unchecked(start != 0) };
        (start + size_of::<T>() <= self.end).then_some(start as *mut T)
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn at<T: View>(&self, offset: usize) -> Option<&T> {
        // SAFETY: inside the frame (just checked, and the verifier checks again); `View` has no alignment and no invalid
        // bytes; nobody else writes to the frame while the program runs.
        self.pointer(offset).map(|view| unsafe { &*view })
    }

    #[inline(always)]
    fn at_mut<T: View>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as above, and `&mut self` is the only way to the frame.
        self.pointer(offset).map(|view| unsafe { &mut *view })
    }
}

impl Resize for Frame {
    #[inline(always)]
    fn add_head(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: the context of this run; `&mut self` means that nobody holds a pointer into the frame.
        let result = unsafe { bpf_xdp_adjust_head(self.ctx, -bytes.cast_signed() as i32) };
        self.moved(result)
    }

    #[inline(always)]
    fn remove_head(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: as above.
        let result = unsafe { bpf_xdp_adjust_head(self.ctx, bytes.cast_signed() as i32) };
        self.moved(result)
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> Option<()> {
        let surplus = self.len().checked_sub(len)?;
        // SAFETY: as above.
        let result = unsafe { bpf_xdp_adjust_tail(self.ctx, -surplus.cast_signed() as i32) };
        self.moved(result)
    }
}

/// The maps, and the context that socket look-ups need.
pub(crate) struct Kernel {
    pub(crate) ctx: *mut xdp_md,
}

/// State of a listening socket (`TCP_LISTEN` in the kernel's `tcp_states.h`).
const LISTEN: u32 = 10;
/// The network namespace of the interface that the packet came in by.
const CURRENT_NETNS: u64 = (BPF_F_CURRENT_NETNS as i64).cast_unsigned();
/// Flags of a map look-up or socket look-up that wants nothing special.
const NO_FLAGS: u64 = 0;

/// The key of a socket look-up, aligned as the verifier wants it when the compiler writes two words at once.
#[repr(align(8))]
struct SocketKey(bpf_sock_tuple);

/// What [`find_socket`] may find.
const NOTHING: u32 = 0;
const CONNECTION: u32 = 1;
const LISTENER: u32 = 2;

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
    let (flags, (mut key, size)) = unsafe { ((*tcp).flags, key(&*ip, &*tcp)) };
    // SAFETY: `key` has at least `size` bytes; the kernel only reads them.
    let socket: *mut bpf_sock =
        unsafe { bpf_skc_lookup_tcp(ctx.cast(), &raw mut key.0, size as u32, CURRENT_NETNS, NO_FLAGS) };
    if socket.is_null() {
        return NOTHING;
    }
    // SAFETY: not null, and valid until it is released.
    let listens = unsafe { (*socket).state } == LISTEN;
    // A listener counts if the segment answers a SYN cookie that it has sent.
    let found = !listens
        || flags.is_plain_ack()
            // SAFETY: both headers lie inside the frame; the kernel reads no more than the lengths given.
            && unsafe {
                bpf_tcp_check_syncookie(
                    socket.cast(),
                    ip.cast(),
                    size_of::<H>() as u32,
                    tcp.cast(),
                    size_of::<TcpHdr>() as u32,
                )
            } == 0;
    // SAFETY: looked up above, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    if found { CONNECTION } else { LISTENER }
}

/// [`find_socket`] as a global function: verified by itself, once, and compiled without a thought of what its callers have
/// checked; what the compiler then leaves out, the verifier would miss.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_socket4(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_socket::<Ipv4Hdr>(ctx, l3, l4, |ip, tcp| key4(ip.src, ip.dst, tcp.src, tcp.dst))
}

#[inline(always)]
fn key4(src: Ip4, dst: Ip4, src_port: Be16, dst_port: Be16) -> (SocketKey, usize) {
    // SAFETY: plain integers.
    let mut key: SocketKey = unsafe { mem::zeroed() };
    // SAFETY: writes to a union of plain integers.
    let ipv4 = unsafe { &mut key.0.__bindgen_anon_1.ipv4 };
    (ipv4.saddr, ipv4.daddr) = (src.raw(), dst.raw());
    (ipv4.sport, ipv4.dport) = (src_port.raw(), dst_port.raw());
    let size = size_of_val(ipv4);
    (key, size)
}

/// As [`find_socket4`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_socket6(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_socket::<Ipv6Hdr>(ctx, l3, l4, |ip, tcp| key6(ip.src, ip.dst, tcp.src, tcp.dst))
}

#[inline(always)]
fn key6(src: Ip6, dst: Ip6, src_port: Be16, dst_port: Be16) -> (SocketKey, usize) {
    // SAFETY: plain integers.
    let mut key: SocketKey = unsafe { mem::zeroed() };
    // SAFETY: writes to a union of plain integers.
    let ipv6 = unsafe { &mut key.0.__bindgen_anon_1.ipv6 };
    (ipv6.saddr, ipv6.daddr) = (src.0.map(Be32::raw), dst.0.map(Be32::raw));
    (ipv6.sport, ipv6.dport) = (src_port.raw(), dst_port.raw());
    let size = size_of_val(ipv6);
    (key, size)
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
    let (mut key, size) = unsafe { key(&*ip, &*ports) };
    // SAFETY: `key` has at least `size` bytes; the kernel only reads them.
    let socket: *mut bpf_sock =
        unsafe { bpf_skc_lookup_tcp(ctx.cast(), &raw mut key.0, size as u32, CURRENT_NETNS, NO_FLAGS) };
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
extern "C" fn find_quoted4(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_quoted::<Ipv4Hdr>(ctx, l3, l4, |ip, ports| key4(ip.dst, ip.src, ports.dst, ports.src))
}

/// As [`find_quoted4`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_quoted6(ctx: *mut xdp_md, l3: u32, l4: u32) -> u32 {
    find_quoted::<Ipv6Hdr>(ctx, l3, l4, |ip, ports| key6(ip.dst, ip.src, ports.dst, ports.src))
}

impl Tables for Kernel {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: takes nothing, only reads a clock.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn heartbeat_ns(&self) -> u64 {
        maps::HEARTBEAT.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn vip4(&self, key: VipKey4) -> Option<Vip> {
        // SAFETY: copied at once; an entry that is replaced meanwhile is at worst an old or a new one.
        unsafe { maps::VIPS4.get(key) }.copied()
    }

    #[inline(always)]
    fn vip6(&self, key: VipKey6) -> Option<Vip> {
        // SAFETY: as in `vip4`.
        unsafe { maps::VIPS6.get(key) }.copied()
    }

    #[inline(always)]
    fn addr4(&self, addr: Ip4) -> Option<Addr> {
        // SAFETY: as in `vip4`.
        unsafe { maps::ADDRS4.get(addr) }.copied()
    }

    #[inline(always)]
    fn addr6(&self, addr: Ip6) -> Option<Addr> {
        // SAFETY: as in `vip4`.
        unsafe { maps::ADDRS6.get(addr) }.copied()
    }

    #[inline(always)]
    fn slot(&self, table: u32, hash: u32) -> Option<&Slot> {
        let number = hash & 0xffff;
        let page = (table & 1) * SLOT_PAGES as u32 + number / SLOT_PAGE_LEN as u32;
        let page = maps::SLOTS.get_ptr(page)?;
        // SAFETY: array elements live as long as the map, and the number is cut to the length of a page.
        Some(unsafe { &*page.cast::<Slot>().add(number as usize % SLOT_PAGE_LEN) })
    }

    #[inline(always)]
    fn choose(&self, hash: u32, question: Question) -> NodeIndex {
        NodeIndex(choose_node(hash, question as u32) as u16)
    }

    #[inline(always)]
    fn node(&self, index: NodeIndex) -> Option<&Node> {
        maps::NODES.get(u32::from(index.0))
    }

    #[inline(always)]
    fn tunnel(&self, index: NodeIndex) -> Option<&Tunnel> {
        maps::TUNNELS.get(u32::from(index.0))
    }

    #[inline(always)]
    fn tunnel_end(&self, addr: TunnelEndKey) -> Option<NodeIndex> {
        // SAFETY: as in `vip4`.
        unsafe { maps::TUNNEL_ENDS.get(addr) }.map(|end| end.node)
    }

    #[inline(always)]
    fn peer(&self, mac: Mac) -> Option<NodeIndex> {
        // SAFETY: as in `vip4`.
        unsafe { maps::PEERS.get(PeerKey { mac, reserved: 0 }) }.map(|peer| peer.node)
    }

    #[inline(always)]
    fn flow_set(&self, hash: FlowHash, sets: u32) -> Option<&FlowSet> {
        let set = maps::FLOWS.get_ptr(FlowSet::number(hash.0, sets))?;
        // SAFETY: array elements live as long as the map; a set is as many words, and only read and written whole.
        Some(unsafe { &*set.cast::<FlowSet>() })
    }

    #[inline(always)]
    fn has_socket4(&self, _tuple: &Tuple<Ip4>, segment: &Segment) -> bool {
        find_socket4(self.ctx, segment.l3 as u32, segment.l4 as u32) == CONNECTION
    }

    #[inline(always)]
    fn has_socket6(&self, _tuple: &Tuple<Ip6>, segment: &Segment) -> bool {
        find_socket6(self.ctx, segment.l3 as u32, segment.l4 as u32) == CONNECTION
    }

    #[inline(always)]
    fn listens4(&self, _tuple: &Tuple<Ip4>, segment: &Segment) -> bool {
        find_socket4(self.ctx, segment.l3 as u32, segment.l4 as u32) != NOTHING
    }

    #[inline(always)]
    fn listens6(&self, _tuple: &Tuple<Ip6>, segment: &Segment) -> bool {
        find_socket6(self.ctx, segment.l3 as u32, segment.l4 as u32) != NOTHING
    }

    #[inline(always)]
    fn is_quoted4(&self, _tuple: &Tuple<Ip4>, quote: &Quote) -> bool {
        find_quoted4(self.ctx, quote.l3 as u32, quote.l4 as u32) == CONNECTION
    }

    #[inline(always)]
    fn is_quoted6(&self, _tuple: &Tuple<Ip6>, quote: &Quote) -> bool {
        find_quoted6(self.ctx, quote.l3 as u32, quote.l4 as u32) == CONNECTION
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        // SAFETY: as in `vip4`.
        unsafe { maps::FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, fragment: Fragment) {
        // When it fails, pieces are dropped, counted, and sent again.
        let _ = maps::FRAGMENTS.insert(key, fragment, NO_FLAGS);
    }

    #[inline(always)]
    fn take_echo(&self) -> bool {
        self.take(maps::ECHO_BUDGET.get_ptr_mut(0), ECHO_COST_NS, ECHO_BURST_NS)
    }

    #[inline(always)]
    fn take_walk(&self, cost_ns: u64, burst_ns: u64) -> bool {
        self.take(maps::WALK_BUDGET.get_ptr_mut(0), cost_ns, burst_ns)
    }
}

impl Kernel {
    #[inline(always)]
    fn take(&self, budget: Option<*mut WalkBudget>, cost_ns: u64, burst_ns: u64) -> bool {
        let Some(budget) = budget else { return true };
        // SAFETY: this CPU's own value; programs are not interrupted by themselves on one CPU.
        let paid_until = unsafe { &mut (*budget).paid_until_ns };
        let Some(paid) = charge(*paid_until, self.now_ns(), cost_ns, burst_ns) else { return false };
        *paid_until = paid;
        true
    }
}

/// Counts a verdict about a frame of `bytes` bytes.
#[inline(always)]
pub(crate) fn count(verdict: &Verdict, bytes: usize) {
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(verdict.reason.index()) {
        // SAFETY: this CPU's own value.
        unsafe { *counter += 1 };
    }
    // Numbers that stand for "none" lie outside the maps.
    add(maps::VIP_COUNTERS.get_ptr_mut(u32::from(verdict.vip.0)), verdict, bytes);
    add(maps::NODE_COUNTERS.get_ptr_mut(u32::from(verdict.node.0)), verdict, bytes);
}

#[inline(always)]
fn add(count: Option<*mut Count>, verdict: &Verdict, bytes: usize) {
    if let Some(count) = count {
        // SAFETY: this CPU's own value.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += bytes as u64;
        count.flows += u64::from(verdict.new_flow);
    }
}

/// [`choose`] as a global function: verified by itself, once, whoever calls it with whatever in its registers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_node(hash: u32, question: u32) -> u32 {
    // No socket is looked up here, so no context is needed.
    let kernel = Kernel { ctx: ptr::null_mut() };
    u32::from(choose(&kernel, hash, Question::from_number(question)).0)
}

/// The context as socket helpers want it.
#[inline(always)]
pub(crate) fn kernel(ctx: &XdpContext) -> Kernel {
    Kernel { ctx: ctx.as_ptr().cast() }
}
