//! Nodes, as Kubernetes (or a manifest) declares them. Whether they are alive is `l4::membership`'s to say.

use std::net::IpAddr;

/// What the cluster's administrator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeIntent {
    /// Takes new flows.
    #[default]
    Serve,
    /// Takes new flows only where nobody else does: Kubernetes holds it for not ready. It may be wrong (a kubelet that does not
    /// reach the API server), and the node itself may not know of it, so its VIPs stay.
    Avoid,
    /// Keeps its flows, takes no new ones and no VIPs: cordoned (`spec.unschedulable`), labelled
    /// `node.kubernetes.io/exclude-from-external-load-balancers`, out of service or about to be removed.
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
    /// Serve, avoid or drain.
    pub intent: NodeIntent,
}
