//! A second network of the nodes: each has another uplink (`eth1`) to another bridge of the switch, and addresses there. Clients
//! are not in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{Lab, netns, port};

/// The second uplink's name on every node.
pub const SECOND: &str = "eth1";
const BRIDGE: &str = "br1";

impl Lab {
    /// The addresses of node `index` (from 0) there: `10.82.0.11`, `fd82::b`, …
    pub fn second_addresses(index: usize) -> [IpAddr; 2] {
        let last = u8::try_from(11 + index).expect("a lab has at most some tens of nodes");
        [
            IpAddr::V4(Ipv4Addr::new(10, 82, 0, last)),
            IpAddr::V6(Ipv6Addr::new(0xfd82, 0, 0, 0, 0, 0, 0, last.into())),
        ]
    }

    /// Gives every node its second uplink.
    pub fn add_second_network(&self) -> Result<()> {
        let switch = self.switch();
        switch.ip(&format!(
            "link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set {BRIDGE} up\n"
        ))?;
        for (index, node) in self.nodes().iter().enumerate() {
            let ([v4, v6], port) = (Self::second_addresses(index), format!("{}b", node.name()));
            node.host().ip(&format!(
                "link add {SECOND} type veth peer name {port} netns {}\nlink set {SECOND} up\n\
                 addr add {v4}/24 dev {SECOND}\naddr add {v6}/64 dev {SECOND} nodad\n",
                switch.namespace()
            ))?;
            switch.ip(&format!("link set {port} master {BRIDGE} up\n"))?;
            // As on the first uplink (`build`).
            let plain = ["tx", "off", "tso", "off", "gso", "off"];
            netns::offloads(node.host().namespace(), SECOND, &plain)?;
            netns::offloads(switch.namespace(), &port, &plain)?;
            port::pass_all(switch.namespace(), &port, self.dir())?;
        }
        Ok(())
    }
}
