//! What the decision asks of the world, answered by maps and helpers. Called by `main.rs`; decides nothing.
//!
//! Minimum kernels: `bpf_ktime_get_ns` 4.1, LRU hash maps 4.10, XDP redirect 4.14, `bpf_sk_release` 4.20, `bpf_skc_lookup_tcp`
//! and `bpf_tcp_check_syncookie` 5.2 (both from XDP), the loops of the decision 5.3. From 6.10 on, per-CPU arrays (counters)
//! are read without a call.

use core::{hint::assert_unchecked, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::generated::{bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use ingress_common::{
    abi::{
        Addr, Config, Count, FlowSet, Fragment, FragmentKey, Guard, Ip4, Ip6, Mac, Node, NodeIndex, PeerKey,
        SLOT_PAGE_LEN, SLOT_PAGES, Slot, SourceKey, Tunnel, TunnelEndKey, Vip, VipId, VipKey4, VipKey6,
        WalkBudget,
    },
    hash::FlowHash,
    packet::{Packet, Resize, View},
    steer::{
        Cookie, ECHO_BURST_NS, ECHO_COST_NS, Question, Quote, Reason, Route, Segment, Tables, Tuple, Verdict,
        charge, choose,
    },
};

use crate::{
    maps, protection,
    sockets::{CONNECTION, NO_FLAGS, NOTHING, find_quoted4, find_quoted6, find_socket4, find_socket6},
};

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
    pub(crate) fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
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
    /// Only a question (`xdp_why`): nothing is learnt from the packet. A constant wherever it is asked.
    pub(crate) is_question: bool,
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
    fn hear_of_tunnel(&self, node: NodeIndex, mtu: Option<u16>) {
        let Some(heard) = maps::HEARD.get_ptr_mut(u32::from(node.0)) else { return };
        // SAFETY: array elements live as long as the map. Another CPU may write at the same time: what one of them heard stays.
        let heard = unsafe { &mut *heard };
        let Some(mtu) = mtu else {
            heard.unreachable = heard.unreachable.wrapping_add(1);
            return;
        };
        (heard.mtu, heard.too_big_ns) = (u32::from(mtu), self.now_ns());
        if let Some(tunnel) = maps::TUNNELS.get_ptr_mut(u32::from(node.0)) {
            // SAFETY: as above, and a `u16` is written whole.
            let known = unsafe { &mut (*tunnel).mtu };
            *known = (*known).min(mtu);
        }
    }

    #[inline(always)]
    fn peer(&self, mac: Mac) -> Option<NodeIndex> {
        // SAFETY: as in `vip4`.
        unsafe { maps::PEERS.get(PeerKey { mac, reserved: 0 }) }.map(|peer| peer.node)
    }

    #[inline(always)]
    fn flow_set(&self, hash: FlowHash, sets: u32) -> Option<&FlowSet> {
        let set = maps::FLOWS.get_ptr(FlowSet::number(hash.0, sets))?;
        if self.is_question {
            let copy = maps::QUESTION_SET.get_ptr_mut(0)?;
            // SAFETY: both are sets of the same size, and the copy is this CPU's own.
            unsafe { *copy = *set };
            // SAFETY: as below.
            return Some(unsafe { &*copy.cast::<FlowSet>() });
        }
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

    #[inline(always)]
    fn guard_of(&self, vip: VipId) -> Option<&Guard> {
        maps::GUARDS.get(u32::from(vip.0))
    }

    #[inline(always)]
    fn rule(&self, vip: VipId, source: Ip6) -> Option<u32> {
        protection::rule(vip, source)
    }

    #[inline(always)]
    fn take_source(&self, source: SourceKey, cost_ns: u64, burst_ns: u64) -> bool {
        protection::take_source(source, self.now_ns(), cost_ns, burst_ns)
    }

    #[inline(always)]
    fn guard(&self, vip: VipId, flags: u16, source: Ip6, opens_flow: bool) -> Reason {
        protection::guard(vip, flags, source, opens_flow)
    }

    #[inline(always)]
    fn take_syn(&self, vip: VipId) -> bool {
        protection::take_syn_of(u32::from(vip.0)) != 0
    }

    #[inline(always)]
    fn cookie4(&self, _tuple: &Tuple<Ip4>, segment: &Segment) -> Option<Cookie> {
        protection::cookie(protection::cookie4(self.ctx, segment.l3 as u32, segment.l4 as u32))
    }

    #[inline(always)]
    fn cookie6(&self, _tuple: &Tuple<Ip6>, segment: &Segment) -> Option<Cookie> {
        protection::cookie(protection::cookie6(self.ctx, segment.l3 as u32, segment.l4 as u32))
    }

    #[inline(always)]
    fn route4(&self, src: Ip4, dst: Ip4) -> Option<Route> {
        protection::route4(self.ctx, src, dst)
    }

    #[inline(always)]
    fn route6(&self, src: Ip6, dst: Ip6) -> Option<Route> {
        protection::route6(self.ctx, src, dst)
    }
}

impl Kernel {
    /// For functions that look up no socket.
    #[inline(always)]
    pub(crate) fn without_context() -> Self {
        Self { ctx: ptr::null_mut(), is_question: false }
    }

    /// Takes one out of a budget of this CPU, as [`charge`] computes it. False: none left.
    #[inline(always)]
    pub(crate) fn take(&self, budget: Option<*mut WalkBudget>, cost_ns: u64, burst_ns: u64) -> bool {
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
    u32::from(choose(&Kernel::without_context(), hash, Question::from_number(question)).0)
}

/// The same for a question.
#[inline(always)]
pub(crate) fn question(ctx: &XdpContext) -> Kernel {
    Kernel { is_question: true, ..kernel(ctx) }
}

/// The context as socket helpers want it.
#[inline(always)]
pub(crate) fn kernel(ctx: &XdpContext) -> Kernel {
    Kernel { ctx: ctx.as_ptr().cast(), is_question: false }
}
