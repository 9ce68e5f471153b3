//! A node's front through its life: restarted, upgraded to another map layout, drained by what Kubernetes says of the
//! node, and taken off again. Packets that are lost on the way are counted, not only connections that break.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::{
    lab::{
        Host, Lab, Node,
        http::Target,
        load::{self, HeldConnections, HoldReport, Load},
    },
    paths,
};
use libtest_mimic::Trial;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("lifecycle::a_restart_loses_no_packet", a_restart_loses_no_packet),
        scenario("lifecycle::another_map_layout_loses_no_packet", another_map_layout_loses_no_packet),
        scenario("lifecycle::cordon_and_the_exclude_label_drain", cordon_and_the_exclude_label_drain),
        scenario("lifecycle::cleanup_leaves_nothing", cleanup_leaves_nothing),
        scenario("lifecycle::top_shows_rates", top_shows_rates),
    ]
}

/// A counter of the host's `/proc/net/snmp` or `/proc/net/netstat`: a line of names, then one of values.
fn counter(host: &Host, file: &str, group: &str, name: &str) -> Result<u64> {
    let text = host.output("cat", &[file])?;
    let mut lines = text.lines().filter(|line| line.starts_with(group)).map(str::split_whitespace);
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let found = names.zip(values).find(|(found, _)| *found == name).map(|(_, value)| value.parse());
    Ok(found.with_context(|| format!("{group} {name} in {file}"))??)
}

/// TCP segments that the host had to send again because they never arrived: all retransmissions but those of which
/// the receiver says that it had the segment already (a busy machine's timers are early).
fn lost_segments(host: &Host) -> Result<i64> {
    let netstat = |name| counter(host, "/proc/net/netstat", "TcpExt:", name);
    let retransmitted = counter(host, "/proc/net/snmp", "Tcp:", "RetransSegs")?;
    let needless = netstat("TCPDSACKRecv")? + netstat("TCPDSACKOfoRecv")?;
    Ok(i64::try_from(retransmitted)? - i64::try_from(needless)?)
}

fn a_restart_loses_no_packet() -> Result<()> {
    let lab = Lab::builder("noloss").clients(2).build()?;
    restart(&lab, "restarted", |_| Ok(()))
}

/// The pinned maps are swapped for others: what a daemon of another version leaves. Its program runs on with the maps
/// that it has, whatever their pins say, and is there until the new daemon's maps are filled.
fn another_map_layout_loses_no_packet() -> Result<()> {
    let lab = Lab::builder("layout").clients(2).build()?;
    restart(&lab, "upgraded to another map layout", swap_pins)?;
    let node = lab.nodes().iter().find(|node| node.daemon_log().contains("with new maps"));
    ensure!(node.is_some(), "no daemon took over with new maps");
    Ok(())
}

/// The pins of some maps are those of others.
pub(super) fn swap_pins(node: &Node) -> Result<()> {
    let pins = node.bpffs().join("xdp-ingress");
    for (from, to) in [("COUNTERS", "CONFIG"), ("HEARTBEAT", "NODES")] {
        fs::remove_file(pins.join(to)).with_context(|| format!("removing the pin {to}"))?;
        fs::rename(pins.join(from), pins.join(to)).with_context(|| format!("renaming the pin {from}"))?;
    }
    Ok(())
}

/// Kills the owner's daemon while its program forwards held connections to the other nodes, and starts it again.
fn restart(lab: &Lab, what: &str, meanwhile: impl Fn(&Node) -> Result<()>) -> Result<()> {
    lab.serve_examples()?;
    let vip = lab.vips()[0];
    let node = lab.owner(vip)?;
    let target = Target::new(vip, "foo.bar.com", "/bar");
    let held = HeldConnections::start(lab.client(1), &target, 150, Duration::from_millis(20))?;
    let elsewhere = |held: &HoldReport| {
        held.count(|address| address.is_some_and(|address| !node.addresses().contains(&address)))
    };
    let lost_before = lost_segments(lab.client(1))?;
    node.kill_daemon();
    meanwhile(node)?;
    // Short enough for the others not to take its VIP away: packets go through it all the time.
    node.start_daemon()?;
    thread::sleep(Duration::from_secs(3));
    let report = held.finish()?;
    let lost = lost_segments(lab.client(1))? - lost_before;
    let broken = report.broken(|address| !address.is_some_and(|address| node.addresses().contains(&address)));
    println!(
        "the owner {} {what}: {lost} packets lost, {broken} of {} connections on other nodes broke, {} requests in all",
        node.name(),
        elsewhere(&report),
        report.responses(),
    );
    ensure!(elsewhere(&report) > 20, "too few connections went through the node");
    ensure!(broken == 0 && lost <= 0, "{broken} broken, {lost} packets lost: {:?}", report.failures());
    let shown = node.status()?;
    ensure!(shown["l4"]["interfaces"][0]["is_adopted"] == true, "{:#}", shown["l4"]["interfaces"]);
    ensure!(!node.bpffs().join("xdp-ingress/rebuilding").exists(), "the takeover was not completed");
    Ok(())
}

