//! Nodes that reach each other otherwise than clients reach them: by a VLAN on the uplink, by a second uplink.

use std::{collections::BTreeSet, net::IpAddr, process::Command};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    Host, Lab, Node,
    http::{self, Target},
    load::{self, PATIENCE},
    second::SECOND,
    topology::UPLINK,
    vlan,
};
use libtest_mimic::Trial;
use serde_json::Value;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("uplinks::nodes_in_a_vlan", nodes_in_a_vlan),
        scenario("uplinks::peers_behind_a_second_one", peers_behind_a_second_one),
    ]
}

/// Requests of each client and IP version, each a connection of its own: enough for each node to serve some.
const REQUESTS: usize = 40;

/// The Node object of `node` with other addresses than it has for clients.
fn declare(lab: &Lab, node: &Node, addresses: &[String]) -> Result<()> {
    let entry = |address: &String| format!("    - type: InternalIP\n      address: \"{address}\"\n");
    let entries: String = addresses.iter().map(entry).collect();
    let name = node.name();
    lab.manifests().write(
        name,
        &format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nspec: {{}}\nstatus:\n  addresses:\n{entries}"
        ),
    )
}

/// Starts the daemons with more words on their command lines.
fn start_with(lab: &Lab, words: &[&str]) -> Result<()> {
    for node in lab.nodes() {
        let mut command: Command = node.daemon_command();
        command.args(words);
        node.launch(command)?;
    }
    lab.nodes().iter().try_for_each(Node::wait_until_ready)?;
    lab.vips().into_iter().try_for_each(|vip| lab.wait_until_served(vip).map(drop))
}

/// What `node` says of the ways to its peers.
fn ways(node: &Node) -> Result<Vec<Value>> {
    let status = node.status()?;
    let nodes = status["l4"]["nodes"].as_array().context("no nodes")?;
    Ok(nodes.iter().filter(|node| node["is_self"] == false).map(|node| node["way"]["link"].clone()).collect())
}

/// New connections of `client` to all VIPs: by which nodes they were served.
fn served<'a>(lab: &'a Lab, client: &Host) -> Result<BTreeSet<(bool, &'a str)>> {
    let mut by = BTreeSet::new();
    for vip in lab.vips() {
        for number in 0..REQUESTS {
            let target = Target::new(vip, "foo.bar.com", "/bar");
            let peer = client.run(|| Ok(http::get(&target, PATIENCE)?.echo()?.peer));
            let peer = peer.with_context(|| format!("request {number} of {} to {vip}", client.name()))?;
            by.insert((vip.is_ipv4(), lab.node_by_address(peer).context("a node of this lab")?.name()));
        }
    }
    Ok(by)
}

/// All nodes serve both IP versions, whichever the owner is.
fn all_serve(lab: &Lab, client: &Host) -> Result<()> {
    let by = served(lab, client)?;
    println!("{}: {} requests, served by {by:?}", client.name(), REQUESTS * lab.vips().len());
    ensure!(
        by.len() == lab.nodes().len() * lab.vips().len(),
        "not all nodes served {}: {by:?}",
        client.name()
    );
    Ok(())
}

/// Clients in no VLAN and in the nodes' own one reach the VIPs; the nodes hand over by the VLAN.
fn nodes_in_a_vlan() -> Result<()> {
    let lab = Lab::builder("vlan").clients(2).build()?;
    lab.declare_examples()?;
    for (index, node) in lab.nodes().iter().enumerate() {
        let (v4, v6) = (format!("10.81.5.{}", 11 + index), format!("fd81:5::{}", 11 + index));
        lab.add_vlan(node.host(), &[&format!("{v4}/24"), &format!("{v6}/64")])?;
        // The client in no VLAN is answered by the uplink: what comes for it by the VLAN is no spoofed packet.
        node.host().sysctl(&[(&format!("net/ipv4/conf/{}/rp_filter", vlan::INTERFACE), "2")])?;
        declare(&lab, node, &[v4, v6])?;
    }
    let inside = lab.client(1);
    lab.add_vlan(inside, &["10.81.5.201/24", "fd81:5::201/64"])?;
    for vip in lab.vips() {
        inside.ip(&format!("route add {vip} dev {}\n", vlan::INTERFACE))?;
    }
    start_with(&lab, &["--vlan", &format!("{}={UPLINK}:{}", vlan::INTERFACE, vlan::NUMBER)])?;
    let number = vlan::NUMBER.to_string();
    for node in lab.nodes() {
        let ways = ways(node)?;
        ensure!(
            ways.len() == 2 && ways.iter().all(|way| way["vlan"] == number.as_str()),
            "{} does not reach its peers by the VLAN: {ways:?}",
            node.name()
        );
    }
    // By neither of them do nodes ask for clients in a VIP's name.
    for (node, interface) in lab.nodes().iter().flat_map(|node| [(node, UPLINK), (node, vlan::INTERFACE)]) {
        let setting = format!("/proc/sys/net/ipv4/conf/{interface}/arp_announce");
        load::wait_for("arp_announce on the uplink and on its VLAN", PATIENCE, || {
            Ok(node.host().output("cat", &[&setting])?.trim() == "2")
        })?;
    }
    println!("{} reaches its peers: {}", lab.node(0).name(), lab.node(0).ask(&["status"])?.trim());
    all_serve(&lab, lab.client(0))?;
    all_serve(&lab, inside)
}

/// The nodes have a network of their own, by which they hand over: packets leave by another interface than they came in by.
fn peers_behind_a_second_one() -> Result<()> {
    let lab = Lab::builder("second").build()?;
    lab.declare_examples()?;
    lab.add_second_network()?;
    for (index, node) in lab.nodes().iter().enumerate() {
        let second = Lab::second_addresses(index);
        // As in a VLAN.
        node.host().sysctl(&[(&format!("net/ipv4/conf/{SECOND}/rp_filter"), "2")])?;
        declare(&lab, node, &second.map(|address: IpAddr| address.to_string()))?;
    }
    start_with(&lab, &["--interface", SECOND])?;
    all_serve(&lab, lab.client(0))?;
    let mut handed_over = 0;
    for node in lab.nodes() {
        let (first, second) = (index(node, UPLINK)?, index(node, SECOND)?);
        let ways = ways(node)?;
        ensure!(
            first != second && ways.len() == 2 && ways.iter().all(|way| way["link"] == second),
            "{} does not reach its peers by {SECOND}: {ways:?}",
            node.name()
        );
        let reasons = node.status()?["l4"]["reasons"].clone();
        let packets = |reason: &str| reasons[reason].as_u64().unwrap_or(0);
        handed_over += packets("forward_new") + packets("forward_flow") + packets("forward_walk");
    }
    println!("{handed_over} packets that came in by {UPLINK} were handed over by {SECOND}");
    ensure!(handed_over > 100, "hardly anything was handed over: nothing was shown");
    Ok(())
}

/// The number of an interface.
fn index(node: &Node, interface: &str) -> Result<u64> {
    let shown = node.host().output("ip", &["-j", "link", "show", "dev", interface])?;
    let shown: Value = serde_json::from_str(&shown)?;
    shown[0]["ifindex"].as_u64().context("no index")
}
