//! Two daemons of one node side by side: the new one takes over while clients come and connections are held, as in a rolling
//! update with `maxSurge: 1`. Nobody notices, the peers neither.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    Lab, Node,
    load::{self, Load},
    process::Process,
};
use libtest_mimic::Trial;

use super::{lifecycle::swap_pins, scenario};

/// Held connections, over both IP versions together.
const HELD: usize = 500;
/// New connections a second.
const RATE: u32 = 100;
/// A step is done within this time, also on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("handover::a_successor_takes_over_and_nobody_notices", a_successor_takes_over),
        scenario("handover::a_successor_with_another_map_layout_takes_over", another_map_layout),
        scenario("handover::a_successor_that_fails_changes_nothing", a_successor_that_fails),
        scenario("handover::one_with_another_map_layout_fails", one_with_another_map_layout_fails),
    ]
}

/// The owner of the first VIP, once it is no more on its way from the node that was up first.
fn settled_owner(lab: &Lab) -> Result<&Node> {
    let mut owner = lab.owner(lab.vips()[0])?;
    let mut since = Instant::now();
    load::wait_for("the VIP to stay where it is", PATIENCE, || {
        let now = lab.owner(lab.vips()[0])?;
        if now.name() != owner.name() {
            (owner, since) = (now, Instant::now());
        }
        Ok(since.elapsed() > Duration::from_secs(2))
    })?;
    Ok(owner)
}

/// What all other nodes logged of changes of this one's state.
fn noticed(lab: &Lab, node: &Node) -> usize {
    let others = lab.nodes().iter().filter(|other| other.name() != node.name());
    let is_of_node = |line: &&str| {
        line.contains("node changed its state") && line.contains(&format!("node=\"{}\"", node.name()))
    };
    others.map(|other| other.daemon_log().lines().filter(is_of_node).count()).sum()
}

fn a_successor_takes_over() -> Result<()> {
    take_over("hand-over", &Lab::builder("handover").build()?, HELD, |_| Ok(()))
}

/// The new daemon's maps have another layout: the old one's program goes on with its own, which the old daemon still writes,
/// until the new ones are filled.
fn another_map_layout() -> Result<()> {
    let lab = Lab::builder("handlayout").build()?;
    take_over("hand-over to another map layout", &lab, HELD / 2, swap_pins)?;
    let node = lab.nodes().iter().find(|node| node.daemon_log().contains("with new maps"));
    let node = node.context("no daemon took over with new maps")?;
    ensure!(!node.bpffs().join("xdp-ingress/rebuilding").exists(), "the takeover was not completed");
    Ok(())
}

/// The owner's daemon hands over, after `prepare` was done to its node.
fn take_over(what: &str, lab: &Lab, held: usize, prepare: impl Fn(&Node) -> Result<()>) -> Result<()> {
    lab.serve_examples()?;
    let load = Load::start(lab, "foo.bar.com", "/bar", held, RATE)?;
    let node = settled_owner(lab)?;
    let (held, before) = (load.report().held_on(node), noticed(lab, node));
    ensure!(held > 50, "only {held} connections on {}", node.name());
    ensure!(before > 0, "the log says nothing of {}: has its wording changed?", node.name());

    prepare(node)?;
    let started = Instant::now();
    let mut old = node.launch_successor()?;
    load::wait_for("the old daemon to hand over", PATIENCE, || {
        Ok(old.log().contains("handed over: new connections"))
    })?;
    let handed_over = started.elapsed();
    node.wait_until_ready()?;
    let ready = started.elapsed();
    ensure!(old.ended().is_none(), "a daemon that handed over ended before it was told to");
    old.terminate()?;
    let since = Instant::now();
    let status = old.wait(PATIENCE)?;
    ensure!(status.success(), "the old daemon ended with {status}");
    load.wait_for_node(node, since, PATIENCE)?;
    ensure!(lab.owner(lab.vips()[0])?.name() == node.name(), "the VIP moved");

    // Two more seconds of new connections, all of them the new daemon's on this node.
    thread::sleep(Duration::from_secs(2));
    let noticed = noticed(lab, node) - before;
    let report = load.finish()?;
    println!(
        "{what} on {}: after {handed_over:.0?}, ready after {ready:.0?}; {} of {} connections broken ({held} were on it, \
         {} told to close), {} of {} new ones lost, {} slow; the peers noticed {noticed} changes of its state",
        node.name(),
        report.hold.broken(|_| true),
        report.hold.held.len(),
        report.hold.closed(),
        report.steady.lost(),
        report.steady.sent(),
        report.steady.slow(),
    );
    ensure!(report.hold.broken(|_| true) == 0, "{:?}", report.hold.failures());
    ensure!(report.steady.lost() == 0, "{:?}", report.steady.losses());
    ensure!(noticed == 0, "the peers saw the node leave or come");
    Ok(())
}

/// The new daemon dies before it has taken over: the old one serves on, has its admin address back and hands over to the
/// next.
fn a_successor_that_fails() -> Result<()> {
    fail("a successor died", &Lab::builder("nohandover").nodes(1).build()?, |node| {
        let old = node.launch_successor()?;
        load::wait_for("the old daemon to see the new one", PATIENCE, || {
            Ok(old.log().contains("has come to take over"))
        })?;
        node.kill_daemon();
        Ok(old)
    })
}

/// It finds no objects, but has replaced the pins of the old daemon's maps by those of its own, which nobody fills. The old
/// one's program goes on with the maps that it has, and the next daemon makes them anew.
fn one_with_another_map_layout_fails() -> Result<()> {
    let lab = Lab::builder("nolayout").nodes(1).build()?;
    fail("a successor with another map layout failed", &lab, |node| {
        swap_pins(node)?;
        let old = node.launch_successor_as(node.daemon_command_from("dir:/nowhere"))?;
        load::wait_for("the new daemon to fail", PATIENCE, || Ok(!node.is_running()))?;
        let log = node.daemon_log_tail();
        ensure!(log.contains("/nowhere"), "it failed otherwise: {log}");
        ensure!(node.bpffs().join("xdp-ingress/rebuilding").exists(), "it has made no maps");
        Ok(old)
    })?;
    ensure!(lab.node(0).daemon_log().contains("with new maps"), "the next one had the same maps");
    Ok(())
}

/// `fail_once` starts a daemon beside the node's, which it gives, and sees to it that the new one fails.
fn fail(what: &str, lab: &Lab, fail_once: impl Fn(&Node) -> Result<Process>) -> Result<()> {
    lab.serve_examples()?;
    let node = lab.node(0);
    let load = Load::start(lab, "foo.bar.com", "/bar", 20, 50)?;
    let mut old = fail_once(node)?;
    ensure!(!old.log().contains("handed over"), "the new daemon did not fail in time: {}", old.log_tail());
    load::wait_for("the admin address to be the old daemon's again", PATIENCE, || {
        Ok(node.metrics().is_ok_and(|text| text.contains("xdp_ingress_")))
    })?;
    node.start_daemon()?;
    load::wait_for("the old daemon to hand over", PATIENCE, || {
        Ok(old.log().contains("handed over: new connections"))
    })?;
    old.terminate()?;
    old.wait(PATIENCE)?;
    let report = load.finish()?;
    println!("{what}, the next one took over: {}", report.summary());
    ensure!(report.hold.broken(|_| true) == 0, "{:?}", report.hold.failures());
    ensure!(report.steady.lost() == 0, "{:?}", report.steady.losses());
    Ok(())
}
