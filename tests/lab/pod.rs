//! One pod: a namespace behind its node, as a CNI with plain routes makes it, with the echo backend inside.

use anyhow::{Context as _, Result};
use std::net::IpAddr;

use super::{Host, echo, process::Process};

/// Ports that every backend serves.
pub const PORTS: [u16; 2] = [80, 8080];

/// A pod with its backend.
#[derive(Debug)]
pub struct Pod {
    host: Host,
    service: String,
    node: String,
    process: Process,
}

impl Pod {
    /// Starts the backend on `host`, which is on the node `node`.
    pub(crate) fn start(host: Host, service: &str, node: &str) -> Result<Self> {
        let this = std::env::current_exe().context("finding this program")?;
        let mut command = host.command(this);
        echo::ask(&mut command, host.name(), node, &PORTS);
        let process = host.spawn("echo", command)?;
        Ok(Self { host, service: service.to_owned(), node: node.to_owned(), process })
    }

    /// `service1-2`: the pod of `service1` on node 2.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its Service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The name of its node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        self.host.addresses()
    }

    /// Its namespace.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The backend dies (`SIGTERM`, which it doesn't catch), and the kernel of the pod resets its connections.
    pub fn kill(&self) -> Result<()> {
        self.process.terminate()
    }

    pub(crate) fn keep(&mut self) {
        self.process.keep();
    }
}
