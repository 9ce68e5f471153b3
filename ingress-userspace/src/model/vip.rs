//! Ingress VIPs.

use std::net::IpAddr;

use ipnet::IpNet;

/// A virtual address that ends at the router of some node (TCP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The address that clients use.
    pub address: IpAddr,
    /// Ports that speak plain HTTP (80 unless the class says otherwise).
    pub http_ports: Vec<u16>,
    /// Ports that speak TLS (443 unless the class says otherwise).
    pub https_ports: Vec<u16>,
    /// Whom it serves, and how much of it.
    pub protection: Protection,
}

/// What the XDP front keeps away from a VIP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    /// Sources that are not served, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// If it is there, the only sources that are served.
    pub allow: Option<Vec<IpNet>>,
    /// New connections of one source.
    pub new_connections: Option<Rate>,
    /// SYNs per second on a node above which they are answered with cookies; 0: never. `None`: as the daemon's flags say.
    pub syn_cookies_above: Option<u32>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that are added per second, at least 1.
    pub per_second: u32,
    /// Tokens that it holds, at least 1.
    pub burst: u32,
}

impl Vip {
    /// All its TCP ports, plain ones first.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.http_ports.iter().chain(&self.https_ports).copied()
    }
}
