//! The lab: clients, a switch, nodes and pods as network namespaces of this machine, joined by veth pairs, with the
//! real daemon on every node. Scenarios (`tests/scenarios`), the demo and `cargo xtask lab` build theirs here:
//! `Lab::builder("drain").nodes(3).build()`. Everything a lab made (processes, namespaces, mounts) is gone when it is
//! dropped, also by a panic; what a killed run left is removed by the next one (`guard`). Nothing of the host's own
//! network is touched.

mod build;
pub(crate) mod cgroup;
pub mod daemon;
pub mod echo;
pub mod guard;
pub mod host;
pub mod http;
pub mod kube_proxy;
pub mod load;
pub mod manifests;
mod netns;
pub mod pod;
mod port;
pub mod process;
mod reaper;
pub mod second;
pub mod serve;
pub mod tls;
pub mod topology;
pub mod vlan;

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result};

pub use build::Builder;
pub use daemon::Node;
pub use host::Host;
pub use pod::Pod;

use guard::Guard;
use manifests::Manifests;

/// Names and addresses follow the place in the lab; see [`topology`].
#[derive(Debug)]
pub struct Lab {
    clients: Vec<Host>,
    switch: Host,
    nodes: Vec<Node>,
    manifests: Manifests,
    services: Vec<String>,
    ipv6: bool,
    routed: bool,
    // Last: its drop removes the namespaces, after the processes of the fields above have ended.
    guard: Guard,
}

/// Call this first in `main` of every program that builds labs: the pods and the reaper of a lab are that program,
/// started again, and in them it does not return.
pub fn run_if_asked() {
    echo::run_if_asked();
    reaper::run_if_asked();
}

impl Lab {
    /// A lab called `name` (letters, digits, `_`; short: namespaces are named after it).
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    /// The `index`-th client, counted from 0.
    pub fn client(&self, index: usize) -> &Host {
        &self.clients[index]
    }

    /// The bridge that all clients and nodes hang on, or the router between them.
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// A router stands in place of the switch.
    pub fn is_routed(&self) -> bool {
        self.routed
    }

    /// All nodes, in the order in which they came.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The `index`-th node, counted from 0 (its name counts from 1: `node1`).
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// All pods of `service`, in the order of their nodes.
    pub fn pods_of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.nodes.iter().flat_map(Node::pods).filter(move |pod| pod.service() == service)
    }

    /// The directory of manifests that the daemons of all nodes watch.
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Scratch directory of this lab: logs, state directories, certificates.
    pub fn dir(&self) -> &Path {
        self.guard.dir()
    }

    /// What the names of this lab's namespaces begin with.
    pub fn id(&self) -> &str {
        self.guard.id()
    }

    /// Which node has the address `address`: tells who sent a request to a pod.
    pub fn node_by_address(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.addresses().contains(&address))
    }

    /// Leaves everything up when this value goes away; `cargo xtask lab down` or the next lab of the same name
    /// removes it.
    pub fn keep(mut self) -> Result<()> {
        self.guard.keep()?;
        for node in &mut self.nodes {
            node.keep();
        }
        Ok(())
    }

    /// Adds one more node with a pod of each service; no manifest knows of it yet.
    pub fn add_node(&mut self) -> Result<&Node> {
        let index = self.nodes.len();
        let node = self.build_node(index).with_context(|| format!("adding node {}", index + 1))?;
        self.nodes.push(node);
        Ok(&self.nodes[index])
    }
}
