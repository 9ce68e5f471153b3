//! VIPs of classes side by side: allocated, kept, given up and exhausted, on the real API server, with the rights of
//! `deploy/manifests`.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    http::{Failure, Response, Target},
    load,
    manifests::TWO_HOSTS,
};
use libtest_mimic::Trial;
use serde_json::Value;

use super::{
    scenario,
    world::{ACCOUNT, LIVE, World},
};

/// Both classes' Ingresses have this host.
const HOST: &str = "same.example.com";
const POOL: &str = "
apiVersion: xdp-ingress.io/v1alpha1
kind: AddressPool
metadata: {name: more}
spec: {addresses: [10.77.0.110-10.77.0.112], autoAssign: false}
---
apiVersion: xdp-ingress.io/v1alpha1
kind: IngressClassParameters
metadata: {name: more}
spec: {pool: more}
";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("vips::classes_have_and_keep_their_own", classes_have_and_keep_their_own),
        scenario("vips::a_pool_selects_namespaces_and_ingresses_by_their_labels", selectors),
    ]
}

fn class(name: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: {name}}}
spec:
  controller: xdp-ingress.io/controller
  parameters: {{apiGroup: xdp-ingress.io, kind: IngressClassParameters, name: more}}
---"
    )
}

fn ingress(name: &str, class: &str, host: &str, service: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: default}}
spec:
  ingressClassName: {class}
  rules:
    - host: {host}
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}
---"
    )
}

fn classes_have_and_keep_their_own() -> Result<()> {
    let world = World::start("kvips", 1)?;
    let refused = world.apply(&POOL.replace("10.77.0.110-10.77.0.112", "nonsense")).err();
    let refused = refused.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("must be an address"), "a pool without sense: {refused:?}");

    world.apply(POOL)?;
    world.apply(&[class("a"), class("b")].concat())?;
    world.apply(
        &[
            ingress("in-a", "a", HOST, "service1"),
            ingress("only-a", "a", "a.example.com", "service1"),
            ingress("in-b", "b", HOST, "service2"),
        ]
        .concat(),
    )?;
    world.start_daemons()?;
    let [a, b, c]: [IpAddr; 3] = [110, 111, 112].map(|last| IpAddr::from([10, 77, 0, last]));
    served_by(&world, a, HOST, "service1")?;
    served_by(&world, b, HOST, "service2")?;
    answers(&world, a, "a.example.com", 200)?;
    answers(&world, b, "a.example.com", 404)?;
    allocated(&world, &[(a, "a"), (b, "b")])?;
    load::wait_for("the status of in-b", LIVE, || {
        Ok(world.get("ingress", "in-b")?["status"]["loadBalancer"]["ingress"][0]["ip"] == b.to_string())
    })?;

    // The older class goes; a daemon that has forgotten everything comes.
    world.cluster.kubectl(&["delete", "ingressclass", "a"])?;
    allocated(&world, &[(b, "b")])?;
    let node = &world.lab.nodes()[0];
    node.kill_daemon();
    std::fs::remove_dir_all(node.state_dir().join("memory")).context("the remembered objects")?;
    world.start_daemons()?;
    served_by(&world, b, HOST, "service2")?;
    allocated(&world, &[(b, "b")])?;

    // What is free is given out again, until nothing is.
    world.apply(&[class("c"), class("d")].concat())?;
    allocated(&world, &[(a, "c"), (b, "b"), (c, "d")])?;
    world.cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=20s", "addresspool/more"])?;
    world.apply(&class("e"))?;
    world.cluster.kubectl(&["wait", "--for=condition=Ready=False", "--timeout=20s", "addresspool/more"])?;
    load::wait_for("an Event about class e", LIVE, || {
        let selector = "--field-selector=involvedObject.kind=IngressClass,involvedObject.name=e";
        let events = world.cluster.kubectl(&["get", "events", selector, "--output=json"])?;
        Ok(events.contains("Exhausted"))
    })
    .with_context(|| world.logs())?;
    served_by(&world, b, HOST, "service2")?;
    println!("{}", world.cluster.kubectl(&["get", "addresspools,ingressclassparameters"])?);

    // An Ingress that leaves our classes loses routes and status.
    let patch = r#"{"spec":{"ingressClassName":"somebody-else"}}"#;
    let left = Instant::now();
    world.cluster.kubectl(&[
        "patch",
        "ingress",
        "in-b",
        "--namespace=default",
        "--type=merge",
        "--patch",
        patch,
    ])?;
    answers(&world, b, HOST, 404)?;
    let routes = left.elapsed();
    load::wait_for("an empty status", LIVE, || {
        Ok(world.get("ingress", "in-b")?["status"]["loadBalancer"]["ingress"].is_null())
    })?;
    println!(
        "kvips: an Ingress that left lost its routes after {:.0} ms and its status after {:.0} ms",
        routes.as_secs_f64() * 1e3,
        left.elapsed().as_secs_f64() * 1e3
    );

    // Somebody else on the link has one of them too.
    world.client().ip(&format!("addr add {b}/32 dev eth0\n"))?;
    load::wait_for("an Event about the pool of the address that another host has", LIVE, || {
        let selector = "--field-selector=involvedObject.kind=AddressPool,involvedObject.name=more";
        let events = world.cluster.kubectl(&["get", "events", selector, "--output=json"])?;
        Ok(events.contains("AddressConflict") && events.contains(&format!("answers for {b}")))
    })
    .with_context(|| world.logs())?;
    Ok(())
}

