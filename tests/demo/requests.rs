//! First half of the demo: objects are applied, and real `curl` shows which node and pod answered and that the
//! client's address arrived.

use std::{collections::BTreeMap, net::IpAddr, time::Duration, time::Instant};

use anyhow::{Context as _, Result};

use crate::lab::{
    Lab, Node,
    http::{self, Target},
    serve::Curl,
};

/// New connections from which the spread over nodes is shown.
const SPREAD: usize = 60;

/// Writes the objects and starts the daemons.
pub(super) fn apply(lab: &Lab) -> Result<()> {
    lab.declare_examples()?;
    println!("  Ordinary Kubernetes manifests in a directory that the daemon of every node watches:");
    println!("    Ingress ingress-wildcard-host  foo.bar.com/bar     → service1:80");
    println!("                                   *.foo.com/foo       → service2:80");
    println!("    Ingress two-hosts              app.test.com        → service1:8080");
    println!("                                   app.prod.com        → service2:8080");
    println!("    Ingress tls                    secure.example.com  → service1:80, with TLS");
    println!("    and their Services, EndpointSlices, Secret, Nodes, IngressClass, AddressPool.");
    let start = Instant::now();
    lab.start_daemons()?;
    let count = lab.nodes().len();
    println!("  {count} daemons started; the first request was answered {:.0?} later.", start.elapsed());
    for vip in lab.vips() {
        println!("  {vip} is answered for by {}.", lab.answers_for(vip)?.name());
    }
    Ok(())
}

/// Asks and shows; whether all was answered as the objects say.
pub(super) fn show(lab: &Lab) -> Result<bool> {
    let vips = lab.vips();
    let (v4, v6) = (vips[0], *vips.last().unwrap_or(&vips[0]));
    let authority = lab.authority_file().display().to_string();
    let trust = ["--cacert", authority.as_str(), "--http2"];
    let mut good = true;
    for (url, vip, options, pods) in [
        ("http://foo.bar.com/bar", v4, [].as_slice(), "service1-"),
        ("http://foo.bar.com/bar", v6, &[], "service1-"),
        ("http://anything.foo.com/foo", v4, &[], "service2-"),
        ("http://app.test.com/", v4, &[], "service1-"),
        ("http://app.prod.com/", v6, &[], "service2-"),
        ("https://secure.example.com/", v4, &trust, "service1-"),
    ] {
        good &= answered(lab, &Curl::new(url, vip, options)?, vip, pods)?;
    }
    let nobody = Curl::new("http://nobody.example/", v4, &[])?;
    let answer = nobody.run(lab.client(0))?;
    println!("  client1$ {}\n      {}, {}", nobody.shown(), answer.status, answer.body.trim());
    good &= answer.status == 404;
    println!("\n  {SPREAD} new connections each, by node:");
    for vip in vips {
        println!("    {vip:14} {}", spread(lab, vip)?);
    }
    Ok(good)
}

/// Runs `curl` and prints who answered.
fn answered(lab: &Lab, curl: &Curl, vip: IpAddr, pods: &str) -> Result<bool> {
    let client = lab.client(0);
    println!("  client1$ {}", curl.shown());
    let answer = curl.run(client)?;
    let Ok(echo) = answer.echo() else {
        println!("      {}: {}", answer.status, answer.body.trim());
        return Ok(false);
    };
    let router = lab.node_by_address(echo.peer).map_or("nobody's", Node::name);
    let forwarded = echo.header("x-forwarded-for").unwrap_or("missing");
    println!(
        "      {} HTTP/{} from pod {} on {}, through the router on {router}; client's address: {forwarded}",
        answer.status, answer.version, echo.pod, echo.pod_node
    );
    let mine = client.address_like(vip).context("the client's address")?;
    Ok(echo.pod.starts_with(pods) && forwarded == mine.to_string())
}

/// New connections to `vip`, counted by the node that served them.
fn spread(lab: &Lab, vip: IpAddr) -> Result<String> {
    let target = Target::new(vip, "foo.bar.com", "/bar");
    let peers = lab.client(0).run(|| {
        let ask = || Ok(http::get(&target, Duration::from_secs(2))?.echo()?.peer);
        (0..SPREAD).map(|_| ask()).collect::<Result<Vec<_>>>()
    })?;
    let mut counts = BTreeMap::new();
    for peer in peers {
        *counts.entry(lab.node_by_address(peer).map_or("?", Node::name)).or_insert(0) += 1;
    }
    Ok(counts.iter().map(|(node, count)| format!("{node} {count}")).collect::<Vec<_>>().join("   "))
}
