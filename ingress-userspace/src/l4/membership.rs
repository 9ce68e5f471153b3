//! Which nodes are alive, joining or draining: authenticated datagrams between the nodes. Used by `engine`.
//! Knows nothing of packets, tables or Kubernetes: declared nodes go in, a view of them comes out.
//!
//! Two ways (`members`): heartbeats all to all up to some dozens of nodes, where they cost less than they save (31 peers:
//! 310 small datagrams a second) and detection takes a fixed time; gossip (SWIM) above, at a cost that does not grow.
//! Both are state machines without IO, driven by `thread`, which sends by UDP, and on the `link` where that does not arrive.

mod link;
mod machine;
mod members;
mod replay;
mod swim;
mod thread;
mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub(crate) use link::Road;
pub use machine::{Announced, Liveness, Timing};
pub(crate) use thread::{Legacy, Membership, Traffic};
pub use wire::Key;

/// How the nodes hear of each other.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP port, the same on all nodes.
    pub port: u16,
    /// How often, and how long silence is forgiven.
    pub timing: Timing,
    /// With more declared nodes than this they gossip (`swim`) instead of sending heartbeats all to all.
    pub gossip_above: usize,
    /// The cluster's secret. Without it heartbeats are not authenticated: whoever can forge a node's address on the
    /// nodes' network can keep a dead node in the tables.
    pub key: Option<Key>,
}

impl Config {
    /// UDP port of the heartbeats unless told otherwise.
    pub const DEFAULT_PORT: u16 = 7947;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: Self::DEFAULT_PORT,
            // Seven beats may be lost or late: quick enough for clients not to notice (a lost SYN is repeated after
            // 1 s), slow enough for a node whose CPUs are all busy.
            timing: Timing { interval: Duration::from_millis(100), dead_after: Duration::from_millis(700) },
            gossip_above: 32,
            key: None,
        }
    }
}

/// A node as declared: its name and its addresses, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What is known of the peers at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// False for the first moments after the start, while peers that are alive may not have been heard yet: nothing
    /// must be concluded from their silence.
    pub(crate) settled: bool,
    /// All declared nodes but this one.
    pub(crate) peers: BTreeMap<String, Liveness>,
}

/// What the nodes tell each other, since this daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MembershipStatus {
    /// Heartbeats to peers.
    pub beats_sent: u64,
    /// Heartbeats of peers.
    pub beats_received: u64,
    /// Messages of gossip to peers.
    pub gossip_sent: u64,
    /// Messages of gossip of peers.
    pub gossip_received: u64,
    /// Datagrams that were no peer's: another key, a changed byte, an address that is not the sender's.
    pub refused: u64,
    /// How often a peer that was up went down.
    pub lost: u64,
    /// Peers that are up and have been silent for suspiciously long now.
    pub suspects: u64,
    /// Peers that are heard on the link only: what they send by UDP does not arrive.
    #[serde(default)]
    pub by_link: u64,
}
