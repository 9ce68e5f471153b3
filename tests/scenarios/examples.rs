//! The two classic examples, and one with TLS: who answers, over IPv4 and IPv6, and that the client's address arrives.

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::{
    lab::{
        Host, Lab,
        http::{self, Target},
        serve::Curl,
    },
    paths,
};
use libtest_mimic::Trial;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("examples::check_finds_nothing_wrong", check_finds_nothing_wrong),
        scenario("examples::hosts_and_paths", hosts_and_paths),
        scenario("examples::every_node_serves", every_node_serves),
        scenario("examples::tls_and_http2", tls_and_http2),
    ]
}

fn check_finds_nothing_wrong() -> Result<()> {
    let lab = Lab::builder("check").build()?;
    lab.declare_examples()?;
    let output = Command::new(paths::daemon()).arg("check").arg(lab.manifests().dir()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn hosts_and_paths() -> Result<()> {
    let lab = Lab::builder("examples").clients(2).build()?;
    lab.serve_examples()?;
    let answered = [
        ("http://foo.bar.com/bar", "service1-"),
        ("http://foo.bar.com/bar/", "service1-"),
        ("http://foo.bar.com/bar/baz?q=1", "service1-"),
        ("http://FOO.bar.com/bar", "service1-"),
        ("http://a.foo.com/foo", "service2-"),
        ("http://b.foo.com/foo/x", "service2-"),
        ("http://app.test.com/", "service1-"),
        ("http://app.test.com/any/where", "service1-"),
        ("http://app.prod.com/", "service2-"),
    ];
    // Not the rule's path; not whole elements; no label or two for the wildcard; nobody's host.
    let refused = [
        "http://foo.bar.com/",
        "http://foo.bar.com/barn",
        "http://foo.com/foo",
        "http://a.b.foo.com/foo",
        "http://a.foo.com/bar",
        "http://nobody.example/",
    ];
    for vip in lab.vips() {
        for client in [lab.client(0), lab.client(1)] {
            for (url, pods) in answered {
                answered_by(client, url, vip, &[], pods)?;
            }
        }
        for url in refused {
            let answer = Curl::new(url, vip, &[])?.run(lab.client(0))?;
            ensure!(answer.status == 404, "{url} at {vip}: {answer:?}");
        }
    }
    Ok(())
}

/// Asks, and checks who answered and that the client's own address arrived, and no other that it claims.
fn answered_by(client: &Host, url: &str, vip: IpAddr, options: &[&str], pods: &str) -> Result<String> {
    let options = [&["-H", "X-Forwarded-For: 192.0.2.1", "-H", "X-Real-IP: 192.0.2.1"], options].concat();
    let curl = Curl::new(url, vip, &options)?;
    let answer = curl.run(client)?;
    let echo = answer.echo().with_context(|| curl.shown())?;
    let address = client.address_like(vip).context("the client's address")?.to_string();
    ensure!(echo.pod.starts_with(pods), "{url} at {vip} was answered by {echo}");
    for name in ["x-forwarded-for", "x-real-ip"] {
        ensure!(
            echo.header(name) == Some(address.as_str()),
            "{url} at {vip}: {name} is {:?}",
            echo.header(name)
        );
    }
    let scheme = url.split(':').next();
    ensure!(echo.header("x-forwarded-proto") == scheme, "{:?}", echo.header("x-forwarded-proto"));
    Ok(answer.version)
}

fn every_node_serves() -> Result<()> {
    const CONNECTIONS: usize = 90;
    let lab = Lab::builder("spread").build()?;
    lab.serve_examples()?;
    for vip in lab.vips() {
        let mut counts = vec![0_usize; lab.nodes().len()];
        let peers = lab.client(0).run(|| {
            let target = Target::new(vip, "foo.bar.com", "/bar");
            let ask = || Ok(http::get(&target, Duration::from_secs(2))?.echo()?.peer);
            (0..CONNECTIONS).map(|_| ask()).collect::<Result<Vec<_>>>()
        })?;
        for peer in peers {
            let node = lab.nodes().iter().position(|node| node.addresses().contains(&peer));
            counts[node.with_context(|| format!("{peer} is no node"))?] += 1;
        }
        println!("{CONNECTIONS} connections to {vip} by node: {counts:?}");
        // A fair share is 30; one in a million runs has a node below 9.
        ensure!(counts.iter().all(|&count| count >= 9), "{vip}: {counts:?}");
    }
    Ok(())
}

fn tls_and_http2() -> Result<()> {
    let lab = Lab::builder("tls").nodes(2).build()?;
    lab.serve_examples()?;
    let authority = lab.authority_file().display().to_string();
    let trust = ["--cacert", authority.as_str()];
    let client = lab.client(0);
    for vip in lab.vips() {
        for (options, version) in [
            (["--http1.1", "--tlsv1.2", "--tls-max", "1.2"].as_slice(), "1.1"),
            (&["--http1.1", "--tlsv1.3"], "1.1"),
            (&["--http2"], "2"),
        ] {
            let options = [trust.as_slice(), options].concat();
            let got = answered_by(client, "https://secure.example.com/x", vip, &options, "service1-")?;
            ensure!(got == version, "{vip} {options:?}: HTTP/{got}");
        }
        // Another name than the certificate's: curl must refuse, whatever the router shows it.
        let stranger = Curl::new("https://app.test.com/", vip, &trust)?.run(client);
        ensure!(stranger.is_err(), "{stranger:?}");
    }
    Ok(())
}