/// Waits until the pool's status says this and no more.
fn allocated(world: &World, wanted: &[(IpAddr, &str)]) -> Result<Duration> {
    let wanted: Vec<(String, String)> =
        wanted.iter().map(|(address, class)| (address.to_string(), (*class).to_owned())).collect();
    load::wait_for(&format!("allocations {wanted:?}"), LIVE, || {
        let pool = world.get("addresspool", "more")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let allocations = pool["status"]["allocations"].as_array().cloned().unwrap_or_default();
        let found: Vec<_> =
            allocations.iter().map(|one| (text(&one["address"]), text(&one["ingressClass"]))).collect();
        Ok(found == wanted)
    })
    .with_context(|| world.logs())
}

fn served_by(world: &World, vip: IpAddr, host: &str, service: &str) -> Result<()> {
    let prefix = format!("{service}-");
    let target = Target::new(vip, host, "/");
    load::until(world.client(), &target, Instant::now(), LIVE, |answer: &Result<Response, Failure>| {
        let echo = answer.as_ref().ok().and_then(|response| response.echo().ok());
        echo.is_some_and(|echo| echo.pod.starts_with(&prefix))
    })
    .with_context(|| format!("{host} at {vip} should be served by {service}; {}", world.logs()))
    .map(drop)
}

fn answers(world: &World, vip: IpAddr, host: &str, status: u16) -> Result<()> {
    let target = Target::new(vip, host, "/");
    load::until(world.client(), &target, Instant::now(), LIVE, |answer: &Result<Response, Failure>| {
        answer.as_ref().is_ok_and(|response| response.status == status)
    })
    .with_context(|| format!("{host} at {vip} should get {status}; {}", world.logs()))
    .map(drop)
}

const SELECTING: &str = "
apiVersion: xdp-ingress.io/v1alpha1
kind: AddressPool
metadata: {name: selecting}
spec:
  addresses: [10.77.0.120]
  namespaceSelectors: [{matchLabels: {tenant: shops}}]
  ingressSelectors: [{matchLabels: {exposure: public}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: default
  labels: {exposure: public}
  annotations: {xdp-ingress.io/address-pool: selecting}
spec:
  ingressClassName: xdp
  defaultBackend: {service: {name: service1, port: {number: 80}}}
";
/// What the chart binds with `rbac.namespaces=true`.
const NAMESPACES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: xdp-ingress-namespaces}
rules: [{apiGroups: [''], resources: [namespaces], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: xdp-ingress-namespaces}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: xdp-ingress-namespaces}
subjects: [{kind: ServiceAccount, name: xdp-ingress, namespace: xdp-ingress}]
";

fn selectors() -> Result<()> {
    let world = World::start("kselect", 1)?;
    let wrong =
        SELECTING.replace("{matchLabels: {tenant: shops}}", "{matchExpressions: [{key: a, operator: In}]}");
    let refused = world.apply(&wrong).err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("In and NotIn need values"), "a selector without values: {refused}");
    world.apply(TWO_HOSTS)?;
    world.start_daemons()?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    let asked = |verb: &str| {
        anyhow::Ok(world.cluster.requests_of(ACCOUNT)?.contains_key(&format!("{verb} namespaces")))
    };
    ensure!(!asked("list")?, "namespaces are read though no pool selects any");

    // Nobody may read namespaces: the pool says so, and all else goes on.
    world.apply(SELECTING)?;
    load::wait_for("an Event about the pool", LIVE, || {
        let selector = "--field-selector=involvedObject.kind=AddressPool,involvedObject.name=selecting";
        Ok(world
            .cluster
            .kubectl(&["get", "events", selector, "-A", "--output=json"])?
            .contains("rbac.namespaces"))
    })
    .with_context(|| world.logs())?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;

    // They may: the label lets the Ingress in, and out.
    let vip: IpAddr = "10.77.0.120".parse()?;
    let shown = || {
        let ingress = world.get("ingress", "shop")?;
        Ok(ingress["status"]["loadBalancer"]["ingress"][0]["ip"] == vip.to_string())
    };
    world.apply(NAMESPACES)?;
    world.cluster.kubectl(&["label", "namespace", "default", "tenant=shops"])?;
    served_by(&world, vip, HOST, "service1")?;
    load::wait_for("the address in its status", LIVE, shown)?;
    world.cluster.kubectl(&["label", "namespace", "default", "tenant-"])?;
    load::wait_for("no address in its status", LIVE, || Ok(!shown()?)).with_context(|| world.logs())?;
    world.cluster.kubectl(&["label", "namespace", "default", "tenant=shops"])?;
    load::wait_for("the address again", LIVE, shown)?;
    world.cluster.kubectl(&["label", "ingress", "shop", "--namespace=default", "exposure-"])?;
    load::wait_for("no address without the Ingress's own label", LIVE, || Ok(!shown()?))?;

    // And nobody watches them any longer than a pool asks for it.
    world.cluster.kubectl(&["delete", "addresspool", "selecting"])?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    ensure!(asked("watch")?, "the namespaces were not watched");
    Ok(())
}
