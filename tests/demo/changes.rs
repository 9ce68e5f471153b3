//! Second half of the demo: under a steady load a node comes, the VIPs' owner drains and returns, an Ingress is
//! edited, a node is cut off without warning. Says what each change cost, and which promises it broke.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::table;
use crate::lab::{
    Lab, Node,
    http::Target,
    load::{self, Load, LoadReport, PATIENCE},
    manifests::TWO_HOSTS,
};

/// Held connections, over both IP versions; as many as half of them come with the fourth node.
const CONNECTIONS: usize = 200;
/// New connections per second, over both IP versions.
const RATE: u32 = 60;
/// For how long each change is watched.
const WATCH: Duration = Duration::from_secs(4);
/// A change must be live within this time, or the demo says that something is wrong.
const LIVE: Duration = Duration::from_secs(5);
/// New connections succeed again this soon after a node was cut off.
const FAILOVER: Duration = Duration::from_secs(1);

/// One change, when it began and what is known of it.
struct Change {
    what: String,
    began: Instant,
    live: Duration,
    /// The node that was cut off by it.
    dead: Option<usize>,
}

/// What the changes cost.
pub(super) struct Outcome {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    live: Duration,
    sent: usize,
    lost: usize,
    late: usize,
    held: usize,
    broken: usize,
    /// Of the connections of the node that was cut off: broken, all.
    died: Option<(usize, usize)>,
}

/// Makes the changes.
pub(super) fn run(lab: &mut Lab) -> Result<Outcome> {
    let mut load = Load::start(lab, "foo.bar.com", "/bar", CONNECTIONS, RATE)?;
    println!("  Load: {CONNECTIONS} established connections with 2 requests a second each, and {RATE} new");
    println!("  connections a second, over IPv4 and IPv6. A request is lost when it has no good answer in");
    println!(
        "  {PATIENCE:?}; a connection is broken when it ends otherwise than by \"Connection: close\".\n"
    );
    thread::sleep(Duration::from_secs(1));

    let mut changes = vec![add(lab, &load)?];
    load.hold_more(lab, "foo.bar.com", "/bar", CONNECTIONS / 2)?;
    changes.extend(drain_and_return(lab, &load)?);
    changes.push(edit(lab)?);
    let (cut, at) = cut_off(lab, &load)?;
    changes.push(cut);
    let report = load.finish()?;
    if let Some(cut) = changes.last_mut() {
        cut.live = report.steady.disturbed_after(at);
    }
    Ok(outcome(lab, &changes, &report))
}

fn say(text: &str) {
    println!("  {text}");
}

fn after(time: Duration) -> String {
    if time.is_zero() { "at once".to_owned() } else { format!("after {time:.0?}") }
}

fn add(lab: &mut Lab, load: &Load) -> Result<Change> {
    lab.add_node()?;
    let node = lab.node(lab.nodes().len() - 1);
    lab.declare_node(node)?;
    let began = Instant::now();
    node.start_daemon()?;
    let live = load.wait_for_node(node, began, LIVE)?;
    say(&format!(
        "{} joined: it serves new connections {live:.0?} after its daemon was started.",
        node.name()
    ));
    thread::sleep(WATCH);
    Ok(Change { what: format!("{} added", node.name()), began, live, dead: None })
}

/// Drains the node that answers for the first VIP: both its roles move.
fn drain_and_return(lab: &Lab, load: &Load) -> Result<[Change; 2]> {
    let vip = lab.vips()[0];
    let node = lab.owner(vip)?;
    let name = node.name();
    say(&format!("{name}$ xdp-ingress drain        (it is the one that answers for {vip})"));
    let began = Instant::now();
    node.drain()?;
    thread::sleep(WATCH);
    let report = load.report();
    let live = report.last_new_on(node, began);
    say(&format!(
        "    new connections go elsewhere {}; its {} established ones go on; {} answers now.",
        after(live),
        report.held_on(node),
        lab.answers_for(vip)?.name()
    ));
    let drained =
        Change { what: format!("{name} drained, which answered for {vip}"), began, live, dead: None };
    say(&format!("{name}$ xdp-ingress undrain"));
    let began = Instant::now();
    node.undrain()?;
    let live = load.wait_for_node(node, began, LIVE)?;
    say(&format!("    it serves new connections again after {live:.0?}."));
    thread::sleep(WATCH / 2);
    Ok([drained, Change { what: format!("{name} returned"), began, live, dead: None }])
}

