//! What the XDP front keeps away from a VIP: a flood of SYNs, sources in a list, sources that open too many connections.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use etherparse::{PacketBuilder, TcpOptionElement};
use ingress_tests::lab::{
    Host, Lab, Node,
    http::{self, Connection, Failure, Target},
    load::{self, SteadyReport, SteadyRequests},
};
use libtest_mimic::Trial;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("protection::syn_flood", syn_flood),
        scenario("protection::lists_and_limits", lists_and_limits),
        scenario("protection::why", why),
    ]
}

/// Good connections per second, while the flood lasts.
const RATE: u32 = 60;
const FLOOD: Duration = Duration::from_secs(6);

/// SYNs from random sources at the full speed of one core, both IP versions in turn; most reach the nodes that serve them
/// through another one. Good connections must not notice.
fn syn_flood() -> Result<()> {
    let lab = Lab::builder("flood").nodes(3).clients(2).build()?;
    lab.serve_examples()?;
    let [good, attacker] = [lab.client(0), lab.client(1)];
    // The flood's sources lie behind the attacker, so that the nodes have a way back to them.
    for node in lab.nodes() {
        let (v4, v6) = (attacker.addresses()[0], attacker.addresses()[1]);
        node.host().ip(&format!("route add 198.18.0.0/15 via {v4}\nroute add 2001:db8:f::/48 via {v6}\n"))?;
    }
    let steady: Vec<SteadyRequests> = lab
        .vips()
        .into_iter()
        .map(|vip| SteadyRequests::start(good, &Target::new(vip, "foo.bar.com", "/bar"), RATE))
        .collect();
    thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    let sent = flood(attacker, lab.vips(), FLOOD)?;
    let end = Instant::now();
    let reports = steady.into_iter().map(SteadyRequests::finish).collect::<Result<Vec<_>>>()?;
    let during: Vec<_> = reports.iter().map(|report| report.between(start, end)).collect();
    let (asked, lost) = during.iter().fold((0, 0), |(a, l), r| (a + r.sent(), l + r.lost()));
    let slow: usize = during.iter().map(SteadyReport::slow).sum();
    let mut cookies = 0;
    for node in lab.nodes() {
        cookies += verdicts(&node.status()?, "cookie_sent");
    }
    let good_share = 100.0 * (asked - lost) as f64 / asked.max(1) as f64;
    println!(
        "SYN flood: {:.0} SYNs/s from random sources, {cookies} answered with cookies in XDP; good connections: {asked}, of \
         which {lost} failed ({good_share:.2} % succeeded), {slow} took longer than 0.9 s",
        sent as f64 / (end - start).as_secs_f64()
    );
    ensure!(sent > 10_000, "no flood: {sent} SYNs");
    ensure!(cookies > 0, "no cookie was sent");
    ensure!(
        asked > 100 && good_share >= 99.0,
        "{:?}",
        reports.iter().map(SteadyReport::losses).collect::<Vec<_>>()
    );
    Ok(())
}

/// Sends SYNs to the `vips` for so long; how many.
fn flood(host: &Host, vips: Vec<IpAddr>, time: Duration) -> Result<u64> {
    host.run(move || {
        let sockets = [AddressFamily::INET, AddressFamily::INET6]
            .map(|family| socket(family, SocketType::RAW, Some(ipproto::RAW)));
        let [v4, v6] = sockets;
        let (v4, v6) = (v4.context("a raw socket")?, v6.context("a raw socket")?);
        // Enough different ones to fill the queues of all listeners: 4,096 on each node for each IP version.
        let packets: Vec<(SocketAddr, Vec<u8>)> = (0..1 << 16)
            .map(|number: u32| syn(vips[number as usize % vips.len()], number.wrapping_mul(0x9e37_79b9)))
            .collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let timer = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                thread::sleep(time);
                stop.store(true, Ordering::Relaxed);
            }
        });
        let mut sent = 0;
        for (to, packet) in packets.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // A full queue drops; that is what a flood does.
            let through = if to.is_ipv4() { &v4 } else { &v6 };
            sent += u64::from(sendto(through, packet, SendFlags::DONTWAIT, to).is_ok());
        }
        timer.join().ok().context("the timer")?;
        Ok(sent)
    })
}

