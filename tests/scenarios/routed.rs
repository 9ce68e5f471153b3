//! Nodes behind a router, each on a link of its own: the router spreads connections over all nodes, packets go from node to
//! node through tunnels. Established connections survive whatever changes, also where the router sends them elsewhere.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{Lab, Node};
use libtest_mimic::Trial;

use super::{
    membership::{LIVE, dies, load, unharmed},
    scenario,
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("routed::the_router_reshuffles", the_router_reshuffles),
        scenario("routed::a_node_is_added", a_node_is_added),
        scenario("routed::a_node_drains_and_returns", a_node_drains_and_returns),
        scenario("routed::a_node_dies", a_node_dies),
    ]
}

/// Packets that `lab`'s nodes have handed over, and that they dropped; by reason.
fn handed_over(lab: &Lab) -> Result<u64> {
    let mut sum = 0;
    for node in lab.nodes().iter().filter(|node| node.is_running()) {
        let status = node.status()?;
        for node in status["l4"]["nodes"].as_array().context("no nodes")? {
            let is_tunnel = node["way"].as_object().is_some_and(|way| way.contains_key("tunnel"));
            if is_tunnel {
                sum += node["packets"].as_u64().context("no count")?;
            }
        }
    }
    Ok(sum)
}

/// The router sends flows to other nodes: in another order, to fewer, to all.
pub(super) fn reshuffle(lab: &Lab) -> Result<()> {
    let mut nodes: Vec<&Node> = lab.nodes().iter().filter(|node| node.is_running()).collect();
    for _ in 0..3 {
        nodes.rotate_left(1);
        lab.route_vips(&nodes)?;
        thread::sleep(Duration::from_millis(700));
    }
    lab.route_vips(&nodes[..2])?;
    thread::sleep(Duration::from_millis(700));
    lab.route_vips(&nodes)
}

fn the_router_reshuffles() -> Result<()> {
    let lab = Lab::builder("reshuffle").router().build()?;
    lab.serve_examples()?;
    let load = load(&lab)?;
    reshuffle(&lab)?;
    thread::sleep(Duration::from_secs(1));
    let tunnelled = handed_over(&lab)?;
    println!("the router reshuffled 5 times; {tunnelled} packets went through tunnels");
    ensure!(tunnelled > 1000, "hardly anything went through a tunnel: nothing was shown");
    unharmed("the router reshuffled", &lab, &load.finish()?)
}

fn a_node_is_added() -> Result<()> {
    let mut lab = Lab::builder("radd").router().build()?;
    lab.serve_examples()?;
    let load = load(&lab)?;
    lab.add_node()?;
    let node = lab.node(3);
    lab.declare_node(node)?;
    let started = Instant::now();
    node.start_daemon()?;
    let live = load.wait_for_node(node, started, LIVE)?;
    // It announces the VIPs too: the router spreads anew.
    lab.route_vips(&lab.nodes().iter().collect::<Vec<_>>())?;
    thread::sleep(Duration::from_secs(2));
    println!("a node added: it serves new connections {live:.0?} after its daemon was started");
    unharmed("a node added behind a router", &lab, &load.finish()?)
}

fn a_node_drains_and_returns() -> Result<()> {
    let lab = Lab::builder("rdrain").router().build()?;
    lab.serve_examples()?;
    let load = load(&lab)?;
    let node = lab.node(1);
    let drained = Instant::now();
    node.drain()?;
    thread::sleep(Duration::from_millis(500));
    // It withdraws its routes: what it serves comes by way of the others.
    lab.route_vips(&[lab.node(0), lab.node(2)])?;
    thread::sleep(Duration::from_secs(2));
    let last = load.report().last_new_on(node, drained);
    node.undrain()?;
    let live = load.wait_for_node(node, Instant::now(), LIVE)?;
    lab.route_vips(&lab.nodes().iter().collect::<Vec<_>>())?;
    thread::sleep(Duration::from_secs(1));
    println!("{} drained: the last new connection after {last:.0?}; back: {live:.0?}", node.name());
    ensure!(last < Duration::from_secs(1), "new connections went to the draining node for {last:?}");
    unharmed("drained and returned behind a router", &lab, &load.finish()?)
}

fn a_node_dies() -> Result<()> {
    let lab = Lab::builder("rkill").router().nodes(4).build()?;
    dies(&lab, |lab| Ok(lab.node(3)))
}
