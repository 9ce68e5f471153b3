//! Clusters: one Service port and the endpoints behind it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Names a cluster: `namespace/service:port`. Pools, balancer state and metrics are keyed by it, so that they survive
/// a new snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId {
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// Name of the Service.
    pub service: Arc<str>,
    /// The Service's port number (a name is resolved by `translate`).
    pub port: u16,
    /// Its one endpoint is the Service's own address (`service-upstream`).
    pub by_service: bool,
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// A backend: where the requests of a route go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// Those that may get requests now, in address order: the ready ones, or, if none is, those that are still serving
    /// while terminating (`EndpointSlice` conditions). Empty: 503.
    pub endpoints: Vec<Endpoint>,
}

/// One pod's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The node it runs on, where known.
    pub node: Option<Arc<str>>,
}
