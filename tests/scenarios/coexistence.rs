//! What else is on a node: a host firewall that drops what it does not know, connection tracking, kube-proxy's rules, strict
//! `rp_filter` (every lab has that), an interface without native XDP, and a daemon of ours that hangs.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    Host, Lab, Node,
    http::{self, Target},
    kube_proxy::{CLUSTER_ADDRESS, NODE_PORT},
    load::{self, HeldConnections, Load, PATIENCE},
    topology,
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use super::{daemon::with, scenario};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("coexistence::firewall_and_connection_tracking", firewall_and_connection_tracking),
        scenario("coexistence::kube_proxy_in_both_modes", kube_proxy_in_both_modes),
        scenario("coexistence::generic_mode", generic_mode),
        scenario("coexistence::a_daemon_hangs", a_daemon_hangs),
    ]
}

/// A host firewall as distributions ship it: drops by default, knows connections, lets the ports of our router and of
/// the membership in.
const FIREWALL: &str = "table inet host { chain input { type filter hook input priority 0; policy drop; \
     ct state established,related accept; ct state invalid drop; iif lo accept; \
     meta l4proto { icmp, icmpv6 } accept; udp dport 7947 accept; tcp dport { 80, 443 } ct state new accept; }; }";

/// Flows that the node only hands on never reach its kernel: no rule sees them, nothing is tracked.
fn firewall_and_connection_tracking() -> Result<()> {
    let lab = Lab::builder("firewall").clients(2).build()?;
    for node in lab.nodes() {
        node.host().output("nft", &[FIREWALL])?;
    }
    lab.serve_examples()?;
    let vip = lab.vips()[0];
    let owner = lab.owner(vip)?;
    let held = HeldConnections::start(
        lab.client(1),
        &Target::new(vip, "foo.bar.com", "/bar"),
        150,
        Duration::from_millis(100),
    )?;
    thread::sleep(Duration::from_secs(1));
    let on = |node: &Node| held.report().count(|at| at.is_some_and(|at| node.addresses().contains(&at)));
    let (here, client) = (on(owner), lab.client(1).addresses()[0]);
    let tracked = tracked(owner, client, vip)?;
    let report = held.finish()?;
    println!(
        "firewall on every node: {} connections through the owner {}, {here} end there, {tracked} are tracked there; \
         {} broken",
        report.held.len(),
        owner.name(),
        report.broken(|_| true)
    );
    ensure!(report.broken(|_| true) == 0, "{:?}", report.failures());
    ensure!(here > 10 && report.held.len() - here > 10, "{here} of {} end at the owner", report.held.len());
    ensure!(tracked == here, "{tracked} connections are tracked, {here} end here");
    Ok(())
}

/// Connections between `client` and `vip` that the kernel of `node` knows of.
fn tracked(node: &Node, client: IpAddr, vip: IpAddr) -> Result<usize> {
    let table = node.host().output("cat", &["/proc/net/nf_conntrack"])?;
    Ok(table.lines().filter(|line| line.contains(&format!("src={client} dst={vip} "))).count())
}

