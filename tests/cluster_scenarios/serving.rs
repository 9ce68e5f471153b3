//! Ordinary objects, applied with `kubectl`: requests through the VIP, the status and the Events that the daemon
//! writes back, changes seen while it runs.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    load,
    manifests::{TWO_HOSTS, WILDCARD_HOST},
};
use libtest_mimic::Trial;
use serde_json::Value;

use super::{
    scenario,
    world::{LIVE, World},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("serving::examples_are_served_and_their_status_is_written", examples_are_served),
        scenario("serving::a_broken_ingress_gets_an_event_and_the_others_stay", broken_ingress_gets_an_event),
    ]
}

const BROKEN: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: broken
  namespace: default
spec:
  ingressClassName: xdp
  rules:
    - host: broken.example.com
      http:
        paths:
          - pathType: Prefix
            path: /
            backend:
              service:
                name: not-there
                port:
                  number: 80
";

fn examples_are_served() -> Result<()> {
    let world = World::start("kserve", 3)?;
    world.apply(WILDCARD_HOST)?;
    world.apply(TWO_HOSTS)?;
    let started = Instant::now();
    world.start_daemons()?;
    for (site, service) in [
        (("foo.bar.com", "/bar"), "service1"),
        (("a.foo.com", "/foo/x"), "service2"),
        (("app.test.com", "/"), "service1"),
        (("app.prod.com", "/"), "service2"),
    ] {
        world.until_served_by(site, service, started)?;
    }
    println!(
        "kserve: daemons started and all four sites served within {:.2} s",
        started.elapsed().as_secs_f64()
    );

    let vip = world.vip()?.to_string();
    for name in ["ingress-wildcard-host", "two-hosts"] {
        load::wait_for(&format!("status of {name} has {vip}"), LIVE, || {
            let ingress = world.get("ingress", name)?;
            let addresses =
                ingress["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
            Ok(addresses.iter().any(|address| address["ip"] == vip.as_str()))
        })
        .with_context(|| world.logs())?;
    }

    // The slices of service1 now name a pod of service2, which never answered for this site before.
    let other: Vec<_> = world.lab.pods_of("service2").collect();
    world.lab.declare_endpoints("service1", &other[..1])?;
    let changed = Instant::now();
    world.apply_changes()?;
    let applied = changed.elapsed();
    let live = world.until_served_by(("app.test.com", "/"), "service2", changed)?;
    println!(
        "kserve: a changed EndpointSlice was applied after {:.0} ms (kubectl) and live after {:.0} ms",
        applied.as_secs_f64() * 1e3,
        live.as_secs_f64() * 1e3
    );
    Ok(())
}

fn broken_ingress_gets_an_event() -> Result<()> {
    let world = World::start("kbroken", 1)?;
    world.apply(TWO_HOSTS)?;
    world.start_daemons()?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    world.apply(BROKEN)?;
    load::wait_for("an Event about the broken Ingress", LIVE, || {
        let selector = "--field-selector=involvedObject.kind=Ingress,involvedObject.name=broken";
        let events = world.cluster.kubectl(&["get", "events", selector, "--output=json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        Ok(events.iter().any(|event| {
            let message = event["message"].as_str().or_else(|| event["note"].as_str()).unwrap_or_default();
            event["type"] == "Warning" && message.contains("not-there")
        }))
    })
    .with_context(|| world.logs())?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    let none = world.get("ingress", "broken")?;
    ensure!(none["metadata"]["name"] == "broken", "the broken Ingress is still there for its owner to mend");
    Ok(())
}
