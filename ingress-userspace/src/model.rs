//! The snapshot: everything the data plane serves, as plain immutable data, shared behind `Arc`s.
//! Written by `translate`, read by `l4`, `l7` and `status`. No IO, no Kubernetes types, no behaviour but look-ups.

mod canary;
mod certificate;
mod client_auth;
mod cluster;
mod downstream;
mod forwarding;
mod node;
mod own_status;
mod problem;
mod rewrite;
mod route;
mod scope;
mod shared;
mod upstream;
mod vip;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use canary::{Canary, CanaryHeader, CanaryValue, header_regex};
pub use certificate::Certificate;
pub use client_auth::{ClientAuth, VerifyClient};
pub use cluster::{Cluster, ClusterId, Endpoint};
pub use downstream::Downstream;
pub use forwarding::{Forwarding, Retry, RetryOn, RetryStatuses};
pub use node::{Node, NodeIntent};
pub use own_status::OwnStatus;
pub use problem::{Kind, ObjectRef, Problem, Reason};
pub use rewrite::{Piece, Rewrite, Template};
pub use route::{
    Filters, HostPattern, HostRoutes, Hsts, PathMatch, PathRule, Redirect, Route, RouteTable, SourceRange,
    SslRedirect, Target, path_regex,
};
pub use scope::Scope;
pub use shared::Shared;
pub use upstream::{BackendTls, Balance, HashPart, TlsVersions, Upstream, VerifyBackend};
pub use vip::{Announcement, Protection, Rate, Vip};

/// One consistent view of the cluster. Never changed once made; a change makes a new one that shares the parts that
/// stayed equal.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Snapshot {
    /// The virtual addresses at which clients reach the router, in address order.
    pub vips: Vec<Vip>,
    /// What holds for listeners that are no VIP's. `None`: as everywhere.
    pub downstream: Option<Arc<Downstream>>,
    /// The nodes of the cluster, in name order.
    pub nodes: Vec<Node>,
    /// Hosts and paths to backends, of all classes: what addresses serve that are no class's own.
    pub routes: Shared<RouteTable>,
    /// What a VIP serves in their place if the classes that have it are not all: an Ingress is reached through the
    /// addresses of its own class only. Empty where all classes share their VIPs.
    pub vip_routes: Shared<BTreeMap<IpAddr, Shared<RouteTable>>>,
    /// Backends by identity.
    pub clusters: Shared<BTreeMap<ClusterId, Arc<Cluster>>>,
    /// Certificates, by the names of their Secrets. No two with the same kind of key serve the same name.
    pub certificates: Shared<Vec<Arc<Certificate>>>,
    /// The Ingresses that we serve, with the addresses that their status shall show.
    pub ingresses: Shared<BTreeMap<ObjectRef, Vec<IpAddr>>>,
    /// What the statuses of our own resources shall say.
    pub own_statuses: Shared<Vec<OwnStatus>>,
}
