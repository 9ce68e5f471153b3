//! The narrowest rights: the daemon may read one Secret by its name and no other, and serves with that.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::lab::{
    http::{Failure, Response, Target},
    load,
    manifests::{TLS, TWO_HOSTS, tls_secret},
    tls::Authority,
};
use libtest_mimic::Trial;

use super::{
    scenario,
    world::{ACCOUNT, LIVE, World},
};

/// The Secret of `TLS`.
const NAMED: &str = "secure-example-com";
const NARROW: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: xdp-ingress-secrets, namespace: default}
rules:
  - apiGroups: ['']
    resources: [secrets]
    resourceNames: [secure-example-com, clients-authority]
    verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: xdp-ingress-secrets, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: xdp-ingress-secrets}
subjects: [{kind: ServiceAccount, name: xdp-ingress, namespace: xdp-ingress}]
";
/// Names a Secret that the daemon may not read.
const FORBIDDEN: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: forbidden, namespace: default}
spec:
  ingressClassName: xdp
  tls: [{hosts: [other.example.com], secretName: other}]
  rules:
    - host: other.example.com
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: service1, port: {number: 80}}}}
";

/// Names a Secret in an annotation alone, of the type that `kubectl create secret generic` gives.
const CLIENT_AUTH: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: client-auth
  namespace: default
  annotations: {nginx.ingress.kubernetes.io/auth-tls-secret: default/clients-authority}
spec:
  ingressClassName: xdp
  rules:
    - host: clients.example.com
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: service1, port: {number: 80}}}}
";

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("secrets::only_what_ingresses_name_is_read", only_what_is_named)]
}

fn only_what_is_named() -> Result<()> {
    let world = World::start("ksecret", 1)?;
    for kind in ["clusterrolebinding", "clusterrole"] {
        world.cluster.kubectl(&["delete", kind, "xdp-ingress-secrets"])?;
    }
    world.apply(NARROW)?;
    for (question, expected) in [
        (["get", "secrets/secure-example-com", "--namespace=default"], "yes"),
        (["watch", "secrets/secure-example-com", "--namespace=default"], "yes"),
        (["get", "secrets/other", "--namespace=default"], "no"),
        (["list", "secrets", "--namespace=default"], "no"),
        (["list", "secrets", "--all-namespaces"], "no"),
        (["get", "secrets/secure-example-com", "--namespace=kube-system"], "no"),
    ] {
        let question = [&["auth", "can-i", "--as", ACCOUNT][..], &question].concat();
        // `no` is also its exit status.
        let answer = world.cluster.kubectl(&question).unwrap_or_else(|_| "no".to_owned());
        ensure!(answer.trim() == expected, "{}: {answer}", question.join(" "));
    }

    let authority = Authority::new()?;
    let secret = |name, host| Ok::<_, anyhow::Error>(tls_secret(name, &authority.issue(&[host])?));
    world.apply(&secret("other", "other.example.com")?)?;
    world.apply(&secret("nobodys", "nobody.example.com")?)?;
    for yaml in [TWO_HOSTS, TLS, FORBIDDEN] {
        world.apply(yaml)?;
    }
    // One that appears later: its watch has been waiting for it.
    world.start_daemons()?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    ensure!(certificates(&world)?.is_empty(), "certificates out of nothing");
    world.apply(&secret(NAMED, "secure.example.com")?)?;
    let served =
        load::wait_for("the certificate", LIVE, || Ok(certificates(&world)? == [format!("default/{NAMED}")]))
            .with_context(|| world.logs())?;
    println!("ksecret: a Secret that appeared was served after {:.0} ms", served.as_secs_f64() * 1e3);
    let memory = std::fs::read_to_string(world.lab.nodes()[0].state_dir().join("memory/objects"))?;
    ensure!(!memory.contains("nobodys"), "a Secret that nobody names was read");

    is_said_to_expire(&world, &authority)?;

    // One that only an annotation names: without it nobody gets in, with it those without a certificate do not.
    let clients = Target::new(world.vip()?, "clients.example.com", "/");
    let answers = |status: u16| {
        load::until(world.client(), &clients, Instant::now(), LIVE, |answer: &Result<Response, Failure>| {
            answer.as_ref().is_ok_and(|answer| answer.status == status)
        })
        .with_context(|| format!("{clients} should get {status}; {}", world.logs()))
    };
    world.apply(CLIENT_AUTH)?;
    answers(503)?;
    let file = world.lab.dir().join("ca.crt");
    std::fs::write(&file, authority.certificate())?;
    let from_file = format!("--from-file={}", file.display());
    world.cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "clients-authority",
        "-n",
        "default",
        &from_file,
    ])?;
    answers(403)?;

    // One that goes is no longer served; the plain sites go on.
    world.cluster.kubectl(&["delete", "secret", NAMED, "--namespace=default"])?;
    load::wait_for("no certificate", LIVE, || Ok(certificates(&world)?.is_empty()))?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    Ok(())
}

/// Whoever was to renew the certificate is late: the metric says until when it is good, an Event at the Secret what to do.
fn is_said_to_expire(world: &World, authority: &Authority) -> Result<()> {
    let left = Duration::from_hours(72);
    let end = SystemTime::now().duration_since(UNIX_EPOCH)? + left;
    let identity = authority.issue_for(&["secure.example.com"], left)?;
    world.apply(&tls_secret(NAMED, &identity))?;
    let metric = format!("xdp_ingress_certificate_not_after_seconds{{secret=\"default/{NAMED}\"}} ");
    let good_until = || -> Result<f64> {
        let metrics = world.lab.nodes()[0].metrics()?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(&metric)).context("no such metric")?;
        Ok(value.parse()?)
    };
    load::wait_for("the metric", LIVE, || Ok((good_until()? - end.as_secs_f64()).abs() < 5.0))?;
    let selector = format!("--field-selector=involvedObject.kind=Secret,involvedObject.name={NAMED}");
    let told = load::wait_for("an Event at the Secret", LIVE, || {
        let events = world.cluster.kubectl(&["get", "events", &selector, "--output=json"])?;
        Ok(events.contains("\"Expiring\"") && events.contains("renew the certificate"))
    })
    .with_context(|| world.logs())?;
    println!("ksecret: the Event about a certificate's end came after {:.0} ms", told.as_secs_f64() * 1e3);
    // Renewed: all is well again.
    world.apply(&tls_secret(NAMED, &authority.issue(&["secure.example.com"])?))?;
    load::wait_for("the renewed one", LIVE, || Ok(good_until()? > end.as_secs_f64() + 5.0))?;
    let problems = world.lab.nodes()[0].status()?["problems"].to_string();
    ensure!(!problems.contains("Expiring"), "{problems}");
    Ok(())
}

/// The Secrets whose certificates the daemon serves.
fn certificates(world: &World) -> Result<Vec<String>> {
    let status = world.lab.nodes()[0].status()?;
    let served = status["snapshot"]["certificates"].as_array().cloned().unwrap_or_default();
    Ok(served.iter().filter_map(|one| one["secret"].as_str()).map(str::to_owned).collect::<Vec<_>>())
}
