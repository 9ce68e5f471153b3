//! Two halves of the nodes that do not hear of each other by UDP, while clients reach both: they hear each other on the link, and
//! nothing changes. Then not there either, which only a filter on frames brings about: each half answers for all VIPs; when it
//! ends, one node does, and no connection breaks on the way back, of neither half.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ingress_tests::lab::{
    Host, Lab, Node,
    http::Target,
    load::{self, HeldConnections, HoldReport},
    topology::{self, UPLINK},
};
use libtest_mimic::Trial;

use super::{coexistence::state_of, scenario};

/// Connections of each client to each VIP.
const CONNECTIONS: usize = 40;
const EVERY: Duration = Duration::from_millis(200);
/// What all nodes see within 0.7 s where the CPUs are free.
const NOTICED: Duration = Duration::from_secs(20);
/// That is the detection time. Beyond it a starved machine may be late to run a daemon, or to answer the question who owns.
const TWO_OWNERS: Duration = Duration::from_millis(700 + 4000);

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("partition::two_halves_become_one_again", two_halves)]
}

/// Nothing that the nodes `from` say by UDP arrives at `node`.
fn cut_udp(node: &Node, from: &[Node]) -> Result<()> {
    let mut rules =
        "table inet cut { chain input { type filter hook input priority -10; policy accept;".to_owned();
    for address in from.iter().flat_map(Node::addresses) {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        write!(rules, " {family} saddr {address} udp dport 7947 drop;")?;
    }
    node.host().output("nft", &[&format!("{rules} }}; }}")]).map(drop)
}

/// Nor what they say in frames. What they hand over does.
fn cut_link(node: &Node, from: &[Node]) -> Result<()> {
    let mut rules = format!(
        "table netdev cut {{ chain ingress {{ type filter hook ingress device {UPLINK} priority 0; policy accept;"
    );
    for peer in from {
        write!(rules, " ether type 0x88b5 ether saddr {} drop;", topology::mac(peer.addresses()))?;
    }
    node.host().output("nft", &[&format!("{rules} }}; }}")]).map(drop)
}

/// `client` sends what is for the VIPs to `node`, whatever it hears.
fn pin(lab: &Lab, client: &Host, node: &Node) -> Result<()> {
    let mac = topology::mac(node.addresses());
    lab.vips().into_iter().try_for_each(|vip| {
        client.ip(&format!("neigh replace {vip} lladdr {mac} dev {UPLINK} nud permanent\n"))
    })
}

/// It asks who has them.
fn unpin(lab: &Lab, client: &Host) -> Result<()> {
    lab.vips().into_iter().try_for_each(|vip| client.ip(&format!("neigh del {vip} dev {UPLINK}\n")))
}

fn hold(lab: &Lab, client: &Host) -> Result<Vec<HeldConnections>> {
    let held =
        |vip| HeldConnections::start(client, &Target::new(vip, "foo.bar.com", "/bar"), CONNECTIONS, EVERY);
    lab.vips().into_iter().map(held).collect()
}

/// Who says that it owns which VIP.
fn owners(lab: &Lab) -> Result<BTreeSet<(IpAddr, &str)>> {
    let mut owners = BTreeSet::new();
    for node in lab.nodes() {
        let status = node.status()?;
        for entry in status["l4"]["vips"].as_array().into_iter().flatten() {
            if entry["owner"] == node.name()
                && let Some(Ok(address)) = entry["address"].as_str().map(str::parse::<std::net::SocketAddr>)
            {
                owners.insert((address.ip(), node.name()));
            }
        }
    }
    Ok(owners)
}

