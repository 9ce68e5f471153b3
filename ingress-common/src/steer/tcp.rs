//! A TCP segment to a VIP: the walk of `steer`'s description, for either IP version.

use crate::abi::{Be16, Config, FlowSet, Ip4, Ip6, Node, NodeIndex, Vip, VipId, VipKey4, VipKey6, Vlan};
use crate::hash::{FlowHash, FlowKey};
use crate::packet::Packet;
use crate::packet::eth::Link;
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::Ipv6Hdr;
use crate::packet::tcp::{PROTO, TcpFlags, TcpHdr};

use super::slot::{self, Question};
use super::{Action, HOP_STEERED, HOP_WALK, Reason, Tables, Verdict, hand_over, ready};

/// Where in the frame things are.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// Interface that it came in by.
    pub(super) ifindex: u32,
    /// In which VLAN.
    pub(super) vlan: Vlan,
    /// Offset of the IP header.
    pub(super) l3: usize,
    /// Offset of the TCP header.
    pub(super) l4: usize,
    /// Where the IP packet ends, as its header says.
    pub(super) end: usize,
    /// Hop limit as it came in.
    pub(super) hop_limit: u8,
    /// A peer sent it through a tunnel.
    pub(super) in_tunnel: bool,
}

impl At {
    /// Of a packet whose IPv4 header is `ip`, `header_len` bytes long.
    #[inline(always)]
    pub(super) fn ipv4(ifindex: u32, link: &Link, ip: &Ipv4Hdr, header_len: usize, in_tunnel: bool) -> Self {
        Self {
            ifindex,
            vlan: link.vlan,
            l3: link.l3,
            l4: link.l3 + header_len,
            end: link.l3 + usize::from(ip.total_len.get()),
            hop_limit: ip.ttl,
            in_tunnel,
        }
    }

    /// A peer has handed it over, through a tunnel or on the same link. The hop limit spares most packets the look.
    #[inline(always)]
    fn is_from_peer<T: Tables>(&self, tables: &T, link: &Link) -> bool {
        self.in_tunnel || self.hop_limit <= HOP_STEERED && tables.peer(link.src).is_some()
    }
}

/// Addresses and ports of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple<A> {
    /// The client.
    pub src: A,
    /// The VIP.
    pub dst: A,
    /// The client's port.
    pub src_port: Be16,
    /// The VIP's port.
    pub dst_port: Be16,
}

/// Where the socket look-up finds the headers, should it need them.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the TCP header.
    pub l4: usize,
    /// Its control bits.
    pub flags: TcpFlags,
}

/// Where an ICMP error quotes the packet that it is about: the other direction of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// Offset of the quoted IP header.
    pub l3: usize,
    /// Offset of the quoted ports. More of its TCP header need not be there.
    pub l4: usize,
}

/// What differs between the IP versions.
pub(super) trait Family {
    type Addr: Copy;

    /// The address as an IPv6 one; IPv4: mapped.
    fn wide(addr: Self::Addr) -> Ip6;
    fn vip<T: Tables>(tables: &T, tuple: &Tuple<Self::Addr>) -> Option<Vip>;
    fn hash(key: &FlowKey, tuple: &Tuple<Self::Addr>) -> FlowHash;
    fn has_socket<T: Tables>(tables: &T, tuple: &Tuple<Self::Addr>, segment: &Segment) -> bool;
    fn listens<T: Tables>(tables: &T, tuple: &Tuple<Self::Addr>, segment: &Segment) -> bool;
    fn is_quoted<T: Tables>(tables: &T, tuple: &Tuple<Self::Addr>, quote: &Quote) -> bool;
    fn set_hop_limit<P: Packet + ?Sized>(packet: &mut P, l3: usize, hop_limit: u8) -> Option<()>;
}

/// IPv4.
pub(super) struct V4;
/// IPv6.
pub(super) struct V6;

/// What is known about a segment once it has turned out to be for a VIP.
struct Steering<'a, F: Family, T> {
    tables: &'a T,
    config: &'a Config,
    at: At,
    tuple: Tuple<F::Addr>,
    vip: VipId,
    hash: FlowHash,
    /// A peer has handed the packet over.
    from_peer: bool,
}

