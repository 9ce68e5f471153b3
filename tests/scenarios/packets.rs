//! What is not a plain segment, between nodes behind a router: packets that fill the path, path MTU messages, fragments,
//! pings.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{Lab, load, serve::Curl};
use libtest_mimic::Trial;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("packets::big_ones_through_tunnels", big_ones_through_tunnels),
        scenario("packets::a_narrow_link_between_nodes", a_narrow_link_between_nodes),
    ]
}

/// Connections of each IP version: enough for each node to serve some that came by way of another.
const CONNECTIONS: usize = 12;
const MIB: usize = 1 << 20;
/// What the router's link to the client takes in the second half.
const NARROW: u32 = 1300;

/// How many packets the nodes judged so, over all of them.
fn verdicts(lab: &Lab, reason: &str) -> Result<u64> {
    let mut sum = 0;
    for node in lab.nodes() {
        let status = node.status()?;
        sum += status["l4"]["reasons"][reason].as_u64().unwrap_or(0);
    }
    Ok(sum)
}

/// The node that served a request of `options`, once the whole answer is here.
fn ask<'a>(lab: &'a Lab, vip: IpAddr, query: &str, options: &[&str]) -> Result<&'a str> {
    let options = [&["--max-time", "20"], options].concat();
    let answer = Curl::new(&format!("http://foo.bar.com/bar{query}"), vip, &options)?.run(lab.client(0))?;
    let echo = answer.echo()?;
    Ok(lab.node_by_address(echo.peer).context("served by a node of this lab")?.name())
}

/// All connections: an answer of 1 MiB each, with curl's `options`. Which nodes served by which IP version (true: 4).
fn downloads<'a>(lab: &'a Lab, options: &[&str]) -> Result<BTreeSet<(&'a str, bool)>> {
    let mut served = BTreeSet::new();
    for vip in lab.vips() {
        for _ in 0..CONNECTIONS {
            let node = ask(lab, vip, &format!("?size={MIB}"), options)?;
            served.insert((node, vip.is_ipv4()));
        }
    }
    Ok(served)
}

