//! What the decision asks of the world around it: map look-ups, the socket look-up, the time. Implemented by
//! `ingress-ebpf` over maps and helpers, by tests and the simulator over plain collections.

use crate::abi::{
    Addr, Config, FlowSet, Fragment, FragmentKey, Guard, Ip4, Ip6, Mac, Node, NodeIndex, Slot, SourceKey,
    Tunnel, TunnelEndKey, Vip, VipId, VipKey4, VipKey6,
};

use crate::hash::FlowHash;

use super::cookie::{Cookie, Route};
use super::guard::guard;
use super::reason::Reason;
use super::slot::{Question, choose};
use super::tcp::{Quote, Segment, Tuple};

/// See the module. Keys come by value: an address that leaks into a helper would pin the whole structure around it to the
/// BPF stack.
///
/// Look-ups that fail (a full table, a missing entry) are `None` or do nothing; none of them is an error.
pub trait Tables {
    /// The `CONFIG` map.
    fn config(&self) -> Option<&Config>;
    /// `CLOCK_MONOTONIC` in nanoseconds.
    fn now_ns(&self) -> u64;
    /// The `HEARTBEAT` map.
    fn heartbeat_ns(&self) -> u64;
    /// The `VIPS4` map.
    fn vip4(&self, key: VipKey4) -> Option<Vip>;
    /// The `VIPS6` map.
    fn vip6(&self, key: VipKey6) -> Option<Vip>;
    /// The `ADDRS4` map.
    fn addr4(&self, addr: Ip4) -> Option<Addr>;
    /// The `ADDRS6` map.
    fn addr6(&self, addr: Ip6) -> Option<Addr>;
    /// The slot of this flow hash in the table number `table`.
    fn slot(&self, table: u32, hash: u32) -> Option<&Slot>;
    /// [`super::choose`] over these tables. A place of its own, so that the kernel's half can put it into a function that the
    /// verifier checks once instead of at every call.
    #[inline(always)]
    fn choose(&self, hash: u32, question: Question) -> NodeIndex
    where
        Self: Sized,
    {
        choose(self, hash, question)
    }
    /// The `NODES` map.
    fn node(&self, index: NodeIndex) -> Option<&Node>;
    /// The `TUNNELS` map.
    fn tunnel(&self, index: NodeIndex) -> Option<&Tunnel>;
    /// The `TUNNEL_ENDS` map: whose address this is.
    fn tunnel_end(&self, addr: TunnelEndKey) -> Option<NodeIndex>;
    /// A router said of packets in the tunnel to `node` that they may have at most `mtu` bytes; `None`: that they do not arrive.
    fn hear_of_tunnel(&self, node: NodeIndex, mtu: Option<u16>);
    /// The `PEERS` map.
    fn peer(&self, mac: Mac) -> Option<NodeIndex>;

    /// The set of the `FLOWS` map where a flow of this hash is, of `sets`.
    fn flow_set(&self, hash: FlowHash, sets: u32) -> Option<&FlowSet>;

    /// Whether this node's kernel has the connection that the segment belongs to: established, closing, time-wait or
    /// half open. A listener counts only if the segment completes a SYN cookie of ours.
    fn has_socket4(&self, tuple: &Tuple<Ip4>, segment: &Segment) -> bool;
    /// As [`Self::has_socket4`].
    fn has_socket6(&self, tuple: &Tuple<Ip6>, segment: &Segment) -> bool;
    /// Whether a socket of this node's kernel takes the SYN `segment`: a listener, or an earlier connection of these
    /// addresses and ports.
    fn listens4(&self, tuple: &Tuple<Ip4>, segment: &Segment) -> bool;
    /// As [`Self::listens4`].
    fn listens6(&self, tuple: &Tuple<Ip6>, segment: &Segment) -> bool;

    /// Whether this node's kernel has the connection that an ICMP error quotes; a listener does not count.
    fn is_quoted4(&self, tuple: &Tuple<Ip4>, quote: &Quote) -> bool;
    /// As [`Self::is_quoted4`].
    fn is_quoted6(&self, tuple: &Tuple<Ip6>, quote: &Quote) -> bool;

    /// The `FRAGMENTS` map.
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment>;
    /// Remembers where the first piece of a packet went.
    fn remember_fragment(&self, key: &FragmentKey, fragment: Fragment);

    /// Takes one answer out of the budget for answers to echo requests. False: none left.
    fn take_echo(&self) -> bool;
    /// Takes one hand-over out of the budget for walks, as [`super::charge`] computes it. False: none left.
    fn take_walk(&self, cost_ns: u64, burst_ns: u64) -> bool;

    /// The `GUARDS` map.
    fn guard_of(&self, vip: VipId) -> Option<&Guard>;
    /// What the `RULES` map says of a source.
    fn rule(&self, vip: VipId, source: Ip6) -> Option<u32>;
    /// Takes a new connection out of the budget of its source, as [`super::charge`] computes it. False: none left.
    fn take_source(&self, source: SourceKey, cost_ns: u64, burst_ns: u64) -> bool;
    /// [`super::guard`] over these tables, for the reason that [`Self::choose`] has.
    #[inline(always)]
    fn guard(&self, vip: VipId, flags: u16, source: Ip6, opens_flow: bool) -> Reason
    where
        Self: Sized,
    {
        guard(self, vip, flags, source, opens_flow)
    }
    /// Takes a SYN out of what the VIP takes without cookies. False: none left.
    fn take_syn(&self, vip: VipId) -> bool;
    /// The cookie that answers the SYN `segment`; `None` where the listener still has room for it, or there is none.
    fn cookie4(&self, tuple: &Tuple<Ip4>, segment: &Segment) -> Option<Cookie>;
    /// As [`Self::cookie4`].
    fn cookie6(&self, tuple: &Tuple<Ip6>, segment: &Segment) -> Option<Cookie>;
    /// The way by which this node's kernel would send a packet from `src` to `dst`, if it is known down to the MAC address.
    fn route4(&self, src: Ip4, dst: Ip4) -> Option<Route>;
    /// As [`Self::route4`].
    fn route6(&self, src: Ip6, dst: Ip6) -> Option<Route>;
}
