//! Nodes come, drain, return and die under load: what users notice. On healthy nodes no established connection breaks
//! and no request is lost; a dead node takes only its own connections with it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ingress_tests::lab::{
    Lab, Node,
    load::{Load, LoadReport},
};
use libtest_mimic::Trial;

use super::scenario;

/// Held connections and new ones per second, over both IP versions together.
const CONNECTIONS: usize = 200;
const RATE: u32 = 60;
/// How long a change may take until new connections follow it.
pub(super) const LIVE: Duration = Duration::from_secs(5);
/// New connections succeed again this soon after a node's death.
const FAILOVER: Duration = Duration::from_secs(1);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("membership::a_node_is_added", a_node_is_added),
        scenario("membership::a_node_drains_and_returns", a_node_drains_and_returns),
        scenario("membership::the_owner_drains", the_owner_drains),
        scenario("membership::the_owner_is_stopped", the_owner_is_stopped),
        scenario("membership::a_node_dies", a_node_dies),
        scenario("membership::the_owner_dies", the_owner_dies),
    ]
}

pub(super) fn load(lab: &Lab) -> Result<Load> {
    Load::start(lab, "foo.bar.com", "/bar", CONNECTIONS, RATE)
}

/// Nothing was noticed.
pub(super) fn unharmed(what: &str, lab: &Lab, report: &LoadReport) -> Result<()> {
    println!("{what}: {}", report.summary());
    if report.hold.broken(|_| true) > 0 {
        explain(lab, report);
    }
    ensure!(report.hold.broken(|_| true) == 0, "{what}: connections broke: {:?}", report.hold.failures());
    ensure!(report.steady.lost() == 0, "{what}: requests were lost: {:?}", report.steady.losses());
    Ok(())
}

/// For whoever looks for the cause: which nodes lost connections, and what each one's program did.
pub(super) fn explain(lab: &Lab, report: &LoadReport) {
    for node in lab.nodes() {
        let reasons = node.status().map(|status| status["l4"]["reasons"].to_string());
        println!(
            "  {}: {} of {} broke; verdicts {}",
            node.name(),
            report.broken_on(node),
            report.held_on(node),
            reasons.unwrap_or_else(|error| error.to_string())
        );
    }
}

fn a_node_is_added() -> Result<()> {
    let mut lab = Lab::builder("add").build()?;
    lab.serve_examples()?;
    let load = load(&lab)?;
    lab.add_node()?;
    let node = lab.node(3);
    lab.declare_node(node)?;
    let started = Instant::now();
    node.start_daemon()?;
    let live = load.wait_for_node(node, started, LIVE)?;
    thread::sleep(Duration::from_secs(2));
    println!("a node added: it serves new connections {live:.0?} after its daemon was started");
    unharmed("a node added", &lab, &load.finish()?)
}

fn a_node_drains_and_returns() -> Result<()> {
    let lab = Lab::builder("drain").build()?;
    lab.serve_examples()?;
    let load = load(&lab)?;
    let owners = lab.vips().into_iter().map(|vip| lab.owner(vip)).collect::<Result<Vec<_>>>()?;
    let bystander = lab.nodes().iter().find(|node| owners.iter().all(|owner| owner.name() != node.name()));
    let node = bystander.unwrap_or(lab.node(1));
    let drained = Instant::now();
    node.drain()?;
    thread::sleep(Duration::from_secs(2));
    let meanwhile = load.report();
    let last = meanwhile.last_new_on(node, drained);
    let held = meanwhile.held_on(node);
    let returned = Instant::now();
    node.undrain()?;
    let live = load.wait_for_node(node, returned, LIVE)?;
    println!("{} drained: the last new connection after {last:.0?}; back: {live:.0?}", node.name());
    ensure!(held > 0, "{} held no connection before it drained", node.name());
    ensure!(last < Duration::from_secs(1), "new connections went to the draining node for {last:?}");
    unharmed("drained and returned", &lab, &load.finish()?)
}

fn the_owner_drains() -> Result<()> {
    let lab = Lab::builder("ownerdrain").build()?;
    lab.serve_examples()?;
    let load = load(&lab)?;
    let vip = lab.vips()[0];
    let owner = lab.owner(vip)?;
    owner.drain()?;
    thread::sleep(Duration::from_secs(3));
    let heir = lab.answers_for(vip)?;
    println!("the owner {} drained; now {} answers for {vip}", owner.name(), heir.name());
    ensure!(heir.name() != owner.name(), "the draining owner still answers");
    unharmed("the owner drained", &lab, &load.finish()?)
}

/// `SIGTERM`: the daemon gives the VIP away, lets its connections end in good order, and goes.
fn the_owner_is_stopped() -> Result<()> {
    let lab = Lab::builder("ownerstop").build()?;
    lab.serve_examples()?;
    let load = load(&lab)?;
    let vip = lab.vips()[0];
    let owner = lab.owner(vip)?;
    owner.begin_stop()?;
    let status = owner.wait_stopped(Duration::from_secs(25))?;
    thread::sleep(Duration::from_secs(1));
    let heir = lab.answers_for(vip)?;
    println!("the owner {} stopped ({status}); now {} answers for {vip}", owner.name(), heir.name());
    ensure!(status.success() && heir.name() != owner.name(), "{status}, {} answers", heir.name());
    let report = load.finish()?;
    println!("closed in good order: {}", report.hold.closed());
    unharmed("the owner stopped", &lab, &report)
}

fn a_node_dies() -> Result<()> {
    let lab = Lab::builder("kill").nodes(4).build()?;
    dies(&lab, |lab| {
        let owners = lab.vips().into_iter().map(|vip| lab.owner(vip)).collect::<Result<Vec<_>>>()?;
        let node = lab.nodes().iter().find(|node| owners.iter().all(|owner| owner.name() != node.name()));
        Ok(node.unwrap_or(lab.node(3)))
    })
}

fn the_owner_dies() -> Result<()> {
    let lab = Lab::builder("ownerkill").nodes(4).build()?;
    dies(&lab, |lab| lab.owner(lab.vips()[0]))
}

/// The node that `choose` names dies: its own connections break, no other, and new ones are good again soon.
pub(super) fn dies(lab: &Lab, choose: impl Fn(&Lab) -> Result<&Node>) -> Result<()> {
    lab.serve_examples()?;
    let node = choose(lab)?;
    // Its pods would die with it, and that is the router's matter; here the front is looked at.
    for service in ["service1", "service2"] {
        let pods: Vec<_> = lab.pods_of(service).filter(|pod| pod.node() != node.name()).collect();
        lab.declare_endpoints(service, &pods)?;
    }
    let load = load(lab)?;
    let event = Instant::now();
    node.crash()?;
    thread::sleep(Duration::from_secs(7));
    let report = load.finish()?;
    let disturbed = report.steady.disturbed_after(event);
    println!(
        "{} died: {} of its {} connections broke, {} elsewhere; new ones disturbed for {disturbed:.0?}; {}",
        node.name(),
        report.broken_on(node),
        report.held_on(node),
        report.broken_elsewhere(Some(node)),
        report.summary()
    );
    ensure!(report.held_on(node) > 0, "the dead node served nobody: nothing was shown");
    ensure!(report.broken_elsewhere(Some(node)) == 0, "connections broke on healthy nodes");
    ensure!(disturbed < FAILOVER, "new connections were disturbed for {disturbed:?}");
    Ok(())
}
