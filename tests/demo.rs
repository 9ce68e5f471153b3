//! The demo: `cargo xtask demo` shows somebody who sees the product for the first time what it does, on real packets:
//! a lab with the daemon on every node, requests by real `curl`, then changes under a steady load, and what they
//! cost. Ends by itself within 90 s, and says by its result whether every promise was kept.

mod changes;
mod packets;
mod requests;
mod table;

use std::time::Instant;

use anyhow::Result;

use crate::lab::Lab;

/// Runs the demo; whether all promises were kept. With `keep` the lab stays up.
pub fn run(keep: bool) -> Result<bool> {
    let start = Instant::now();
    println!(
        "\nxdp-ingress: the LoadBalancer and the ingress controller of a cluster, on every node of it\n"
    );
    let mut lab = Lab::builder("demo").build()?;
    print!("{}", picture(&lab));

    heading(1, "Objects");
    requests::apply(&lab)?;
    heading(2, "Requests");
    let answered = requests::show(&lab)?;
    heading(3, "Changes under load");
    let outcome = changes::run(&mut lab)?;
    heading(4, "What the changes cost");
    print!("{}", outcome.table());
    println!();
    print!("{}", packets::table(&lab)?);

    let kept = answered && outcome.promises_kept();
    for broken in outcome.broken_promises() {
        println!("\nPROMISE BROKEN: {broken}");
    }
    println!(
        "\n{} ({:.0} s)",
        if kept { "All promises kept." } else { "Not as promised." },
        start.elapsed().as_secs_f64()
    );
    if keep {
        for node in lab.nodes().iter().filter(|node| !node.is_running()) {
            node.host().mend_link()?;
            node.start_daemon()?;
        }
        println!("{}", what_to_try(&lab));
        lab.keep()?;
    }
    Ok(kept)
}

/// For a person with a lab that stays up.
pub fn what_to_try(lab: &Lab) -> String {
    let (vips, exec) = (lab.vips(), "cargo xtask lab exec");
    let vip = vips[0];
    let daemon = "target/release/xdp-ingress";
    let state = |node: usize| lab.node(node).state_dir().display().to_string();
    [
        format!("\nThe lab {} stays up. Its manifests: {}", lab.id(), lab.manifests().dir().display()),
        "Things to try:".to_owned(),
        format!("  {exec} client1 curl --resolve foo.bar.com:80:{vip} http://foo.bar.com/bar"),
        format!("  {exec} client1 curl --resolve app.test.com:80:{vip} http://app.test.com/"),
        format!("  edit {}/two-hosts.yaml, and ask again", lab.manifests().dir().display()),
        format!("  {daemon} status --state-dir {}", state(0)),
        format!("  {daemon} drain --state-dir {}", state(1)),
        format!("  {exec} node1 curl -s http://127.0.0.1:9901/metrics"),
        format!("  {exec} node1 tcpdump -ni eth0 host {vip}"),
        "  cargo xtask lab down      removes it".to_owned(),
    ]
    .join("\n")
}

fn heading(number: usize, text: &str) {
    println!("\n{number}. {text}\n");
}

/// Who is where.
fn picture(lab: &Lab) -> String {
    use std::fmt::Write as _;
    let list = |addresses: &[std::net::IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let client = lab.client(0);
    let mut text = format!("  {:8} {}\n     │\n", client.name(), list(client.addresses()));
    let _ = writeln!(text, "  switch   no host has the VIPs {}: XDP answers for them", list(&lab.vips()));
    for (index, node) in lab.nodes().iter().enumerate() {
        let branch = if index + 1 == lab.nodes().len() { "└──" } else { "├──" };
        let pods: Vec<&str> = node.pods().iter().map(crate::lab::Pod::name).collect();
        let addresses = list(node.addresses());
        let _ = writeln!(text, "     {branch} {:6} {addresses:24} pods {}", node.name(), pods.join(", "));
    }
    text + "  Each is a network namespace of this machine; every packet goes through the real kernel.\n"
}