/// The first node has kube-proxy's rules in its mode `iptables`, the second one in its mode `nftables`: they find nothing to do
/// with our VIPs, and we leave what is theirs alone.
fn kube_proxy_in_both_modes() -> Result<()> {
    let lab = Lab::builder("kubeproxy").clients(2).build()?;
    lab.kube_proxy_iptables(lab.node(0).host(), "service1")?;
    lab.kube_proxy_nftables(lab.node(1).host(), "service1")?;
    lab.serve_examples()?;
    let (vip, client) = (lab.vips()[0], lab.client(1));
    let held = HeldConnections::start(
        client,
        &Target::new(vip, "foo.bar.com", "/bar"),
        150,
        Duration::from_millis(100),
    )?;
    let ask = |from: &Host, address: IpAddr, port: u16| -> Result<()> {
        let target =
            Target { address: (address, port).into(), host: "service".to_owned(), path: "/".to_owned() };
        let echo = from.run(|| http::get(&target, PATIENCE)?.echo());
        let echo = echo.with_context(|| format!("{address}:{port} from {}", from.name()))?;
        ensure!(echo.pod.starts_with("service1-"), "{} answered for {address}:{port}", echo.pod);
        Ok(())
    };
    for node in &lab.nodes()[..2] {
        // Any route will do: the packet is rewritten before it leaves.
        node.host().ip(&format!("route add {CLUSTER_ADDRESS}/32 dev eth0\n"))?;
        for _ in 0..10 {
            ask(client, node.addresses()[0], NODE_PORT)?;
            ask(node.host(), CLUSTER_ADDRESS.into(), 80)?;
        }
    }
    let (mut served, mut figures) = (held.report(), Vec::new());
    load::wait_for("all held connections to be served", Duration::from_secs(20), || {
        served = held.report();
        Ok(served.count(|at| at.is_some()) == served.held.len())
    })?;
    for node in lab.nodes() {
        let here = served.count(|at| at.is_some_and(|at| node.addresses().contains(&at)));
        // The third node has no rules, and its kernel no reason to track anything.
        let tracked = tracked(node, client.addresses()[0], vip)?;
        figures.push((here, tracked));
    }
    let report = held.finish()?;
    println!(
        "kube-proxy's rules in mode iptables, nftables, none: 20 requests each by node port and cluster address answered; {} \
         connections to the VIP, by node (served there, tracked there): {figures:?}; {} broken",
        report.held.len(),
        report.broken(|_| true)
    );
    ensure!(report.broken(|_| true) == 0, "{:?}", report.failures());
    for (node, (here, tracked)) in lab.nodes().iter().zip(&figures).take(2) {
        ensure!(*here > 10, "{} serves only {here}: nothing was shown", node.name());
        ensure!(tracked == here, "{tracked} connections are tracked on {}, {here} end there", node.name());
    }
    Ok(())
}

/// One node is told to use generic mode, another has an interface that cannot do it natively (its peer's packets may be bigger
/// than a page); both work as the third one does, and say how and why.
fn generic_mode() -> Result<()> {
    let lab = Lab::builder("generic").build()?;
    lab.declare_examples()?;
    lab.switch().ip("link set node2 mtu 9000\n")?;
    for node in lab.nodes() {
        let mode = if node.name() == "node1" { "generic" } else { "auto" };
        node.launch(with(node, &[("--xdp-mode", mode)]))?;
    }
    lab.nodes().iter().try_for_each(Node::wait_until_ready)?;
    lab.vips().into_iter().try_for_each(|vip| lab.wait_until_served(vip).map(drop))?;
    for (node, mode, has_reason) in [(0, "generic", false), (1, "generic", true), (2, "native", false)]
        .map(|(i, m, r)| (lab.node(i), m, r))
    {
        let status = node.status()?;
        let interface = &status["l4"]["interfaces"][0];
        println!("{}: {} (reason: {})", node.name(), interface["mode"], interface["reason"]);
        ensure!(interface["mode"] == mode && interface["reason"].is_string() == has_reason, "{interface}");
        if let Some(reason) = interface["reason"].as_str() {
            let text = node.ask(&["status"])?;
            ensure!(
                text.contains(mode) && text.contains(reason),
                "status says neither mode nor reason: {text}"
            );
        }
    }
    for vip in lab.vips() {
        let target = Target::new(vip, "foo.bar.com", "/bar");
        let held = HeldConnections::start(lab.client(0), &target, 90, Duration::from_millis(100))?;
        load::wait_for("all held connections to be served", Duration::from_secs(20), || {
            Ok(held.report().responses() >= 5 * 90)
        })?;
        let owner = lab.owner(vip)?.name();
        let report = held.finish()?;
        let by_node: BTreeMap<_, _> = lab
            .nodes()
            .iter()
            .map(|node| (node.name(), report.count(|at| at.is_some_and(|at| node.addresses().contains(&at)))))
            .collect();
        println!(
            "{vip}, owner {owner}: 90 connections, by node {by_node:?}; {} broken",
            report.broken(|_| true)
        );
        ensure!(report.broken(|_| true) == 0, "{:?}", report.failures());
        ensure!(by_node.values().all(|count| *count > 0), "not all served: nothing was shown");
    }
    Ok(())
}