fn edit(lab: &Lab) -> Result<Change> {
    say("Ingress two-hosts edited: app.test.com → service2:8080");
    let target = Target::new(lab.vips()[0], "app.test.com", "/");
    let began = Instant::now();
    lab.manifests().write("two-hosts", &TWO_HOSTS.replacen("service1", "service2", 1))?;
    let live = load::until(lab.client(0), &target, began, LIVE, |answer| {
        let echo = answer.as_ref().ok().and_then(|response| response.echo().ok());
        echo.is_some_and(|echo| echo.pod.starts_with("service2-"))
    })?;
    say(&format!(
        "    the first request to the new backend was answered {live:.1?} after the file was written."
    ));
    thread::sleep(WATCH / 2);
    Ok(Change { what: "Ingress edited".to_owned(), began, live, dead: None })
}

/// Cuts the added node off: no EndpointSlice names its pods, so that only its role in front is lost.
fn cut_off(lab: &Lab, load: &Load) -> Result<(Change, Instant)> {
    let index = lab.nodes().len() - 1;
    let node = lab.node(index);
    let held = load.report().held_on(node);
    say(&format!(
        "{} is cut off and its daemon killed, without warning; it serves {held} connections.",
        node.name()
    ));
    let began = Instant::now();
    node.crash()?;
    thread::sleep(PATIENCE + WATCH / 2);
    let what = format!("{} cut off", node.name());
    Ok((Change { what, began, live: Duration::ZERO, dead: Some(index) }, began))
}

fn outcome(lab: &Lab, changes: &[Change], report: &LoadReport) -> Outcome {
    let end = Instant::now();
    let dead = changes.iter().find_map(|change| change.dead).map(|index| lab.node(index));
    let rows = changes.iter().enumerate().map(|(index, change)| {
        let until = changes.get(index + 1).map_or(end, |next| next.began);
        let steady = report.steady.between(change.began, until);
        let broken = report.broken_between(change.began, until);
        let on_dead = |node: &Node| broken.broken_on(node);
        let died = dead.filter(|_| change.dead.is_some());
        Row {
            what: change.what.clone(),
            live: change.live,
            sent: steady.sent(),
            lost: steady.lost(),
            late: steady.slow(),
            held: report.hold.held.len() - died.map_or(0, |node| report.held_on(node)),
            broken: broken.hold.broken(|_| true) - died.map_or(0, on_dead),
            died: died.map(|node| (report.broken_on(node), report.held_on(node))),
        }
    });
    Outcome { rows: rows.collect() }
}

impl Outcome {
    pub(super) fn table(&self) -> String {
        let header = ["change", "live after", "requests lost", "late", "connections broken"];
        let rows = self.rows.iter().map(|row| {
            let mut broken = format!("{} of {}", row.broken, row.held);
            if let Some((died, all)) = row.died {
                broken = format!("{broken} elsewhere, {died} of {all} on it");
            }
            let lost = format!("{} of {}", row.lost, row.sent);
            vec![row.what.clone(), after(row.live).replace("after ", ""), lost, row.late.to_string(), broken]
        });
        table::render(&header, &rows.collect::<Vec<_>>())
            + "  Live after: until the first request was served the new way; for a node that drained or was cut\n  \
               off, until the last new connection that it disturbed. Late: answered, but after more than 0.9 s.\n"
    }

    pub(super) fn promises_kept(&self) -> bool {
        self.broken_promises().is_empty()
    }

    /// In words.
    pub(super) fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for row in &self.rows {
            if row.broken > 0 {
                broken.push(format!(
                    "{}: {} established connections on healthy nodes broke",
                    row.what, row.broken
                ));
            }
            if row.died.is_none() && row.lost > 0 {
                broken.push(format!("{}: {} requests were lost", row.what, row.lost));
            }
            if row.died.is_some() && row.live > FAILOVER {
                broken.push(format!("{}: new connections were disturbed for {:.0?}", row.what, row.live));
            }
        }
        broken
    }
}
