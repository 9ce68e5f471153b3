//! The lab itself, without the product: hosts reach each other, and load clients count what is broken on purpose. A
//! zero in the other scenarios means something only because of these.

use std::{
    env, fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    Host, Lab, Node,
    echo::Echo,
    http::{Failure, Target},
    load::{self, HeldConnections, PATIENCE, SteadyRequests},
};
use libtest_mimic::Trial;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("instruments::hosts_reach_each_other", hosts_reach_each_other),
        scenario("instruments::broken_connections_are_counted", broken_connections_are_counted),
        scenario("instruments::lost_requests_are_counted", lost_requests_are_counted),
        scenario("instruments::leftovers_of_a_killed_run_are_removed", leftovers_are_removed),
    ]
}

/// Routes from the client straight to the pods, which no scenario with the product has.
fn route_to_pods(lab: &Lab, client: &Host) -> Result<()> {
    for (index, node) in lab.nodes().iter().enumerate() {
        let (v4, v6) = (node.addresses()[0], node.addresses()[1]);
        let net = index + 1;
        client
            .ip(&format!("route add 10.244.{net}.0/24 via {v4}\nroute add fd77:244:{net}::/64 via {v6}\n"))?;
    }
    Ok(())
}

fn hosts_reach_each_other() -> Result<()> {
    let lab = Lab::builder("reach").nodes(2).clients(2).build()?;
    let client = lab.client(1);
    route_to_pods(&lab, client)?;
    for pod in lab.nodes().iter().flat_map(Node::pods) {
        for address in pod.addresses() {
            let url = match address {
                std::net::IpAddr::V4(v4) => format!("http://{v4}:8080/a?b"),
                std::net::IpAddr::V6(v6) => format!("http://[{v6}]:8080/a?b"),
            };
            // From a client: its own address arrives. From a node: the node's, as everybody knows it.
            for host in [client, lab.node(0).host(), lab.node(1).host()] {
                let answer = host.output("curl", &["-sS", "--max-time", "5", "-H", "X-Test: 1", &url])?;
                let echo = Echo::parse(&answer)?;
                ensure!(echo.pod == pod.name(), "{url} from {}: {answer}", host.name());
                ensure!(
                    Some(echo.peer) == host.address_like(*address),
                    "{url} from {}: {answer}",
                    host.name()
                );
                ensure!(
                    echo.request == "GET /a?b HTTP/1.1" && echo.header("x-test") == Some("1"),
                    "{answer}"
                );
            }
        }
    }
    Ok(())
}

fn broken_connections_are_counted() -> Result<()> {
    const COUNT: usize = 100;
    let lab = Lab::builder("hold").nodes(3).pods_per_node(1).build()?;
    let client = lab.client(0);
    route_to_pods(&lab, client)?;
    let hold = |node: usize| {
        let target = Target::new(lab.node(node).pods()[0].addresses()[node % 2], "pod", "/");
        HeldConnections::start(client, &target, COUNT, Duration::from_millis(200))
    };
    let (healthy, cut, reset) = (hold(0)?, hold(1)?, hold(2)?);
    lab.node(1).host().cut_link()?;
    lab.node(2).pods()[0].kill()?;
    thread::sleep(PATIENCE + Duration::from_secs(1));
    let (healthy, cut, reset) = (healthy.finish()?, cut.finish()?, reset.finish()?);
    println!(
        "broken of {COUNT}: healthy {:?}, cut {:?}, reset {:?}",
        healthy.failures(),
        cut.failures(),
        reset.failures()
    );
    ensure!(healthy.broken(|_| true) == 0 && healthy.responses() >= 10 * COUNT as u64);
    ensure!(cut.broken(|_| true) == COUNT && cut.failures().keys().eq([&Failure::Timeout]));
    ensure!(reset.broken(|_| true) == COUNT && !reset.failures().contains_key(&Failure::Timeout));
    Ok(())
}

fn lost_requests_are_counted() -> Result<()> {
    const RATE: u32 = 50;
    let lab = Lab::builder("steady").nodes(2).pods_per_node(1).build()?;
    let client = lab.client(0);
    route_to_pods(&lab, client)?;
    let target = |node: usize| Target::new(lab.node(node).pods()[0].addresses()[0], "pod", "/");
    let healthy = SteadyRequests::start(client, &target(0), RATE);
    let cut = SteadyRequests::start(client, &target(1), RATE);
    let start = Instant::now();
    thread::sleep(Duration::from_secs(1));
    let event = Instant::now();
    lab.node(1).host().cut_link()?;
    thread::sleep(Duration::from_millis(1500));
    let (healthy, cut) = (healthy.finish()?, cut.finish()?);
    let (before, after) = (cut.between(start, event), cut.between(event, event + PATIENCE));
    println!(
        "lost: healthy {} of {}, before the cut {} of {}, after it {} of {}",
        healthy.lost(),
        healthy.sent(),
        before.lost(),
        before.sent(),
        after.lost(),
        after.sent()
    );
    ensure!(healthy.lost() == 0 && healthy.slow() == 0 && healthy.sent() > 100, "{:?}", healthy.losses());
    // Requests on their way when the cut comes may be lost though they began before it.
    ensure!(before.lost() <= 2 && before.sent() > 30, "{:?}", before.losses());
    ensure!(after.lost() + 1 >= after.sent() && after.sent() > 50, "{:?}", after.losses());
    ensure!(after.disturbed_after(event) > Duration::from_secs(1));
    Ok(())
}

const VICTIM: &str = "XDP_INGRESS_LAB_VICTIM";

/// In the process that `leftovers_are_removed` starts: a lab that never gets to clean up.
pub(super) fn run_if_asked() {
    let Ok(name) = env::var(VICTIM) else { return };
    let lab = Lab::builder(&name).nodes(1).build().expect("the victim's lab comes up");
    println!("{}", lab.id());
    std::process::abort();
}

fn leftovers_are_removed() -> Result<()> {
    let output = Command::new(env::current_exe()?).env(VICTIM, "victim").output()?;
    let id = String::from_utf8(output.stdout)?.trim().to_owned();
    let namespaces = || {
        fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
    };
    ensure!(id.starts_with("xi-victim"), "no victim: {id:?}");
    let claim = Path::new("/run/xdp-ingress-lab").join(format!("{id}.json"));
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let took = load::wait_for("the reaper", Duration::from_secs(10), || Ok(!claim.exists()))?;
    println!("the lab of a killed run is gone {took:.0?} after its end");
    let next = Lab::builder("victim").nodes(0).clients(0).build().context("the next lab")?;
    ensure!(next.id() == id, "the id is free again, got {}", next.id());
    drop(next);
    ensure!(namespaces().all(|name| !name.starts_with(&format!("{id}-"))), "namespaces are left");
    ensure!(!claim.exists() && !mounts().contains(&format!("{id}/node1/bpf")));
    Ok(())
}
