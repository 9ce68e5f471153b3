//! Ingress VIPs.

use std::net::IpAddr;

/// A virtual address that ends at the router of some node (TCP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The address that clients use.
    pub address: IpAddr,
    /// Ports that speak plain HTTP (80 unless the class says otherwise).
    pub http_ports: Vec<u16>,
    /// Ports that speak TLS (443 unless the class says otherwise).
    pub https_ports: Vec<u16>,
}

impl Vip {
    /// All its TCP ports, plain ones first.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.http_ports.iter().chain(&self.https_ports).copied()
    }
}