#[inline(always)]
pub(super) fn steer<F: Family, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    link: &Link,
    at: At,
    src: F::Addr,
    dst: F::Addr,
) -> Verdict {
    let Some(tcp) = packet.at::<TcpHdr>(at.l4) else { return Verdict::NOT_OURS };
    let tuple = Tuple { src, dst, src_port: tcp.src, dst_port: tcp.dst };
    let (flags, tcp_len) = (tcp.flags, tcp.header_len());
    let Some(Vip { id: vip, flags: protection, .. }) = F::vip(tables, &tuple) else {
        return Verdict::NOT_OURS;
    };

    let pass = |reason| Verdict { vip, ..Verdict::other(Action::Pass, reason) };
    let Some(config) = ready(tables) else { return pass(Reason::PassNotReady) };
    if !config.uplinks.iter().take_while(|uplink| uplink.ifindex != 0).any(|uplink| uplink.mac == link.dst) {
        return pass(Reason::PassOtherHost);
    }
    if at.end > packet.len() || tcp_len < size_of::<TcpHdr>() || at.l4 + tcp_len > at.end {
        return Verdict { vip, ..Verdict::other(Action::Drop, Reason::DropMalformed) };
    }
    if flags.is_impossible() {
        return Verdict { vip, ..Verdict::other(Action::Drop, Reason::DropImpossibleFlags) };
    }

    let from_peer = at.is_from_peer(tables, link);
    if protection & Vip::GUARDED != 0 && !from_peer {
        let reason = tables.guard(vip, protection, F::wide(src), flags.is_new_flow());
        if reason != Reason::NotOurs {
            return Verdict { vip, ..Verdict::other(Action::Drop, reason) };
        }
    }
    let hash = F::hash(&config.flow_key, &tuple);
    let steering = Steering::<F, T> { tables, config, at, tuple, vip, hash, from_peer };
    if flags.is_new_flow() {
        let segment = Segment { l3: at.l3, l4: at.l4, flags };
        let verdict = Verdict { new_flow: true, ..steering.new_flow(packet, &segment) };
        if protection & Vip::COOKIES != 0 && verdict.action == Action::Pass && !tables.take_syn(vip) {
            return Verdict { action: Action::Cookie, ..verdict };
        }
        return verdict;
    }
    if steering.uses_memory()
        && let Some(set) = steering.flow_set()
        && let Some(index) = set.find(hash.0, flags.has(TcpFlags::FIN), flags.has(TcpFlags::RST))
        && let Some(node) = tables.node(index)
        && node.is_reachable()
    {
        return steering.forward(packet, index, node, HOP_STEERED, Reason::ForwardFlow);
    }
    steering.unknown_flow(packet, &Segment { l3: at.l3, l4: at.l4, flags })
}

/// An ICMP error about the flow `tuple`, quoted at `quote`: it goes where the flow's packets go. It teaches the flow table
/// nothing: who sent it need not know the flow.
#[inline(always)]
pub(super) fn follow<F: Family, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    link: &Link,
    at: At,
    tuple: Tuple<F::Addr>,
    quote: &Quote,
) -> Verdict {
    let Some(vip) = F::vip(tables, &tuple) else { return Verdict::NOT_OURS };
    let from_peer = at.is_from_peer(tables, link);
    let hash = F::hash(&config.flow_key, &tuple);
    let steering = Steering::<F, T> { tables, config, at, tuple, vip: vip.id, hash, from_peer };
    if steering.uses_memory()
        && let Some(set) = steering.flow_set()
        && let Some(index) = set.find(hash.0, false, false)
        && let Some(node) = tables.node(index)
        && node.is_reachable()
    {
        return steering.forward(packet, index, node, HOP_STEERED, Reason::ForwardIcmp);
    }
    if F::is_quoted(tables, &steering.tuple, quote) {
        return steering.local(Reason::LocalIcmp);
    }
    steering.walk(packet, false, Reason::ForwardIcmp, Reason::LocalIcmp)
}

