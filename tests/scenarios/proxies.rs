//! A load balancer in front of us that speaks the PROXY protocol: Debian's HAProxy. The client's address arrives through it, and
//! a client that comes directly cannot say another one.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    Lab,
    http::Connection,
    load,
    process::Process,
    serve::{Curl, CurlAnswer},
};
use libtest_mimic::Trial;

use super::scenario;

/// Nobody's address.
const FORGED: &str = "198.51.100.66";
const URL: &str = "http://foo.bar.com/bar";
const TLS_URL: &str = "https://secure.example.com/";

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("proxies::haproxy_tells_who_the_client_is", haproxy_tells_who_the_client_is)]
}

fn haproxy_tells_who_the_client_is() -> Result<()> {
    let lab = Lab::builder("proxy").nodes(1).clients(2).build()?;
    lab.declare_examples()?;
    let (client, balancer, vip) = (lab.client(0), lab.client(1), lab.vips()[0]);
    let [v4, v6] = [balancer.addresses()[0], balancer.addresses()[1]];
    lab.manifests().write("class", &class(&lab.vips(), v4))?;
    lab.start_daemons()?;
    let _haproxy = haproxy(&lab, vip, v4, v6)?;

    let trusted = lab.authority_file();
    let trusted = ["--cacert", trusted.to_str().context("a path in UTF-8")?];
    // Version 2 to the plain and to the TLS listener, version 1 with IPv6 addresses.
    for (what, url, at) in [("version 2", URL, v4), ("version 2, TLS", TLS_URL, v4), ("version 1", URL, v6)] {
        let curl = Curl::new(url, at, &trusted)?;
        load::wait_for(what, Duration::from_secs(30), || {
            Ok(curl.run(client).is_ok_and(|a| a.status == 200))
        })?;
        let (said, own) = (forwarded_for(&curl.run(client)?)?, client.address_like(at));
        println!("through HAProxy by {what}: the backend reads X-Forwarded-For: {said}");
        ensure!(Some(said.parse()?) == own, "by {what}: {said} in place of {own:?}");
    }

    // Whoever is no trusted proxy is not asked for a header, and one that it sends is no HTTP.
    let own = client.address_like(vip).context("an IPv4 address")?;
    let spoofed = Curl::new(URL, vip, &["-H", &format!("X-Forwarded-For: {FORGED}")])?.run(client)?;
    ensure!(forwarded_for(&spoofed)?.parse::<IpAddr>()? == own, "{spoofed:?}");
    let forged = format!(
        "PROXY TCP4 {FORGED} {vip} 5000 80\r\nGET /bar HTTP/1.1\r\nHost: foo.bar.com\r\nConnection: close\r\n\r\n"
    );
    for (what, address) in [("directly", vip), ("behind HAProxy's own", v4)] {
        let answer = client.run(|| {
            let mut connection = Connection::open((address, 80).into(), load::PATIENCE)?;
            Ok(connection.exchange(forged.as_bytes())?)
        })?;
        println!("a forged header {what}: {}", answer.status);
        ensure!(answer.status == 400 && !answer.body.contains(FORGED), "{what}: {answer:?}");
    }
    Ok(())
}

fn forwarded_for(answer: &CurlAnswer) -> Result<String> {
    let echo = answer.echo()?;
    let values: Vec<_> = echo.headers.iter().filter(|(name, _)| name == "x-forwarded-for").collect();
    ensure!(values.len() == 1, "{:?}", echo.headers);
    Ok(values[0].1.clone())
}

/// The lab's class, with a proxy that is believed.
fn class(vips: &[IpAddr], proxy: IpAddr) -> String {
    let vips: Vec<String> = vips.iter().map(|vip| format!("\"{vip}\"")).collect();
    format!(
        "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: xdp}}
spec:
  controller: xdp-ingress.io/controller
  parameters: {{apiGroup: xdp-ingress.io, kind: IngressClassParameters, name: xdp}}
---
apiVersion: xdp-ingress.io/v1alpha1
kind: IngressClassParameters
metadata: {{name: xdp}}
spec:
  vips: [{}]
  options: {{use-proxy-protocol: \"true\", proxy-real-ip-cidr: \"{proxy}/32\"}}
",
        vips.join(", ")
    )
}

/// HAProxy on the second client, as somebody has it in front: what it passes on it does not look into.
fn haproxy(lab: &Lab, vip: IpAddr, v4: IpAddr, v6: IpAddr) -> Result<Process> {
    let listen = |name: &str, bind: String, port: u16, option: &str| {
        format!("listen {name}\n  bind {bind}:{port}\n  server xdp {vip}:{port} {option}\n")
    };
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{}{}{}",
        listen("two", v4.to_string(), 80, "send-proxy-v2"),
        listen("two-tls", v4.to_string(), 443, "send-proxy-v2"),
        listen("one", format!("[{v6}]"), 80, "send-proxy"),
    );
    let file = lab.dir().join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = lab.client(1).command("haproxy");
    command.arg("-db").arg("-f").arg(file);
    lab.client(1).spawn("haproxy", command)
}