fn signal(node: &Node, signal: Signal) -> Result<()> {
    let id = node.daemon_id().context("no daemon runs")?;
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("a process number")?;
    Ok(kill_process(pid, signal)?)
}

/// The daemon stands still (SIGSTOP), its kernel's part goes on: whatever arrives at the node is directed to the others,
/// and its VIP goes to one of them. When that has happened, nobody notices anything any more.
fn a_daemon_hangs() -> Result<()> {
    let lab = Lab::builder("hang").clients(2).build()?;
    lab.serve_examples()?;
    let vip = lab.vips()[0];
    let node = lab.owner(vip)?;
    let load = Load::start(&lab, "foo.bar.com", "/bar", 60, 40)?;
    let event = Instant::now();
    signal(node, Signal::STOP)?;
    let checked = (|| {
        let others = || lab.nodes().iter().filter(|other| other.name() != node.name());
        let noticed = load::wait_for("the others to take it for dead", NOTICED, || {
            let states =
                others().map(|other| Ok(state_of(&other.status()?, node) == Some("down".to_owned())));
            Ok(states.collect::<Result<Vec<_>>>()?.iter().all(|is_down| *is_down))
        })?;
        // The node's own program goes by the heartbeat, which is stale by then or a moment later.
        thread::sleep(STALE.saturating_sub(event.elapsed()));
        let quiet = Instant::now();
        // A client whose ARP cache still has the old owner.
        let stale = format!(
            "neigh replace {vip} lladdr {} dev eth0 nud permanent\n",
            topology::mac(node.addresses())
        );
        lab.client(1).ip(&stale)?;
        let target = Target::new(vip, "foo.bar.com", "/bar");
        let mut served = 0;
        for _ in 0..50 {
            let answer = lab.client(1).run(|| Ok(http::get(&target, PATIENCE)?.echo()?.peer));
            let by = answer.context("a request through the node whose daemon hangs")?;
            ensure!(!node.addresses().contains(&by), "the node whose daemon hangs serves");
            served += 1;
        }
        let enough = || load.report().steady.between(quiet, Instant::now()).sent() >= 40;
        load::wait_for("40 new connections", Duration::from_secs(20), || Ok(enough()))?;
        Ok((served, noticed, quiet, Instant::now()))
    })();
    signal(node, Signal::CONT)?;
    let (served, noticed, quiet, end): (usize, _, _, _) = checked?;
    let report = load.finish()?;
    let late = report.steady.between(quiet, end);
    println!(
        "{} hangs: taken for dead by all after {noticed:.0?}; {served} of 50 new connections through it were served by \
         others; {} of its connections broke, {} elsewhere; lost once it was noticed: {} of {}",
        node.name(),
        report.broken_on(node),
        report.broken_elsewhere(Some(node)),
        late.lost(),
        late.sent(),
    );
    ensure!(
        report.broken_elsewhere(Some(node)) == 0,
        "connections broke on healthy nodes: {:?}",
        report.hold.failures()
    );
    ensure!(late.lost() == 0, "{:?}", late.losses());
    Ok(())
}

/// How long the others may take until they hold a silent daemon for dead; it is 0.7 s where the CPUs are free.
const NOTICED: Duration = Duration::from_secs(10);
/// The program holds its own daemon for dead after 1 s without a heartbeat.
const STALE: Duration = Duration::from_millis(1500);

/// What the daemon with the status `status` holds of `node`.
pub(super) fn state_of(status: &serde_json::Value, node: &Node) -> Option<String> {
    let nodes = status["l4"]["nodes"].as_array()?;
    let entry = nodes.iter().find(|entry| entry["name"] == node.name())?;
    entry["state"].as_str().map(ToOwned::to_owned)
}
