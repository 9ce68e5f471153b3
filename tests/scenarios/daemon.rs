//! One daemon's life: killed and started again, started where it can't run, and a neighbour that nobody notices.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    Lab, Node,
    http::{self, Target},
    load::{HeldConnections, Load, SteadyRequests},
    topology::UPLINK,
};
use libtest_mimic::Trial;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("daemon::killed_and_started_again", killed_and_started_again),
        scenario("daemon::start_errors_are_one_sentence", start_errors_are_one_sentence),
        scenario("daemon::mounts_a_bpf_file_system_where_there_is_none", mounts_a_bpf_file_system),
        scenario("daemon::other_traffic_is_left_alone", other_traffic_is_left_alone),
    ]
}

fn attached(node: &Node) -> Result<bool> {
    Ok(node.host().output("ip", &["-d", "link", "show", "eth0"])?.contains("xdp"))
}

/// `kill -9`: the sockets of its router die with it, everybody else's traffic goes on, also the traffic that the dead
/// daemon's node forwards.
fn killed_and_started_again() -> Result<()> {
    let lab = Lab::builder("restart").build()?;
    lab.serve_examples()?;
    let node = lab.owner(lab.vips()[0])?;
    let load = Load::start(&lab, "foo.bar.com", "/bar", 120, 60)?;
    let event = Instant::now();
    node.kill_daemon();
    ensure!(attached(node)?, "the program was detached with its daemon");
    thread::sleep(Duration::from_secs(5));
    let meanwhile = load.report();
    let disturbed = meanwhile.steady.disturbed_after(event);
    let started = Instant::now();
    node.start_daemon()?;
    let back = load.wait_for_node(node, started, Duration::from_secs(5))?;
    let report = load.finish()?;
    println!(
        "daemon of the owner {} killed: new connections disturbed for {disturbed:.0?}; {} of its {} connections broke, \
         {} elsewhere; started again, it serves after {back:.0?}; {}",
        node.name(),
        report.broken_on(node),
        report.held_on(node),
        report.broken_elsewhere(Some(node)),
        report.summary()
    );
    ensure!(report.broken_elsewhere(Some(node)) == 0, "connections broke on healthy nodes");
    ensure!(disturbed < Duration::from_secs(1), "new connections were disturbed for {disturbed:?}");
    Ok(())
}