fn cordon_and_the_exclude_label_drain() -> Result<()> {
    let lab = Lab::builder("cordon").build()?;
    lab.serve_examples()?;
    let load = Load::start(&lab, "foo.bar.com", "/bar", 120, 60)?;
    let node = lab.node(1);
    let object = fs::read_to_string(lab.manifests().dir().join(format!("{}.yaml", node.name())))?;
    let label = "labels: {node.kubernetes.io/exclude-from-external-load-balancers: \"\", ";
    for (what, changed) in [
        ("cordoned", object.replace("spec: {}", "spec: {unschedulable: true}")),
        ("excluded by its label", object.replace("labels: {", label)),
    ] {
        ensure!(changed != object, "the lab's Node object has another form");
        let held = load.report().held_on(node);
        let drained = Instant::now();
        lab.manifests().write(node.name(), &changed)?;
        thread::sleep(Duration::from_secs(3));
        let last = load.report().last_new_on(node, drained);
        let state = lab.node(0).status()?["l4"]["nodes"][1]["state"].clone();
        let back = Instant::now();
        lab.manifests().write(node.name(), &object)?;
        let live = load.wait_for_node(node, back, Duration::from_secs(5))?;
        println!(
            "{} {what}: {state}, the last new connection after {last:.0?}, {held} stay; back after {live:.0?}",
            node.name()
        );
        ensure!(held > 0 && state == "draining", "{held} held, state {state}");
        ensure!(last < Duration::from_secs(1), "{what}: new connections still came for {last:?}");
    }
    let report = load.finish()?;
    println!("cordoned, excluded, returned: {}", report.summary());
    ensure!(report.hold.broken(|_| true) == 0 && report.steady.lost() == 0, "{}", report.summary());
    Ok(())
}

/// What is in a directory; nothing if it isn't there.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn cleanup_leaves_nothing() -> Result<()> {
    let lab = Lab::builder("cleanup").nodes(2).build()?;
    let node = lab.node(0);
    let before = node.host().output("ip", &["-o", "addr", "show"])?;
    let arp_announce = || node.host().output("cat", &["/proc/sys/net/ipv4/conf/eth0/arp_announce"]);
    ensure!(arp_announce()?.trim() == "0", "the lab's uplinks ask in any name");
    lab.serve_examples()?;
    load::wait_for("ARP requests to name no VIPs", Duration::from_secs(10), || {
        Ok(arp_announce()?.trim() == "2")
    })?;
    let pins = node.bpffs().join("xdp-ingress");
    let cleanup = || {
        let mut command = node.host().command(paths::daemon());
        command.arg("cleanup").arg("--pin-path").arg(&pins).arg("--state-dir").arg(node.state_dir());
        command.output()
    };
    let refused = cleanup()?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && why.contains("stop it first"), "with a running daemon: {why}");
    node.begin_stop()?;
    node.wait_stopped(Duration::from_secs(25))?;
    ensure!(names(&pins).len() > 10, "the pins went with the daemon: {:?}", names(&pins));
    let done = cleanup()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let after = node.host().output("ip", &["-o", "addr", "show"])?;
    let link = node.host().output("ip", &["-d", "link", "show", "eth0"])?;
    println!(
        "cleanup: {} pins left, program attached: {}, addresses as before: {}, files in the state directory: {:?}",
        names(&pins).len(),
        link.contains("prog/xdp"),
        before == after,
        names(node.state_dir())
    );
    ensure!(!pins.exists() && names(node.state_dir()).is_empty(), "{:?}", names(&pins));
    ensure!(!link.contains("prog/xdp"), "{link}");
    ensure!(arp_announce()?.trim() == "0", "arp_announce is not what it was");
    ensure!(before == after, "addresses before:\n{before}\nafter:\n{after}");
    // Again, where nothing is: fine. And the other node serves.
    ensure!(cleanup()?.status.success(), "a second cleanup failed");
    lab.wait_until_served(lab.vips()[0])?;
    Ok(())
}

fn top_shows_rates() -> Result<()> {
    let lab = Lab::builder("top").nodes(2).build()?;
    lab.serve_examples()?;
    let load = Load::start(&lab, "foo.bar.com", "/bar", 20, 100)?;
    let mut row = String::new();
    // The VIP may still be on its way from the node that was up first.
    load::wait_for("top to show the VIP's owner and its rates", Duration::from_secs(15), || {
        let owner = lab.owner(lab.vips()[0])?;
        let text = owner.ask(&["top", "--once", "--interval", "1"])?;
        for heading in ["XDP front: ", "VIP ", "NODE ", "VERDICT ", "local_new"] {
            ensure!(text.lines().any(|line| line.starts_with(heading)), "no {heading}: {text}");
        }
        let line = text.lines().find(|line| line.starts_with("10.77.0.100:80 ")).context("the VIP's row")?;
        line.clone_into(&mut row);
        let cells: Vec<&str> = row.split_whitespace().collect();
        let flows: f64 = cells.last().context("flows")?.parse()?;
        Ok(cells[1] == owner.name() && (20.0..=100.0).contains(&flows))
    })
    .with_context(|| format!("50 flows/s were made: {row}"))?;
    println!("{row}");
    load.finish().map(drop)
}
