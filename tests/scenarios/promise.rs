//! The promise in one run: 2,000 connections with steady traffic in each, and one change of the cluster after the other.
//! None of them breaks on a healthy node. Once on one link, once behind a router, over both IP versions.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ingress_tests::lab::{
    Lab, Node,
    http::Failure,
    load::{self, Habit, Load, steady::Lost},
};
use libtest_mimic::Trial;

use super::{membership::explain, routed::reshuffle, scenario};

/// Held connections, over both IP versions together.
const CONNECTIONS: usize = 2000;
/// New connections a second.
const RATE: u32 = 20;
/// A change is followed within this time, also on a busy machine.
const FOLLOWED: Duration = Duration::from_secs(30);
/// Each change is left alone this long: every connection carries requests under it.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("promise::on_one_link", || keep("promise", Lab::builder("promise").build()?)),
        scenario("promise::behind_a_router", || keep("rpromise", Lab::builder("rpromise").router().build()?)),
    ]
}

/// Plays all changes and says after each what it cost.
fn keep(name: &str, mut lab: Lab) -> Result<()> {
    lab.serve_examples()?;
    let (host, path) = ("foo.bar.com", "/bar");
    let mut load = Load::start_with(&lab, host, path, CONNECTIONS, RATE, Habit::MANY)?;
    let start = Instant::now();
    let step = |lab: &Lab, what: &str, load: &Load| -> Result<()> {
        thread::sleep(SETTLE);
        let report = load.report();
        println!(
            "{name}: {what}: {} of {} connections broken, {} requests in them so far; new connections lost {} of {}",
            report.hold.broken(|_| true),
            report.hold.held.len(),
            report.hold.responses(),
            report.steady.lost(),
            report.steady.sent(),
        );
        if report.hold.broken(|_| true) > 0 {
            explain(lab, &report);
        }
        ensure!(report.hold.broken(|_| true) == 0, "{what}: {:?}", report.hold.failures());
        Ok(())
    };

    lab.add_node()?;
    lab.declare_node(lab.node(3))?;
    let since = Instant::now();
    lab.node(3).start_daemon()?;
    load.wait_for_node(lab.node(3), since, FOLLOWED)?;
    spread(&lab)?;
    step(&lab, "a node added", &load)?;

    drain(&lab, lab.node(1), &load)?;
    step(&lab, "a node drains", &load)?;
    back(lab.node(1), &load)?;
    step(&lab, "it returns", &load)?;

    if lab.is_routed() {
        reshuffle(&lab)?;
        step(&lab, "the router reshuffles", &load)?;
    } else {
        let owner = lab.owner(lab.vips()[0])?;
        drain(&lab, owner, &load)?;
        load::wait_for("another owner", FOLLOWED, || Ok(lab.owner(lab.vips()[0])?.name() != owner.name()))?;
        step(&lab, "the owner drains, another one answers", &load)?;
        back(owner, &load)?;
        step(&lab, "the owner returns", &load)?;
    }

    for node in lab.nodes() {
        upgrade(&lab, node, &load)?;
        // What the old daemon closed in good order comes again: always as many for the next one.
        let hold = load.report().hold;
        let missing = (CONNECTIONS + hold.closed()).saturating_sub(hold.held.len());
        load.hold_more(&lab, host, path, missing.next_multiple_of(2))?;
        step(&lab, &format!("the daemon of {} is replaced", node.name()), &load)?;
    }

    let report = load.finish()?;
    println!(
        "{name}: all of it in {:.0?}, {} requests in held connections",
        start.elapsed(),
        report.hold.responses()
    );
    println!("{name}: {}", report.summary());
    ensure!(report.hold.broken(|_| true) == 0, "{:?}", report.hold.failures());
    // What a machine whose CPUs are all busy is too slow for is no loss of the front's.
    let slow = [Failure::Timeout, Failure::ConnectTimeout].map(Lost::Failure);
    let lost = report.steady.losses();
    ensure!(lost.keys().all(|lost| slow.contains(lost)), "new connections were lost: {lost:?}");
    Ok(())
}

/// Behind a router, all nodes that run announce the VIPs to it.
fn spread(lab: &Lab) -> Result<()> {
    if lab.is_routed() { lab.route_vips(&lab.nodes().iter().collect::<Vec<_>>()) } else { Ok(()) }
}

/// `xdp-ingress drain`, and all others know.
fn drain(lab: &Lab, node: &Node, load: &Load) -> Result<()> {
    node.drain()?;
    load::wait_for("the others to know that it drains", FOLLOWED, || {
        let others = lab.nodes().iter().filter(|other| other.name() != node.name());
        let known = others.map(|other| Ok(super::coexistence::state_of(&other.status()?, node)));
        Ok(known.collect::<Result<Vec<_>>>()?.iter().all(|state| state.as_deref() == Some("draining")))
    })?;
    ensure!(load.report().held_on(node) > 0, "{} held no connection before it drained", node.name());
    Ok(())
}

fn back(node: &Node, load: &Load) -> Result<()> {
    let since = Instant::now();
    node.undrain()?;
    load.wait_for_node(node, since, FOLLOWED).map(drop)
}

/// As a rolling update of the DaemonSet does it: `SIGTERM`, the daemon drains and ends, the new one starts.
fn upgrade(lab: &Lab, node: &Node, load: &Load) -> Result<()> {
    if lab.is_routed() {
        lab.route_vips(&lab.nodes().iter().filter(|other| other.name() != node.name()).collect::<Vec<_>>())?;
    }
    node.begin_stop()?;
    let status = node.wait_stopped(FOLLOWED)?;
    ensure!(status.success(), "{}: {status}", node.name());
    let since = Instant::now();
    node.start_daemon()?;
    load.wait_for_node(node, since, FOLLOWED)?;
    spread(lab)
}
