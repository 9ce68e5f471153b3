//! The narrowest rights: the daemon may read one Secret by its name and no other, and serves with that.

use std::time::Instant;

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

/// The Secrets whose certificates the daemon serves.
fn certificates(world: &World) -> Result<Vec<String>> {
    let status = world.lab.nodes()[0].status()?;
    let served = status["snapshot"]["certificates"].as_array().cloned().unwrap_or_default();
    Ok(served.iter().filter_map(|one| one["secret"].as_str()).map(str::to_owned).collect::<Vec<_>>())
}
