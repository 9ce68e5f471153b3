//! Nodes, as Kubernetes (or a manifest) declares them. Whether they are alive is `l4::membership`'s to say.

use std::net::IpAddr;

/// What the cluster's administrator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeIntent {
    /// Takes new flows.
    #[default]
    Serve,
    /// Keeps its flows, takes no new ones: cordoned (`spec.unschedulable`) or labelled
    /// `node.kubernetes.io/exclude-from-external-load-balancers`.
    Drain,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `status.addresses` of type `InternalIP`: at most one of each IP version is used by the data plane.
    pub addresses: Vec<IpAddr>,
    /// Share of new flows relative to the others; 1 by default, 0 means none.
    pub weight: u32,
    /// Serve or drain.
    pub intent: NodeIntent,
}
