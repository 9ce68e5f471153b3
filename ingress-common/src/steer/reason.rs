//! Why a packet went where it went: the index into the `COUNTERS` map, and the name in metrics.

/// Reason of a verdict. Numbers are part of the map ABI: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reason {
    /// Not for a VIP, or nothing that we understand. Not counted: the node's other traffic pays for nothing.
    NotOurs = 0,
    /// Forwarded: the flow table knows the node.
    ForwardFlow = 1,
    /// Forwarded: a new flow, to the node that its slot names.
    ForwardNew = 2,
    /// Forwarded: nobody knows the flow yet; the next candidate may.
    ForwardWalk = 3,
    /// Local: a new flow that is ours.
    LocalNew = 4,
    /// Local: the socket is here.
    LocalSocket = 5,
    /// Local: a new flow, and no other node to give it to.
    LocalAlone = 6,
    /// Local: no candidate has the socket. The kernel answers with a RST.
    LocalUnknown = 7,
    /// Passed: the frame's destination MAC address is not ours (a switch has flooded it).
    PassOtherHost = 8,
    /// Dropped: lengths in its headers that don't fit each other or the frame.
    DropMalformed = 9,
    /// Passed: the maps were written by a daemon of another version, or by none yet.
    PassNotReady = 10,
    /// Dropped: the hop limit allows no more hand-over.
    DropHopLimit = 11,
    /// Dropped: the node's budget for walks is used up.
    DropWalkBudget = 12,
    /// Answered: ARP request for a VIP that this node owns.
    ArpAnswered = 13,
    /// Dropped: ARP request for a VIP that another node owns.
    ArpNotOwner = 14,
    /// Answered: neighbour solicitation for a VIP that this node owns.
    NdpAnswered = 15,
    /// Dropped: neighbour solicitation for a VIP that another node owns.
    NdpNotOwner = 16,
    /// Dropped: a request for the MAC address of a VIP on an interface that is no uplink.
    DropNoUplink = 17,
    /// Dropped: TCP flags that no TCP sends.
    DropImpossibleFlags = 18,
    /// Answered: too big for the tunnel to its node; the client is told which size fits.
    TooBigAnswered = 19,
    /// Dropped: the tunnel to its node is not known (any more), or there is no room for its header or for VLAN tags.
    DropNoTunnel = 20,
    /// Dropped: came from a peer through a tunnel, but is for no VIP.
    DropTunnel = 21,
    /// Answered: an ICMP echo request for a VIP.
    EchoAnswered = 22,
    /// Dropped: an ICMP echo request for a VIP, more than this node answers.
    DropEchoRate = 23,
    /// Forwarded: an ICMP error about a flow, to the node that has or may have the flow.
    ForwardIcmp = 24,
    /// Local: an ICMP error about a flow of this node's, or about one that no candidate knows.
    LocalIcmp = 25,
    /// Forwarded: a piece of a packet, where its first piece went.
    ForwardFragment = 26,
    /// Local: a piece of a packet whose first piece stayed here.
    LocalFragment = 27,
    /// Dropped: a piece of a packet whose first piece has not been seen.
    DropFragment = 28,
    /// Answered: a SYN, with a cookie instead of a place in the listener's queue.
    CookieSent = 29,
    /// Dropped: the VIP's deny list has its source.
    DropDenied = 30,
    /// Dropped: the VIP has an allow list, and its source is not in it.
    DropNotAllowed = 31,
    /// Dropped: its source opens more connections than the VIP allows.
    DropSourceRate = 32,
    /// Local: an ICMP error about a packet in a tunnel of ours. What it says is remembered.
    LocalTunnelIcmp = 33,
}

impl Reason {
    /// All reasons, each at its number.
    pub const ALL: [Self; 34] = [
        Self::NotOurs,
        Self::ForwardFlow,
        Self::ForwardNew,
        Self::ForwardWalk,
        Self::LocalNew,
        Self::LocalSocket,
        Self::LocalAlone,
        Self::LocalUnknown,
        Self::PassOtherHost,
        Self::DropMalformed,
        Self::PassNotReady,
        Self::DropHopLimit,
        Self::DropWalkBudget,
        Self::ArpAnswered,
        Self::ArpNotOwner,
        Self::NdpAnswered,
        Self::NdpNotOwner,
        Self::DropNoUplink,
        Self::DropImpossibleFlags,
        Self::TooBigAnswered,
        Self::DropNoTunnel,
        Self::DropTunnel,
        Self::EchoAnswered,
        Self::DropEchoRate,
        Self::ForwardIcmp,
        Self::LocalIcmp,
        Self::ForwardFragment,
        Self::LocalFragment,
        Self::DropFragment,
        Self::CookieSent,
        Self::DropDenied,
        Self::DropNotAllowed,
        Self::DropSourceRate,
        Self::LocalTunnelIcmp,
    ];

    /// Index into the `COUNTERS` map.
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The reason with this index.
    #[inline(always)]
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(index as usize).copied()
    }

    /// Name in metrics and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::ForwardFlow => "forward_flow",
            Self::ForwardNew => "forward_new",
            Self::ForwardWalk => "forward_walk",
            Self::LocalNew => "local_new",
            Self::LocalSocket => "local_socket",
            Self::LocalAlone => "local_alone",
            Self::LocalUnknown => "local_unknown",
            Self::PassOtherHost => "pass_other_host",
            Self::DropMalformed => "drop_malformed",
            Self::PassNotReady => "pass_not_ready",
            Self::DropHopLimit => "drop_hop_limit",
            Self::DropWalkBudget => "drop_walk_budget",
            Self::ArpAnswered => "arp_answered",
            Self::ArpNotOwner => "arp_not_owner",
            Self::NdpAnswered => "ndp_answered",
            Self::NdpNotOwner => "ndp_not_owner",
            Self::DropNoUplink => "drop_no_uplink",
            Self::DropImpossibleFlags => "drop_impossible_flags",
            Self::TooBigAnswered => "too_big_answered",
            Self::DropNoTunnel => "drop_no_tunnel",
            Self::DropTunnel => "drop_tunnel",
            Self::EchoAnswered => "echo_answered",
            Self::DropEchoRate => "drop_echo_rate",
            Self::ForwardIcmp => "forward_icmp",
            Self::LocalIcmp => "local_icmp",
            Self::ForwardFragment => "forward_fragment",
            Self::LocalFragment => "local_fragment",
            Self::DropFragment => "drop_fragment",
            Self::CookieSent => "cookie_sent",
            Self::DropDenied => "drop_denied",
            Self::DropNotAllowed => "drop_not_allowed",
            Self::DropSourceRate => "drop_source_rate",
            Self::LocalTunnelIcmp => "local_tunnel_icmp",
        }
    }

    /// Whether the packet went nowhere.
    pub const fn is_drop(self) -> bool {
        matches!(
            self,
            Self::DropMalformed
                | Self::DropImpossibleFlags
                | Self::DropHopLimit
                | Self::DropWalkBudget
                | Self::ArpNotOwner
                | Self::NdpNotOwner
                | Self::DropNoUplink
                | Self::DropNoTunnel
                | Self::DropTunnel
                | Self::DropEchoRate
                | Self::DropFragment
                | Self::DropDenied
                | Self::DropNotAllowed
                | Self::DropSourceRate
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::REASON_SLOTS;

    #[test]
    fn each_reason_stands_at_its_number_and_fits_the_map() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index() as usize, number);
            assert_eq!(Reason::from_index(reason.index()), Some(reason));
            assert!(reason.index() < REASON_SLOTS);
        }
    }
}