impl<F: Family, T: Tables> Steering<'_, F, T> {
    #[inline(always)]
    fn choose(&self, question: Question) -> NodeIndex {
        self.tables.choose(self.hash.slot(), question)
    }

    #[inline(always)]
    fn flow_set(&self) -> Option<&FlowSet> {
        self.tables.flow_set(self.hash, self.config.flow_sets)
    }

    /// What a peer remembers it has acted upon already: two memories must not play ping-pong. And with so few hops left, the
    /// node that memory names would take the packet for one that walks.
    #[inline(always)]
    fn uses_memory(&self) -> bool {
        !self.from_peer && self.at.hop_limit > HOP_WALK + 1
    }

    /// What is remembered of an earlier flow with these addresses and ports does not hold any more.
    #[inline(always)]
    fn correct_memory(&self, node: Option<NodeIndex>) {
        if let Some(set) = self.flow_set() {
            set.correct(self.hash.0, node);
        }
    }

    /// A SYN.
    #[inline(always)]
    fn new_flow<P: Packet + ?Sized>(&self, packet: &mut P, segment: &Segment) -> Verdict {
        let own = self.config.own_node;
        let mut index = NodeIndex::NONE;
        let mut own_serves = slot::own_daemon_lives(self.tables, self.config);
        if own_serves {
            index = if self.from_peer { own } else { self.choose(Question::NewFlow) };
            // A daemon that was killed a moment ago still has a fresh heartbeat, but no listener: nobody shall be refused.
            own_serves = index != own
                || self.config.heartbeat_timeout_ns == 0
                || F::listens(self.tables, &self.tuple, segment);
        }
        if !own_serves {
            index = self.choose(Question::NewFlowElsewhere);
        }
        if index != own
            && let Some(node) = self.tables.node(index)
        {
            self.correct_memory(Some(index));
            // Only a node whose daemon is dead gets here with a peer's packet; it counts down like a walk.
            let hop_limit = if self.from_peer { HOP_WALK } else { HOP_STEERED };
            return self.forward(packet, index, node, hop_limit, Reason::ForwardNew);
        }
        self.correct_memory(None);
        self.local(if index == own { Reason::LocalNew } else { Reason::LocalAlone })
    }

    /// Not a SYN, and the flow table is of no help.
    #[inline(always)]
    fn unknown_flow<P: Packet + ?Sized>(&self, packet: &mut P, segment: &Segment) -> Verdict {
        if F::has_socket(self.tables, &self.tuple, segment) {
            return self.local(Reason::LocalSocket);
        }
        let learns = self.uses_memory() && !segment.flags.has(TcpFlags::RST | TcpFlags::FIN);
        self.walk(packet, learns, Reason::ForwardWalk, Reason::LocalUnknown)
    }

    /// The socket is not here: on to the next candidate, for `forward`, or after the last one to our own kernel, for `local`.
    /// Remembers where it went if it `learns`.
    #[inline(always)]
    fn walk<P: Packet + ?Sized>(
        &self,
        packet: &mut P,
        learns: bool,
        forward: Reason,
        local: Reason,
    ) -> Verdict {
        let own = self.config.own_node;
        let (mut index, mut hop_limit) = (own, HOP_WALK);
        if self.at.hop_limit > HOP_WALK {
            index = self.choose(Question::NewFlow);
        }
        if index == own {
            // The walk has started, here. Or a node that we don't know (it has just joined), or a client far away, sent a
            // packet with few hops left: then it must not start where ranks are left out.
            let under_way = self.from_peer && self.at.hop_limit < HOP_WALK;
            index = self.choose(if under_way { Question::BehindOwn } else { Question::FirstOther });
            hop_limit = HOP_WALK - 1;
        }
        let Some(node) = self.tables.node(index) else { return self.local(local) };
        // The first hand-over is what any packet from outside costs; only the following ones multiply it.
        if self.from_peer && !self.tables.take_walk(self.config.walk_cost_ns, self.config.walk_burst_ns) {
            return self.dropped(Reason::DropWalkBudget);
        }
        // From now on it begins there at once. If the socket is further on, that node hands on as it does now; the reply goes
        // straight to the client, so nobody will tell.
        if learns && let Some(set) = self.flow_set() {
            set.learn(self.hash.0, index);
        }
        self.forward(packet, index, node, hop_limit, forward)
    }

    /// Hands over to `node`, with a hop limit lower than now and at most `hop_limit`.
    #[inline(always)]
    fn forward<P: Packet + ?Sized>(
        &self,
        packet: &mut P,
        index: NodeIndex,
        node: &Node,
        hop_limit: u8,
        reason: Reason,
    ) -> Verdict {
        if self.at.hop_limit <= 1 {
            return self.dropped(Reason::DropHopLimit);
        }
        let hop_limit = hop_limit.min(self.at.hop_limit - 1);
        let lowered = F::set_hop_limit(packet, self.at.l3, hop_limit);
        debug_assert!(lowered.is_some(), "the headers were read before");
        let verdict = Verdict { reason, vip: self.vip, node: index, ..Verdict::NOT_OURS };
        hand_over::to(packet, node, &self.at, u32::from(self.hash.entropy()), verdict)
    }

    #[inline(always)]
    fn local(&self, reason: Reason) -> Verdict {
        let node = self.config.own_node;
        Verdict { vip: self.vip, node, ..Verdict::other(Action::Pass, reason) }
    }

    #[inline(always)]
    fn dropped(&self, reason: Reason) -> Verdict {
        Verdict { vip: self.vip, ..Verdict::other(Action::Drop, reason) }
    }
}