/// A SYN to port 80 of `vip` from a source that `random` names, IP header included.
fn syn(vip: IpAddr, random: u32) -> Result<(SocketAddr, Vec<u8>)> {
    let port = 1024 + (random % 60_000) as u16;
    let option = [TcpOptionElement::MaximumSegmentSize(1460)];
    let mut packet = Vec::new();
    let to = match vip {
        IpAddr::V4(vip) => {
            let source = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + (random >> 15));
            PacketBuilder::ipv4(source.octets(), vip.octets(), 64)
                .tcp(port, 80, random, 64_000)
                .syn()
                .options(&option)?
                .write(&mut packet, &[])?;
            SocketAddr::new(vip.into(), 0)
        }
        IpAddr::V6(vip) => {
            let source = Ipv6Addr::new(0x2001, 0xdb8, 0xf, (random >> 16) as u16, 0, 0, random as u16, 1);
            PacketBuilder::ipv6(source.octets(), vip.octets(), 64)
                .tcp(port, 80, random, 64_000)
                .syn()
                .options(&option)?
                .write(&mut packet, &[])?;
            SocketAddrV6::new(vip, 0, 0, 0).into()
        }
    };
    Ok((to, packet))
}

/// How often the verdict `reason` was given, as `status` tells.
fn verdicts(status: &serde_json::Value, reason: &str) -> u64 {
    status["l4"]["reasons"][reason].as_u64().unwrap_or_default()
}

/// The lab's class with `protection`, a YAML mapping in one line.
fn protect(lab: &Lab, protection: &str) -> Result<()> {
    let vips: Vec<String> = lab.vips().iter().map(|vip| format!("\"{vip}\"")).collect();
    lab.manifests().write(
        "class",
        &format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: xdp}}\nspec:\n  controller: \
             xdp-ingress.io/controller\n  parameters: {{apiGroup: xdp-ingress.io, kind: IngressClassParameters, name: \
             xdp}}\n---\napiVersion: xdp-ingress.io/v1alpha1\nkind: IngressClassParameters\nmetadata: {{name: \
             xdp}}\nspec:\n  vips: [{}]\n  protection: {protection}\n",
            vips.join(", ")
        ),
    )
}

/// What `why` says of a connection is what happened to it, and asking changes no counter.
fn why() -> Result<()> {
    let lab = Lab::builder("why").nodes(3).clients(1).build()?;
    lab.serve_examples()?;
    // The last to come may not be in all tables yet, nor own what it will.
    load::wait_for("all nodes to agree", Duration::from_secs(20), || {
        let mut seen = Vec::new();
        for node in lab.nodes() {
            let status = node.status()?;
            let states = status["l4"]["nodes"].as_array().context("no nodes")?;
            let owners = status["l4"]["vips"].as_array().context("no VIPs")?;
            seen.push((
                states.iter().filter(|node| node["state"] == "serving").count(),
                owners.iter().map(|vip| vip["owner"].clone()).collect::<Vec<_>>(),
            ));
        }
        Ok(seen.iter().all(|one| one.0 == 3 && *one == seen[0]))
    })?;
    for vip in lab.vips() {
        let owner = lab.owner(vip)?;
        let target = Target::new(vip, "foo.bar.com", "/bar");
        let (_held, local, echo) = lab.client(0).run(|| {
            let mut connection = Connection::open(target.address, load::PATIENCE)
                .map_err(|why| anyhow::anyhow!("no connection to {vip}: {why:?}"))?;
            let response = connection
                .get(&target, false)
                .map_err(|why| anyhow::anyhow!("no response from {vip}: {why:?}"))?;
            let local = connection.local().context("no local address")?;
            Ok((connection, local, response.echo()?))
        })?;
        let server = lab.node_by_address(echo.peer).context("whose request was it?")?;
        let ask = |node: &Node, packet: &str| -> Result<serde_json::Value> {
            let verb = ["why", &local.to_string(), &target.address.to_string(), packet, "-o", "json"];
            serde_json::from_str(&node.ask(&verb)?).context("reading the answer")
        };
        // New flows: nobody opens one now, while packets of open connections may still come.
        let counted = |node: &Node| -> Result<Vec<Option<u64>>> {
            let status = node.status()?;
            let vips = status["l4"]["vips"].as_array().context("no VIPs")?;
            Ok(vips.iter().map(|vip| vip["flows"].as_u64()).collect())
        };
        let before = counted(owner)?;
        let syn = ask(owner, "--syn")?;
        let expected = if owner.name() == server.name() { "local_new" } else { "forward_new" };
        ensure!(syn["to"] == server.name() && syn["reason"] == expected, "{syn}");
        ensure!(
            syn["is_vip"] == true && syn["candidates"].as_array().is_some_and(|all| all.len() == 3),
            "{syn}"
        );
        let ack = ask(server, "--ack")?;
        ensure!(ack["reason"] == "local_socket" && ack["to"] == server.name(), "{ack}");
        ensure!(counted(owner)? == before, "asking was counted");
        println!("{local} to {vip}: slot {}, {expected}, to {}", syn["slot"], server.name());
    }
    Ok(())
}

