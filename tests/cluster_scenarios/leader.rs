//! Who writes statuses: two plain routers with the rights of `deploy/manifests`, of which one is paused, resumed and
//! stopped while Ingresses come and go.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::{
    lab::{load, manifests::TWO_HOSTS, process::Process},
    paths,
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    scenario,
    world::{ACCOUNT, LIVE, World},
};

/// The Ingress of `TWO_HOSTS`.
const INGRESS: &str = "two-hosts";
/// An Ingress that comes while the leader is paused.
const LATE: &str = r"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: late, namespace: default}
spec:
  ingressClassName: xdp
  defaultBackend: {service: {name: service1, port: {number: 8080}}}
";
/// A Lease lasts 15 seconds from when the other candidate saw it renewed; it looks every five or six seconds.
const TAKEOVER: Duration = Duration::from_secs(30);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("leader::a_paused_leader_writes_nothing", one_writer),
        scenario("leader::a_clock_that_jumps_changes_nothing", clock_jumps),
    ]
}

/// What the daemon needs, and what it would be dangerous to have.
const RIGHTS: &[(&[&str], &str)] = &[
    (&["list", "secrets", "--all-namespaces"], "yes"),
    (&["watch", "endpointslices.discovery.k8s.io", "--all-namespaces"], "yes"),
    (&["patch", "ingresses.networking.k8s.io", "--subresource=status"], "yes"),
    (&["patch", "addresspools.xdp-ingress.io", "--subresource=status"], "yes"),
    (&["patch", "addresspools.xdp-ingress.io"], "no"),
    (&["create", "events.events.k8s.io"], "yes"),
    (&["create", "leases.coordination.k8s.io", "--namespace=xdp-ingress"], "yes"),
    (&["update", "leases.coordination.k8s.io/xdp-ingress", "--namespace=xdp-ingress"], "yes"),
    (&["update", "leases.coordination.k8s.io/other", "--namespace=xdp-ingress"], "no"),
    (&["create", "leases.coordination.k8s.io", "--namespace=kube-system"], "no"),
    (&["patch", "ingresses.networking.k8s.io"], "no"),
    (&["create", "pods"], "no"),
    (&["patch", "nodes"], "no"),
    (&["update", "secrets"], "no"),
    (&["delete", "services"], "no"),
];

fn one_writer() -> Result<()> {
    let world = World::start("kleader", 1)?;
    for (question, expected) in RIGHTS {
        let question = [&["auth", "can-i", "--as", ACCOUNT], *question].concat();
        // `no` is also its exit status.
        let answer = world.cluster.kubectl(&question).unwrap_or_else(|_| "no".to_owned());
        ensure!(answer.trim() == *expected, "{}: {answer}", question.join(" "));
    }
    let kubeconfig = world.account()?;
    let mut daemons =
        vec![Some(start(&world, "a", 9911, &kubeconfig)?), Some(start(&world, "b", 9912, &kubeconfig)?)];
    world.apply(TWO_HOSTS)?;
    let logs = |daemons: &[Option<Process>]| {
        daemons.iter().flatten().map(Process::log_tail).collect::<Vec<_>>().join("\n")
    };
    let vip = world.vip()?.to_string();
    let shown = |name: &str| Ok(addresses(&world.get("ingress", name)?).contains(&vip));
    load::wait_for("the first status", LIVE, || shown(INGRESS)).with_context(|| logs(&daemons))?;

    let first = holder(&world)?;
    let second = 1 - first;
    signal(&daemons, first, Signal::STOP)?;
    let paused = Instant::now();
    world.apply(LATE)?;
    load::wait_for("the other one's first status", TAKEOVER, || shown("late"))
        .with_context(|| logs(&daemons))?;
    println!("kleader: a paused leader was replaced after {:.1} s", paused.elapsed().as_secs_f64());
    ensure!(holder(&world)? == second, "the other one leads");

    // What it would still write when it wakes up: an address that it has not seen taken away.
    world.cluster.kubectl(&["delete", "ingress", "late", "--namespace=default"])?;
    let before = world.get("ingress", INGRESS)?["metadata"]["resourceVersion"].clone();
    signal(&daemons, first, Signal::CONT)?;
    thread::sleep(Duration::from_secs(3));
    let log = daemons[first].as_ref().map(Process::log).unwrap_or_default();
    let after = log.split("the Lease was not renewed in time").nth(1);
    let after = after.context("the paused one has not noticed")?;
    ensure!(!after.contains("status: written"), "it wrote: {log}");
    ensure!(world.get("ingress", INGRESS)?["metadata"]["resourceVersion"] == before, "somebody wrote");
    ensure!(holder(&world)? == second, "the other one still leads");

    // An Ingress that leaves our class loses what we wrote.
    world.cluster.kubectl(&[
        "patch",
        "ingress",
        INGRESS,
        "--namespace=default",
        "--type=merge",
        "--patch",
        r#"{"spec":{"ingressClassName":"another"}}"#,
    ])?;
    load::wait_for("an empty status", LIVE, || Ok(addresses(&world.get("ingress", INGRESS)?).is_empty()))
        .with_context(|| logs(&daemons))?;

    // One that is stopped gives the Lease back.
    let stopped = Instant::now();
    if let Some(mut leader) = daemons[second].take() {
        leader.terminate()?;
        leader.wait(Duration::from_secs(10))?;
    }
    load::wait_for("the Lease in the other one's hands", TAKEOVER, || {
        Ok(holder(&world).is_ok_and(|leader| leader == first))
    })?;
    println!("kleader: a stopped leader was replaced after {:.1} s", stopped.elapsed().as_secs_f64());
    ensure!(stopped.elapsed() < Duration::from_secs(12), "the Lease was not released");
    Ok(())
}