fn big_ones_through_tunnels() -> Result<()> {
    let lab = Lab::builder("big").router().build()?;
    // Routers say "too big" to a host once a second; here all flows are one host's.
    lab.switch().sysctl(&[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")])?;
    lab.serve_examples()?;
    let file = lab.dir().join("upload");
    std::fs::write(&file, vec![b'x'; MIB])?;

    let body = format!("@{}", file.display());
    let started = Instant::now();
    let served = downloads(&lab, &["-H", "Expect:", "--data-binary", &body])?;
    let tunnelled = verdicts(&lab, "forward_flow")? + verdicts(&lab, "forward_walk")?;
    let too_big = verdicts(&lab, "too_big_answered")?;
    println!(
        "{} times 1 MiB there and back in {:.1?}: {tunnelled} packets of known flows through \
         tunnels, {too_big} did not fit",
        2 * CONNECTIONS,
        started.elapsed()
    );
    let nodes: BTreeSet<&str> = served.iter().map(|(node, _)| *node).collect();
    ensure!(nodes.len() >= 2, "only {nodes:?} served: nothing was shown");
    ensure!(tunnelled > 1000, "hardly anything went through a tunnel: nothing was shown");
    ensure!(
        too_big == 0,
        "{too_big} packets did not fit into their tunnel: clients were told too big a segment size"
    );

    // The router drops what does not fit and says so to the VIP; it reaches whichever node the router likes.
    lab.switch().ip(&format!("link set client1 mtu {NARROW}\n"))?;
    let started = Instant::now();
    let served = downloads(&lab, &[])?;
    let forwarded = verdicts(&lab, "forward_icmp")?;
    println!(
        "behind a link of {NARROW} bytes: 1 MiB back in {:.1?}, {forwarded} ICMP errors handed over",
        started.elapsed()
    );
    pings(&lab)?;
    ensure!(forwarded > 0, "no ICMP error was handed over: nothing was shown");
    for (name, is_ipv4) in served {
        let node = lab.nodes().iter().find(|node| node.name() == name).context("a node of this lab")?;
        let client = lab.client(0).addresses().iter().find(|address| address.is_ipv4() == is_ipv4);
        let client = client.context("the client's address")?.to_string();
        let route = node.host().output("ip", &["route", "get", &client])?;
        ensure!(route.contains(&format!("mtu {NARROW}")), "{name} has not learnt the MTU: {route}");
    }
    in_pieces(&lab, &file)
}

/// VIPs answer pings, though no node's kernel is asked.
fn pings(lab: &Lab) -> Result<()> {
    for vip in lab.vips() {
        lab.client(0).output("ping", &["-c", "3", "-i", "0.2", "-W", "10", &vip.to_string()])?;
    }
    let answered = verdicts(lab, "echo_answered")?;
    ensure!(answered >= 6, "only {answered} of 6 pings were answered by the front");
    Ok(())
}

/// The client lets routers cut its packets, and the router must on the way to the first node, by way of which all come.
fn in_pieces(lab: &Lab, file: &Path) -> Result<()> {
    lab.switch().ip("link set client1 mtu 1500\n")?;
    lab.client(0).sysctl(&[("net/ipv4/ip_no_pmtu_disc", "1")])?;
    let vip = lab.vips().into_iter().find(IpAddr::is_ipv4).context("an IPv4 VIP")?;
    // Not the link's: what is in a tunnel takes the same link, and must not be cut.
    let first = lab.node(0).addresses()[0];
    lab.switch().ip(&format!("route replace {vip}/32 via {first} mtu lock 1000\n"))?;
    let body = format!("@{}", file.display());
    let mut served = BTreeSet::new();
    for _ in 0..CONNECTIONS {
        served.insert(ask(lab, vip, "", &["-H", "Expect:", "--data-binary", &body])?);
    }
    let forwarded = verdicts(lab, "forward_fragment")?;
    let local = verdicts(lab, "local_fragment")?;
    let dropped = verdicts(lab, "drop_fragment")?;
    println!(
        "{CONNECTIONS} times 1 MiB in pieces, served by {served:?}: {forwarded} later pieces handed over, {local} stayed, \
         {dropped} came without a first one"
    );
    ensure!(forwarded > 500 && local > 500, "hardly any pieces: nothing was shown");
    Ok(())
}

/// What the router's link to the second node takes of what the other nodes send there.
const BETWEEN: u32 = 1400;

/// A router between the nodes says that a packet in a tunnel is too big for it: the node that sent it remembers, and clients
/// send smaller ones. Nothing else knows of the narrow link, nor is anybody but the nodes on it.
fn a_narrow_link_between_nodes() -> Result<()> {
    let lab = Lab::builder("narrow").router().build()?;
    lab.switch().sysctl(&[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")])?;
    lab.serve_examples()?;
    let far = lab.node(1).name();
    // For what is sent to the node's own addresses: that is, tunnelled packets. A router minds a locked MTU when it forwards.
    lab.switch().ip(&format!(
        "route replace 10.78.2.0/24 dev {far} src 10.78.2.1 mtu lock {BETWEEN}\n\
         route replace fd78:2::/64 dev {far} mtu lock {BETWEEN}\n"
    ))?;
    let file = lab.dir().join("upload");
    std::fs::write(&file, vec![b'x'; MIB / 4])?;
    let body = format!("@{}", file.display());
    let started = Instant::now();
    let learnt = || {
        let mtu_to_far = |node: &ingress_tests::lab::Node| {
            let status = node.status()?;
            let nodes = status["l4"]["nodes"].as_array().context("no nodes")?;
            let entry = nodes.iter().find(|entry| entry["name"] == far).context("not the far node")?;
            entry["way"]["tunnel"]["mtu"].as_u64().context("no MTU")
        };
        Ok::<_, anyhow::Error>((mtu_to_far(lab.node(0))?, mtu_to_far(lab.node(2))?))
    };
    let mut served = BTreeSet::new();
    // The client remembers a path MTU by the VIP's address: what one node has taught it, the other need not.
    let done = load::wait_for("another node to learn the MTU", Duration::from_mins(1), || {
        for vip in lab.vips() {
            for _ in 0..CONNECTIONS {
                served.insert(ask(&lab, vip, "", &["-H", "Expect:", "--data-binary", &body])?);
            }
        }
        let (one, other) = learnt()?;
        Ok(one == u64::from(BETWEEN) || other == u64::from(BETWEEN))
    })?;
    let heard = verdicts(&lab, "local_tunnel_icmp")?;
    println!(
        "a link of {BETWEEN} bytes between the nodes: uploads of 256 KiB went on, {heard} messages of the router, known after \
         {done:.1?}, {:.1?} in all; served by {served:?}; {} answered as too big",
        started.elapsed(),
        verdicts(&lab, "too_big_answered")?
    );
    ensure!(heard > 0, "the router said nothing: nothing was shown");
    ensure!(served.len() == 3, "only {served:?} served: nothing was shown");
    Ok(())
}