fn lists_and_limits() -> Result<()> {
    const SOON: Duration = Duration::from_secs(10);
    let lab = Lab::builder("lists").nodes(2).clients(2).build()?;
    lab.serve_examples()?;
    let [friend, foe] = [lab.client(0), lab.client(1)];
    let asks = |host: &Host, vip: IpAddr| {
        host.run(|| {
            let target = Target::new(vip, "foo.bar.com", "/bar");
            Ok(http::get(&target, Duration::from_millis(700)))
        })
    };
    let is_served = |host: &Host, vip| Ok(asks(host, vip)?.is_ok_and(|response| response.status == 200));
    let is_shut_out =
        |host: &Host, vip| Ok(asks(host, vip)?.is_err_and(|why| why == Failure::ConnectTimeout));
    let dropped = |reason: &str| -> Result<u64> {
        lab.nodes().iter().map(|node| Ok(verdicts(&node.status()?, reason))).sum()
    };
    let [v4, v6] = [foe.addresses()[0], foe.addresses()[1]];
    let deny = format!("{{deny: [\"{v4}/32\", \"{v6}\"]}}");
    let allow = format!("{{allow: [\"{}\", \"{}\"]}}", friend.addresses()[0], friend.addresses()[1]);
    for (what, protection, reason) in
        [("deny list", deny, "drop_denied"), ("allow list", allow, "drop_not_allowed")]
    {
        protect(&lab, &protection)?;
        for vip in lab.vips() {
            let took = load::wait_for(what, SOON, || is_shut_out(foe, vip))?;
            ensure!(is_served(friend, vip)?, "{what}: the friend is shut out of {vip}");
            println!("{what}: {vip} is closed to the foe {took:.0?} after the change");
        }
        ensure!(dropped(reason)? > 0, "{what}: nothing counted");
        let told = lab.owner(lab.vips()[0])?.ask(&[
            "why",
            &format!("{v4}:40000"),
            &format!("{}:80", lab.vips()[0]),
        ])?;
        ensure!(told.contains(&format!("reason: {reason} ")), "{what}: {told}");
    }
    // Nothing is left of lists that are taken back.
    protect(&lab, "{}")?;
    for vip in lab.vips() {
        load::wait_for("an end of the lists", SOON, || is_served(foe, vip))?;
    }

    protect(&lab, "{newConnectionsPerSource: {perSecond: 1, burst: 4}}")?;
    let vip = lab.vips()[0];
    load::wait_for("the limit", SOON, || is_shut_out(foe, vip))?;
    ensure!(dropped("drop_source_rate")? > 0, "nothing counted");
    ensure!(is_served(friend, vip)?, "a source pays for another");
    // On the node at which the foe's packets arrive.
    let mut shown = (false, false);
    for node in lab.nodes() {
        shown.0 |= node.metrics()?.contains("drop_source_rate");
        shown.1 |= node.ask(&["status"])?.contains("drop_source_rate");
    }
    ensure!(shown == (true, true), "in metrics and in status: {shown:?}");
    println!("limit: the foe has used up its connections, the friend has not");
    Ok(())
}
