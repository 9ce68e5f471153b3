//! What else is on a node: a host firewall that drops what it does not know, connection tracking, strict `rp_filter`
//! (every lab has that), and a daemon of ours that hangs.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    Lab, Node,
    http::{self, Target},
    load::{self, HeldConnections, Load, PATIENCE},
    topology,
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("coexistence::firewall_and_connection_tracking", firewall_and_connection_tracking),
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
    let tracked = owner.host().output("cat", &["/proc/net/nf_conntrack"])?;
    let tracked = tracked.lines().filter(|line| line.contains(&format!("src={client} dst={vip} "))).count();
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