impl Family for V4 {
    type Addr = Ip4;

    #[inline(always)]
    fn wide(addr: Ip4) -> Ip6 {
        Ip6::mapped(addr)
    }

    #[inline(always)]
    fn vip<T: Tables>(tables: &T, tuple: &Tuple<Ip4>) -> Option<Vip> {
        tables.vip4(VipKey4 { addr: tuple.dst, port: tuple.dst_port, proto: u16::from(PROTO) })
    }

    #[inline(always)]
    fn hash(key: &FlowKey, tuple: &Tuple<Ip4>) -> FlowHash {
        key.flow4(tuple.src, tuple.dst, tuple.src_port, tuple.dst_port)
    }

    #[inline(always)]
    fn has_socket<T: Tables>(tables: &T, tuple: &Tuple<Ip4>, segment: &Segment) -> bool {
        tables.has_socket4(tuple, segment)
    }

    #[inline(always)]
    fn is_quoted<T: Tables>(tables: &T, tuple: &Tuple<Ip4>, quote: &Quote) -> bool {
        tables.is_quoted4(tuple, quote)
    }

    #[inline(always)]
    fn listens<T: Tables>(tables: &T, tuple: &Tuple<Ip4>, segment: &Segment) -> bool {
        tables.listens4(tuple, segment)
    }

    #[inline(always)]
    fn set_hop_limit<P: Packet + ?Sized>(packet: &mut P, l3: usize, hop_limit: u8) -> Option<()> {
        packet.at_mut::<Ipv4Hdr>(l3)?.set_ttl(hop_limit);
        Some(())
    }
}

impl Family for V6 {
    type Addr = Ip6;

    #[inline(always)]
    fn wide(addr: Ip6) -> Ip6 {
        addr
    }

    #[inline(always)]
    fn vip<T: Tables>(tables: &T, tuple: &Tuple<Ip6>) -> Option<Vip> {
        tables.vip6(VipKey6 { addr: tuple.dst, port: tuple.dst_port, proto: u16::from(PROTO) })
    }

    #[inline(always)]
    fn hash(key: &FlowKey, tuple: &Tuple<Ip6>) -> FlowHash {
        key.flow6(&tuple.src, &tuple.dst, tuple.src_port, tuple.dst_port)
    }

    #[inline(always)]
    fn has_socket<T: Tables>(tables: &T, tuple: &Tuple<Ip6>, segment: &Segment) -> bool {
        tables.has_socket6(tuple, segment)
    }

    #[inline(always)]
    fn is_quoted<T: Tables>(tables: &T, tuple: &Tuple<Ip6>, quote: &Quote) -> bool {
        tables.is_quoted6(tuple, quote)
    }

    #[inline(always)]
    fn listens<T: Tables>(tables: &T, tuple: &Tuple<Ip6>, segment: &Segment) -> bool {
        tables.listens6(tuple, segment)
    }

    #[inline(always)]
    fn set_hop_limit<P: Packet + ?Sized>(packet: &mut P, l3: usize, hop_limit: u8) -> Option<()> {
        packet.at_mut::<Ipv6Hdr>(l3)?.hop_limit = hop_limit;
        Some(())
    }
}
