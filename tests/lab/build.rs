//! Puts a lab together: namespaces, links, addresses, routes, offloads, pods. Called by `Lab::builder` and
//! `Lab::add_node`; says nothing about what runs on the nodes (`daemon`) or what they serve (`manifests`).

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{
    Host, Lab, Node, Pod,
    guard::Guard,
    manifests::Manifests,
    netns, port,
    topology::{self, BRIDGE, LINK_PREFIX, Pair, UPLINK},
};

/// How big a lab is wanted.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    nodes: usize,
    clients: usize,
    services: Vec<String>,
    ipv6: bool,
    routed: bool,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        let services = vec!["service1".to_owned(), "service2".to_owned()];
        Self { name: name.to_owned(), nodes: 3, clients: 1, services, ipv6: true, routed: false }
    }

    /// How many nodes; 3 unless said.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many clients; 1 unless said.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// Every node has `count` pods: one of `service1`, one of `service2`, …; 2 unless said.
    #[must_use]
    pub fn pods_per_node(mut self, count: usize) -> Self {
        self.services = (1..=count).map(|number| format!("service{number}")).collect();
        self
    }

    /// IPv6 beside IPv4; on unless said.
    #[must_use]
    pub fn ipv6(mut self, ipv6: bool) -> Self {
        self.ipv6 = ipv6;
        self
    }

    /// A router in place of the switch: every node and every client is on a link of its own, and the router spreads what is
    /// for VIPs over the nodes.
    #[must_use]
    pub fn router(mut self) -> Self {
        self.routed = true;
        self
    }

    /// Builds it. Needs root.
    pub fn build(self) -> Result<Lab> {
        let guard = Guard::claim(&self.name)?;
        let switch = Host::create(&guard, "switch", Vec::new(), None)?;
        if self.routed {
            route(&switch)?;
        } else {
            switch.ip(&format!(
                "link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 link set {BRIDGE} up\n"
            ))?;
        }
        let manifests = Manifests::create(&guard.dir().join("manifests"))?;
        let mut lab = Lab {
            clients: Vec::new(),
            switch,
            nodes: Vec::new(),
            manifests,
            services: self.services,
            ipv6: self.ipv6,
            routed: self.routed,
            guard,
        };
        for index in 0..self.clients {
            let pair = if self.routed { topology::routed_client(index) } else { topology::client(index) };
            let client = lab.plug_in(&format!("client{}", index + 1), pair)?;
            lab.clients.push(client);
        }
        for _ in 0..self.nodes {
            lab.add_node()?;
        }
        if self.routed && self.nodes > 0 {
            lab.route_vips(&lab.nodes.iter().collect::<Vec<_>>())?;
        }
        Ok(lab)
    }
}

/// Makes `host` a router that spreads flows over equal paths by addresses and ports.
fn route(host: &Host) -> Result<()> {
    host.sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
        // What nodes answer has a VIP as its source, and comes from whichever node serves.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ])
}