/// Leads with a clock that somebody sets while it runs.
fn clock_jumps() -> Result<()> {
    let world = World::start("kclock", 1)?;
    let kubeconfig = world.account()?;
    let clock = world.lab.dir().join("clock");
    fs::write(&clock, "+0")?;
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    let mut command = command(&world, "a", 9911, &kubeconfig);
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        // Setting a machine's clock moves no other one.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut daemons = vec![Some(world.lab.client(1).spawn("leader-a", command)?)];
    world.apply(TWO_HOSTS)?;
    let vip = world.vip()?.to_string();
    let shown = |name: &str| Ok(addresses(&world.get("ingress", name)?).contains(&vip));
    load::wait_for("the first status", LIVE, || shown(INGRESS))?;
    daemons.push(Some(start(&world, "b", 9912, &kubeconfig)?));

    let before = lease(&world)?;
    for (set, name) in [("+40d", "later"), ("-40d", "earlier")] {
        fs::write(&clock, set)?;
        // Both renew it, or look at it, several times; and what the leader writes is dated as its clock has it.
        let renewed = || -> Result<Value> { Ok(lease(&world)?["spec"]["renewTime"].clone()) };
        let mut last = renewed()?;
        for _ in 0..2 {
            load::wait_for("the Lease to be renewed", LIVE, || Ok(renewed()? != last))?;
            last = renewed()?;
        }
        world.apply(&LATE.replace("name: late", &format!("name: {name}")))?;
        load::wait_for("the status of a new Ingress", LIVE, || shown(name))?;
        let now = lease(&world)?;
        println!("kclock: with the leader's clock at {set} the Lease says {}", now["spec"]["renewTime"]);
        for field in ["holderIdentity", "leaseTransitions", "acquireTime"] {
            ensure!(now["spec"][field] == before["spec"][field], "{field}: {now}");
        }
    }
    ensure!(daemons.iter_mut().flatten().all(|daemon| daemon.ended().is_none()), "one ended");
    Ok(())
}

fn start(world: &World, name: &str, port: u16, kubeconfig: &Path) -> Result<Process> {
    world.lab.client(1).spawn(&format!("leader-{name}"), command(world, name, port, kubeconfig))
}

fn command(world: &World, name: &str, port: u16, kubeconfig: &Path) -> Command {
    let host = world.lab.client(1);
    let state = world.lab.dir().join(format!("leader-{name}"));
    let mut command: Command = host.command(paths::daemon());
    command
        .args(["run", "--source=kubernetes", "--l4=off", "--grace-period=1s", "--workers=1"])
        .arg(format!("--node-name={name}"))
        .arg(format!("--admin={}:{port}", Ipv4Addr::LOCALHOST))
        .arg(format!("--http={}:{}", Ipv4Addr::LOCALHOST, port + 100))
        .arg("--state-dir")
        .arg(state)
        .arg("--kubeconfig")
        .arg(kubeconfig);
    command
}

fn lease(world: &World) -> Result<Value> {
    let lease = ["get", "lease", "xdp-ingress", "--namespace=xdp-ingress", "--output=json"];
    Ok(serde_json::from_str(&world.cluster.kubectl(&lease)?)?)
}

/// Which daemon holds the Lease.
fn holder(world: &World) -> Result<usize> {
    let holder = lease(world)?["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    ["a_", "b_"].iter().position(|name| holder.starts_with(name)).context("nobody holds the Lease")
}

fn addresses(ingress: &Value) -> Vec<String> {
    let entries = ingress["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    entries.iter().filter_map(|entry| entry["ip"].as_str().map(str::to_owned)).collect()
}

fn signal(daemons: &[Option<Process>], which: usize, signal: Signal) -> Result<()> {
    let process = daemons[which].as_ref().context("it was stopped")?;
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("a process number")?;
    Ok(kill_process(pid, signal)?)
}