/// What the daemon says when it can't start: its exit code and the lines that it wrote.
fn failed_start(mut command: Command) -> Result<(i32, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It waits 20 s for the admin address of a daemon that is still ending.
    let end = Instant::now() + Duration::from_secs(40);
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("it runs, though it can't");
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    Ok((
        output.status.code().context("ended by a signal")?,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

fn start_errors_are_one_sentence() -> Result<()> {
    let lab = Lab::builder("errors").nodes(2).build()?;
    lab.declare_cluster()?;
    let node = lab.node(0);
    let check = |what: &str, command: Command, words: &[&str]| -> Result<()> {
        let (code, stderr) = failed_start(command).with_context(|| what.to_owned())?;
        let last = stderr.lines().last().unwrap_or_default();
        println!("{what}: exit {code}: {last}");
        ensure!(code != 0, "{what}: exit status 0: {stderr}");
        ensure!(words.iter().all(|word| last.contains(word)), "{what}: {stderr}");
        ensure!(!stderr.contains("panicked") && !stderr.contains("stack backtrace"), "{what}: {stderr}");
        ensure!(!attached(node)?, "{what}: a program is left on the interface");
        // The rest of the file system isn't ours alone: `ip`, which loads the switch's programs, leaves folders there.
        let pins = std::fs::read_dir(node.bpffs().join("xdp-ingress")).into_iter().flatten().count();
        ensure!(pins == 0, "{what}: {pins} pins are left; it said: {stderr}");
        let addresses = node.host().output("ip", &["addr", "show", "dev", "lo"])?;
        ensure!(!addresses.contains("10.77.0.100"), "{what}: the VIP is left on lo");
        Ok(())
    };
    check("no such interface", with(node, &[("--interface", "eth7")]), &["eth7"])?;

    let taken = node.host().run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9901")?))?;
    check("port taken", node.daemon_command(), &["9901"])?;
    drop(taken);

    // `nsenter` itself needs the rights: they are dropped behind it.
    let daemon = node.daemon_command();
    let words: Vec<_> = daemon.get_args().collect();
    let mut unprivileged = Command::new(daemon.get_program());
    unprivileged
        .args(&words[..2])
        .args(["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
        .args(&words[2..]);
    check("no rights", unprivileged, &["CAP_"])?;

    // Whoever has the interface first keeps it; that it is another daemon of ours makes no difference.
    node.start_daemon()?;
    let (pins, state) = (node.bpffs().join("second"), lab.dir().join("second"));
    let second = [
        ("--pin-path", &*pins.to_string_lossy()),
        ("--state-dir", &*state.to_string_lossy()),
        ("--admin", "127.0.0.1:9902"),
        ("--membership-port", "7948"),
    ];
    let (code, stderr) = failed_start(with(node, &second))?;
    let last = stderr.lines().last().unwrap_or_default();
    println!("another program attached: exit {code}: {last}");
    ensure!(code != 0 && last.contains(UPLINK) && last.contains("XDP program"), "{stderr}");
    ensure!(node.is_running() && attached(node)?, "the first daemon was disturbed");
    lab.node(1).start_daemon()?;
    Ok(())
}

/// On a node without one. The daemon has a mount namespace of its own, so that nothing of it is left; without the right to
/// mount, as in a container, it says what to do.
fn mounts_a_bpf_file_system() -> Result<()> {
    const PLACE: &str = "/sys/fs/bpf";
    let lab = Lab::builder("nobpffs").nodes(2).build()?;
    lab.declare_cluster()?;
    let node = lab.node(0);
    let without = |rights: &str| {
        let daemon = with(node, &[("--pin-path", "/sys/fs/bpf/xdp-ingress")]);
        let words: Vec<_> = daemon.get_args().map(ToOwned::to_owned).collect();
        // `nsenter` first: it needs the rights.
        let mut command = Command::new(daemon.get_program());
        command
            .args(&words[..2])
            .args(["unshare", "--mount", "--propagation", "private", "--", "sh", "-c"])
            .arg(format!("mount -t tmpfs none {PLACE} && exec {rights} \"$@\""))
            .arg("sh")
            .args(&words[2..]);
        command
    };
    let (code, stderr) = failed_start(without("setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin"))?;
    let last = stderr.lines().last().unwrap_or_default();
    println!("no BPF file system, and no right to mount one: exit {code}: {last}");
    ensure!(code != 0 && last.contains("no BPF file system") && last.contains("mount -t bpf"), "{stderr}");
    ensure!(!attached(node)?, "a program is left on the interface");

    node.launch(without(""))?;
    node.wait_until_ready()?;
    let process = format!("/proc/{}", node.daemon_id().context("no daemon")?);
    let mounts = std::fs::read_to_string(format!("{process}/mounts"))?;
    ensure!(mounts.lines().any(|line| line.contains(&format!(" {PLACE} bpf "))), "not mounted: {mounts}");
    let pins = std::fs::read_dir(format!("{process}/root{PLACE}/xdp-ingress"))?.count();
    ensure!(pins > 0 && attached(node)?, "{pins} pins");
    node.begin_stop()?;
    node.wait_stopped(Duration::from_secs(25)).map(drop)
}

/// The daemon's command line with other values for some flags.
pub(super) fn with(node: &Node, values: &[(&str, &str)]) -> Command {
    let daemon = node.daemon_command();
    let mut words: Vec<OsString> = daemon.get_args().map(ToOwned::to_owned).collect();
    for (flag, value) in values {
        match words.iter().position(|word| word == flag) {
            Some(at) => words[at + 1] = value.into(),
            None => words.extend([flag.into(), value.into()]),
        }
    }
    let mut command = Command::new(daemon.get_program());
    command.args(words);
    command
}

/// TCP to the node's own address, ICMP, and what the node asks for itself: as without us.
fn other_traffic_is_left_alone() -> Result<()> {
    let lab = Lab::builder("others").nodes(2).build()?;
    let client = lab.client(0);
    let node = lab.node(0);
    let target = |index: usize| Target {
        address: (node.addresses()[index], 2222).into(),
        host: "ssh".to_owned(),
        path: "/".to_owned(),
    };
    let mut server = node.host().command(std::env::current_exe()?);
    server.env("XDP_INGRESS_LAB_ECHO", "ssh node1 2222");
    let _server = node.host().spawn("ssh", server)?;
    let reach = |target: &Target| client.run(|| Ok(http::get(target, Duration::from_secs(2))?.echo()?.peer));
    thread::sleep(Duration::from_millis(300));
    reach(&target(0))?;
    let held = HeldConnections::start(client, &target(0), 20, Duration::from_millis(100))?;
    let held6 = HeldConnections::start(client, &target(1), 20, Duration::from_millis(100))?;
    let steady = SteadyRequests::start(client, &target(0), 50);
    lab.serve_examples()?;
    for address in node.addresses() {
        client.output("ping", &["-c", "3", "-i", "0.1", "-W", "1", &address.to_string()])?;
        lab.node(1).host().output("ping", &["-c", "3", "-i", "0.1", "-W", "1", &address.to_string()])?;
    }
    let peer = client.run(|| Ok(http::get(&target(1), Duration::from_secs(2))?.echo()?.peer))?;
    ensure!(Some(peer) == client.address_like(peer), "{peer}");
    node.begin_stop()?;
    node.wait_stopped(Duration::from_secs(25))?;
    thread::sleep(Duration::from_millis(500));
    let (held, held6, steady) = (held.finish()?, held6.finish()?, steady.finish()?);
    println!(
        "other traffic through start and stop: {} of {} requests lost, {} of 40 connections broken",
        steady.lost(),
        steady.sent(),
        held.broken(|_| true) + held6.broken(|_| true)
    );
    ensure!(steady.lost() == 0 && steady.slow() == 0, "{:?}", steady.losses());
    ensure!(
        held.broken(|_| true) + held6.broken(|_| true) == 0,
        "{:?} {:?}",
        held.failures(),
        held6.failures()
    );
    Ok(())
}