impl Lab {
    /// A host with an uplink at the switch, or at the router.
    fn plug_in(&self, name: &str, pair: Pair) -> Result<Host> {
        let (addresses, ipv6) = (topology::addresses(pair, self.ipv6), self.ipv6);
        let host = Host::create(&self.guard, name, addresses, Some(&self.switch))?;
        host.sysctl(&[
            // The strict setting is the harder one: a packet must come in where its answer goes out.
            ("net/ipv4/conf/all/rp_filter", "1"),
            ("net/ipv4/conf/default/rp_filter", "1"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
        ])?;
        let switch = self.switch.namespace();
        let mut lines = format!(
            "link add {UPLINK} address {} type veth peer name {name} netns {switch}\n\
             link set {UPLINK} up\naddr add {}/{} dev {UPLINK}\n",
            topology::mac(host.addresses()),
            pair.0,
            LINK_PREFIX.0
        );
        if ipv6 {
            writeln!(lines, "addr add {}/{} dev {UPLINK} nodad", pair.1, LINK_PREFIX.1)?;
        }
        host.ip(&lines)?;
        if self.routed {
            let gateway = topology::router(pair);
            let mut far =
                format!("link set {name} up\naddr add {}/{} dev {name}\n", gateway.0, LINK_PREFIX.0);
            let mut near = format!("route add default via {}\n", gateway.0);
            if ipv6 {
                writeln!(far, "addr add {}/{} dev {name} nodad", gateway.1, LINK_PREFIX.1)?;
                writeln!(near, "route add default via {}", gateway.1)?;
            }
            self.switch.ip(&far)?;
            host.ip(&near)?;
        } else {
            self.switch.ip(&format!("link set {name} master {BRIDGE} up\n"))?;
        }
        // veth hands packets over with unfinished checksums and as big segments; XDP must see what a wire carries.
        let plain = ["tx", "off", "tso", "off", "gso", "off"];
        netns::offloads(host.namespace(), UPLINK, &plain)?;
        netns::offloads(switch, name, &plain)?;
        // The daemon's program sends by XDP_TX: that needs a program at the other end.
        port::pass_all(switch, name, self.guard.dir())?;
        Ok(host)
    }

    fn node_pair(&self, index: usize) -> Pair {
        if self.routed { topology::routed_node(index) } else { topology::node(index) }
    }

    /// In a lab with a router: it spreads what is for VIPs over `nodes`, in this order, as equal paths. Any other order moves
    /// flows to other nodes.
    pub fn route_vips(&self, nodes: &[&Node]) -> Result<()> {
        for (place, vip) in self.vips().into_iter().enumerate() {
            let mut line = format!("route replace {vip}/{}", if place == 0 { 32 } else { 128 });
            for node in nodes {
                write!(line, " nexthop via {}", node.addresses()[place])?;
            }
            self.switch.ip(&format!("{line}\n"))?;
        }
        Ok(())
    }

    /// Node `index` with a pod of each service, known to all other hosts' routes.
    pub(super) fn build_node(&self, index: usize) -> Result<Node> {
        let name = format!("node{}", index + 1);
        let host = self.plug_in(&name, self.node_pair(index))?;
        host.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
        let mut pods = Vec::new();
        for (place, service) in self.services.iter().enumerate() {
            let pod = self.attach_pod(&host, index, place, &format!("{service}-{}", index + 1))?;
            pods.push(Pod::start(pod, service, &name)?);
        }
        if self.routed {
            let ((range, range6), via) = (topology::pod_ranges(index), self.node_pair(index));
            self.switch.ip(&format!("route add {range} via {}\n", via.0))?;
            if self.ipv6 {
                self.switch.ip(&format!("route add {range6} via {}\n", via.1))?;
            }
        }
        for (other, peer) in self.nodes.iter().enumerate() {
            peer.host().ip(&self.route_to_pods(index, other)?)?;
            host.ip(&self.route_to_pods(other, index)?)?;
        }
        Node::new(host, pods, self.dir(), self.manifests.dir()).context("preparing the node")
    }

    /// `ip` lines for node `at`: the way to the pods of node `of`.
    fn route_to_pods(&self, of: usize, at: usize) -> Result<String> {
        let (range, range6) = topology::pod_ranges(of);
        let from = self.node_pair(at);
        let via = if self.routed { topology::router(from) } else { self.node_pair(of) };
        let mut lines = format!("route add {range} via {} src {}\n", via.0, from.0);
        if self.ipv6 {
            writeln!(lines, "route add {range6} via {} src {}", via.1, from.1)?;
        }
        Ok(lines)
    }

    /// A pod's namespace behind `node`, routed as CNI's `ptp` plugin does it.
    fn attach_pod(&self, node: &Host, index: usize, place: usize, name: &str) -> Result<Host> {
        let pair = topology::pod(index, place);
        let pod = Host::create(&self.guard, name, topology::addresses(pair, self.ipv6), None)?;
        pod.sysctl(&[("net/ipv6/conf/default/accept_dad", "0")])?;
        let port = format!("pod{}", place + 1);
        let (gateway, from) = (topology::gateway(index), self.node_pair(index));
        let mut inside = format!(
            "link set eth0 up\naddr add {}/32 dev eth0\nroute add {} dev eth0\nroute add default via {}\n",
            pair.0, gateway.0, gateway.0
        );
        // `src`: the node talks to its pods with the address that it has for everybody else.
        let mut outside = format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} up\n\
             addr add {}/32 dev {port}\nroute add {}/32 dev {port} src {}\n",
            pod.namespace(),
            gateway.0,
            pair.0,
            from.0
        );
        if self.ipv6 {
            write!(
                inside,
                "addr add {}/128 dev eth0 nodad\nroute add {} dev eth0\nroute add default via {} dev eth0\n",
                pair.1, gateway.1, gateway.1
            )?;
            write!(
                outside,
                "addr add {}/128 dev {port} nodad\nroute add {}/128 dev {port} src {}\n",
                gateway.1, pair.1, from.1
            )?;
        }
        node.ip(&outside)?;
        pod.ip(&inside)?;
        Ok(pod)
    }
}