/// Whether each node of `half` holds all of `others` for `state`.
fn hold_for(half: &[Node], others: &[Node], state: &str) -> Result<bool> {
    for node in half {
        let status = node.status()?;
        if !others.iter().all(|other| state_of(&status, other).as_deref() == Some(state)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn finish(held: Vec<HeldConnections>) -> Result<HoldReport> {
    let reports = held.into_iter().map(HeldConnections::finish).collect::<Result<Vec<_>>>()?;
    Ok(HoldReport { held: reports.into_iter().flat_map(|report| report.held).collect() })
}

/// How often a node held another one for dead.
fn lost(lab: &Lab) -> Result<u64> {
    let of = |node: &Node| Ok(node.status()?["l4"]["membership"]["lost"].as_u64().unwrap_or(u64::MAX));
    lab.nodes().iter().map(of).sum()
}

/// UDP alone is cut: a firewall on every node that does not know of the other half.
fn without_udp(lab: &Lab) -> Result<()> {
    let (one, two) = lab.nodes().split_at(2);
    let (client_one, client_two) = (lab.client(0), lab.client(1));
    let before = [hold(lab, client_one)?, hold(lab, client_two)?];
    let lost_before = lost(lab)?;

    let began = Instant::now();
    one.iter().try_for_each(|node| cut_udp(node, two))?;
    two.iter().try_for_each(|node| cut_udp(node, one))?;
    thread::sleep(Duration::from_secs(2));
    let during = [hold(lab, client_one)?, hold(lab, client_two)?];
    // Each client's packets arrive at the other half from now on.
    pin(lab, client_one, &two[0])?;
    pin(lab, client_two, &one[0])?;
    thread::sleep(Duration::from_secs(2));
    let (owners, lost) = (owners(lab)?, lost(lab)? - lost_before);
    let lasted = began.elapsed();
    let reports = before.into_iter().chain(during).map(finish).collect::<Result<Vec<_>>>()?;
    println!(
        "partition: no UDP between the halves for {lasted:.1?}: {lost} nodes held for dead, {} owners of {} VIPs; {} of {} \
         connections of clients that reach both halves broke",
        owners.len(),
        lab.vips().len(),
        reports.iter().map(|report| report.broken(|_| true)).sum::<usize>(),
        reports.iter().map(|report| report.held.len()).sum::<usize>(),
    );
    for report in &reports {
        ensure!(report.broken(|_| true) == 0, "{:?}", report.failures());
    }
    // Each node would have lost the other two. One that gets no CPU is another matter.
    ensure!(lost < 4 && owners.len() == lab.vips().len(), "{lost} held for dead; {owners:?}");
    Ok(())
}

fn two_halves() -> Result<()> {
    let lab = Lab::builder("partition").nodes(4).clients(2).build()?;
    lab.serve_examples()?;
    let (one, two) = lab.nodes().split_at(2);
    let (client_one, client_two) = (lab.client(0), lab.client(1));
    // Each client hears one half only, as behind a switch of its own. Every node directs, the owner or not.
    pin(&lab, client_one, &one[0])?;
    pin(&lab, client_two, &two[0])?;
    without_udp(&lab)?;
    pin(&lab, client_one, &one[0])?;
    pin(&lab, client_two, &two[0])?;
    let before = hold(&lab, client_one)?;

    let began = Instant::now();
    one.iter().try_for_each(|node| cut_link(node, two))?;
    two.iter().try_for_each(|node| cut_link(node, one))?;
    let both = || Ok(hold_for(one, two, "down")? && hold_for(two, one, "down")?);
    load::wait_for("the halves to hold each other for dead", NOTICED, both)?;
    load::wait_for("each half to answer for each VIP", NOTICED, || {
        Ok(owners(&lab)?.len() == 2 * lab.vips().len())
    })?;
    let known = began.elapsed();
    let during = [hold(&lab, client_one)?, hold(&lab, client_two)?];

    let healed = Instant::now();
    lab.nodes().iter().try_for_each(|node| node.host().output("nft", &["flush ruleset"]).map(drop))?;
    load::wait_for("one owner for each VIP", NOTICED, || Ok(owners(&lab)?.len() == lab.vips().len()))?;
    let alone = healed.elapsed();
    load::wait_for("the halves to have found each other", NOTICED, || {
        Ok(hold_for(one, two, "serving")? && hold_for(two, one, "serving")?)
    })?;
    // From now on both clients go by what they hear, and the director is another one for at least one of them.
    unpin(&lab, client_one)?;
    unpin(&lab, client_two)?;
    thread::sleep(Duration::from_secs(2));
    ensure!(owners(&lab)?.len() == lab.vips().len(), "{:?}", owners(&lab)?);

    let is_across =
        |at: Option<IpAddr>| at.is_some_and(|at| two.iter().any(|node| node.addresses().contains(&at)));
    let before = finish(before)?;
    let during = during.into_iter().map(finish).collect::<Result<Vec<_>>>()?;
    println!(
        "partition: known to all after {known:.1?}, one owner {alone:.1?} after its end; of connections from before, {} of {} on \
         the client's side broke ({} of {} beyond the cut); of those made in it {} of {}",
        before.broken(|at| !is_across(at)),
        before.count(|at| !is_across(at)),
        before.broken(is_across),
        before.count(is_across),
        during.iter().map(|report| report.broken(|_| true)).sum::<usize>(),
        during.iter().map(|report| report.held.len()).sum::<usize>(),
    );
    ensure!(before.count(|at| !is_across(at)) > 10, "hardly anything was shown");
    ensure!(before.broken(|at| !is_across(at)) == 0, "{:?}", before.failures());
    for (report, half) in during.iter().zip([one, two]) {
        ensure!(report.broken(|_| true) == 0, "{:?}", report.failures());
        let at_home =
            report.count(|at| at.is_some_and(|at| half.iter().any(|node| node.addresses().contains(&at))));
        ensure!(at_home == report.held.len(), "{at_home} of {} on the client's side", report.held.len());
    }
    ensure!(alone < TWO_OWNERS, "two owners for {alone:?}");
    Ok(())
}
