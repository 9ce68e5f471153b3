//! Who answers ARP and neighbour discovery for a VIP: the nodes that its pool selects, and nobody else without being noticed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{Lab, Node, load, topology};
use libtest_mimic::Trial;

use super::{membership::LIVE, scenario};

/// Generous: a stranger is asked twice, a second apart, and one that was there before us after two seconds more.
const NOTICED: Duration = Duration::from_secs(20);

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("announcement::selected_nodes_and_strangers", selected_nodes_and_strangers)]
}

/// The lab's pool, for one node.
fn select(lab: &Lab, node: &Node) -> Result<()> {
    let addresses: Vec<String> = lab.vips().iter().map(|vip| format!("\"{vip}\"")).collect();
    let yaml = format!(
        "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: xdp}}
spec: {{controller: xdp-ingress.io/controller}}
---
apiVersion: xdp-ingress.io/v1alpha1
kind: AddressPool
metadata: {{name: default}}
spec:
  addresses: [{}]
  nodeSelectors: [{{matchLabels: {{kubernetes.io/hostname: {}}}}}]
",
        addresses.join(", "),
        node.name()
    );
    lab.manifests().write("class", &yaml)
}

fn says(node: &Node, what: &str) -> Result<bool> {
    Ok(node.ask(&["status"])?.contains(what))
}

/// The pool selects one node after the other: only that one answers, and if it does not live, nobody, and all say so. A host
/// that has the VIP too is noticed by the owner.
fn selected_nodes_and_strangers() -> Result<()> {
    let lab = Lab::builder("announce").clients(2).build()?;
    lab.declare_examples()?;
    select(&lab, lab.node(1))?;
    let (running, absent) = (&lab.nodes()[..2], lab.node(2));
    for node in running {
        let mut command = node.daemon_command();
        command.args(["--announce-interval", "1s"]);
        node.launch(command)?;
    }
    running.iter().try_for_each(Node::wait_until_ready)?;
    for vip in lab.vips() {
        lab.wait_until_served(vip)?;
        // Other nodes, which serve connections too and ask for their clients' addresses, do not ask in the VIP's name.
        let answers = lab.answers_for(vip)?.name();
        ensure!(answers == "node2", "{answers} answers for {vip}");
    }
    select(&lab, lab.node(0))?;
    let [v4, v6] = lab.vips()[..] else { anyhow::bail!("two VIPs") };
    let moved = load::wait_for("the other node to own the VIPs", LIVE, || {
        Ok(lab.owner(v4)?.name() == "node1" && lab.owner(v6)?.name() == "node1")
    })?;
    for vip in [v4, v6] {
        // For a moment both answer.
        load::wait_for("the other node to answer alone", LIVE, || {
            Ok(lab.answers_for(vip).is_ok_and(|node| node.name() == "node1"))
        })?;
    }

    let (owner, stranger) = (lab.node(0), lab.client(1));
    let mac = topology::mac(stranger.addresses());
    ensure!(!says(owner, &mac)?, "nobody else has the VIPs yet");
    let appeared = Instant::now();
    stranger.ip(&format!("addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n"))?;
    let line = |vip| format!("another host ({mac}) answers for {vip} on eth0");
    load::wait_for("the owner to notice the stranger", NOTICED, || {
        Ok(says(owner, &line(v4))? && says(owner, &line(v6))?)
    })
    .with_context(|| {
        format!("{}\n{}", owner.ask(&["status"]).unwrap_or_default(), owner.daemon_log_tail())
    })?;
    let noticed = appeared.elapsed();
    let metric = format!("xdp_ingress_vip_conflict{{vip=\"{v4}\",mac=\"{mac}\"}} 1");
    let metrics = owner.metrics()?;
    for line in [&metric, "xdp_ingress_nodes{state=\"serving\"} 2", "xdp_ingress_vip_takeovers_total 2"] {
        ensure!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    let beats = "xdp_ingress_membership_messages_total{kind=\"heartbeat\",direction=\"received\"} ";
    let beats = metrics.lines().find_map(|line| line.strip_prefix(beats)?.parse::<u64>().ok());
    ensure!(beats.is_some_and(|beats| beats > 10), "heartbeats of the peer: {beats:?}");
    ensure!(owner.daemon_log().contains("AddressConflict"), "the log is silent");
    ensure!(!says(lab.node(1), &mac)?, "who does not own a VIP has no conflict");

    select(&lab, absent)?;
    let gone = Instant::now();
    for node in running {
        load::wait_for("all to say that nobody may answer who lives", NOTICED, || {
            says(node, "nobody answers for 10.77.0.100")
        })?;
    }
    ensure!(!says(owner, &mac)?, "a conflict about a VIP that is not ours any more");
    println!(
        "VIPs moved to the node that the pool selects now after {moved:.0?}; a stranger with both was noticed after \
         {noticed:.1?}; that nobody may answer was said after {:.1?}",
        gone.elapsed()
    );
    Ok(())
}
