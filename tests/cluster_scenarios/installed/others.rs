//! Objects as other programs write and remove them: cert-manager's HTTP-01 solver with the Secret that follows, the canary
//! Ingress of Flagger and Argo Rollouts, and the namespace controller, which takes everything with a namespace.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ingress_tests::{
    cluster::POD_IMAGE,
    lab::{
        echo::Echo,
        http::{Target, get},
        load::{self, SteadyRequests},
    },
};
use libtest_mimic::Trial;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;

use super::{
    scenario,
    world::{Installed, PATIENCE, ingress, pods_that_answer, with},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("installed::an_http01_solver_answers_and_secrets_come_rotate_and_go", solver_and_secret),
        scenario("installed::a_canary_takes_the_requests_that_its_ingress_says", canary),
        scenario("installed::a_namespace_takes_its_routes_and_addresses_and_nothing_else", namespace_goes),
    ]
}

/// The Ingress of a site, as its owner writes it: the Secret is not there yet.
const SITE: &str = r"apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: site
  annotations: {cert-manager.io/cluster-issuer: letsencrypt}
spec:
  ingressClassName: xdp
  tls: [{hosts: [site.example.com], secretName: site-tls}]
  rules:
    - host: site.example.com
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}
";

/// What cert-manager creates for a challenge (its solver pod is played by the lab's backend, which listens on 8089).
const SOLVER: &str = r#"apiVersion: v1
kind: Service
metadata:
  name: cm-acme-http-solver-x7k2p
  labels: {acme.cert-manager.io/http-domain: "1182404271", acme.cert-manager.io/http-token: "939017382", acme.cert-manager.io/http01-solver: "true"}
  annotations: {auth.istio.io/8089: NONE}
spec:
  type: NodePort
  ports: [{name: http, port: 8089, targetPort: 8089}]
  selector: {app: web}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: cm-acme-http-solver-9w8rz
  labels: {acme.cert-manager.io/http01-solver: "true"}
  annotations: {nginx.ingress.kubernetes.io/whitelist-source-range: "0.0.0.0/0,::/0"}
spec:
  ingressClassName: xdp
  rules:
    - host: site.example.com
      http:
        paths:
          - path: /.well-known/acme-challenge/Jq2kM0-token
            pathType: Exact
            backend: {service: {name: cm-acme-http-solver-x7k2p, port: {number: 8089}}}
"#;

fn solver_and_secret() -> Result<()> {
    with(|installed| {
        installed.kubernetes.apply(SITE)?;
        installed.kubernetes.apply(SOLVER)?;
        let challenge = Installed::target("site.example.com", "/.well-known/acme-challenge/Jq2kM0-token");
        let live = installed.until(&challenge, |answer| {
            answer.status == 200 && answer.echo().is_ok_and(|echo| echo.request.contains("Jq2kM0-token"))
        })?;
        println!(
            "installed: the solver answered over plain HTTP {:.1} s after it was applied",
            live.as_secs_f64()
        );

        // The authority is satisfied: the Secret appears, and the solver goes.
        for round in ["appears", "is rotated"] {
            let authority = put_certificate(installed)?;
            load::wait_for(&format!("the certificate that {round} to be served"), PATIENCE, || {
                Ok(https(installed, &authority).is_ok())
            })?;
        }
        let authority = installed.kubernetes.lab().dir().join("site.crt").display().to_string();
        installed.kubernetes.kubectl(&["delete", "secret", "site-tls"])?;
        load::wait_for("the certificate that is gone not to be served", PATIENCE, || {
            Ok(https(installed, &authority).is_err())
        })?;
        installed.kubernetes.kubectl(&["delete", "ingress", "site", "cm-acme-http-solver-9w8rz"])?;
        installed.kubernetes.kubectl(&["delete", "service", "cm-acme-http-solver-x7k2p"])?;
        Ok(())
    })
}

/// Makes a certificate and puts it into the Secret; its file, to check answers against.
fn put_certificate(installed: &Installed) -> Result<String> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["site.example.com".to_owned()])?;
    let dir = installed.kubernetes.lab().dir();
    let (certificate, key) = (dir.join("site.crt"), dir.join("site.key"));
    fs::write(&certificate, cert.pem())?;
    fs::write(&key, signing_key.serialize_pem())?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (cert_flag, key_flag) = (format!("--cert={certificate}"), format!("--key={key}"));
    let create =
        ["create", "secret", "tls", "site-tls", &cert_flag, &key_flag, "--dry-run=client", "-o", "yaml"];
    let secret = installed.kubernetes.kubectl(&create)?;
    installed.kubernetes.apply(&secret)?;
    Ok(certificate)
}

/// Asks over TLS and trusts `authority` alone.
fn https(installed: &Installed, authority: &str) -> Result<String> {
    let resolve = format!("site.example.com:443:{}", Installed::vip());
    let arguments =
        ["-sS", "--max-time", "3", "--cacert", authority, "--resolve", &resolve, "https://site.example.com/"];
    installed.client().output("curl", &arguments)
}

fn canary() -> Result<()> {
    with(|installed| {
        // As Flagger's nginx router and Argo Rollouts write it: a copy of the stable Ingress with annotations more.
        let write = |rules: &str| {
            let annotations = format!(r#"nginx.ingress.kubernetes.io/canary: "true", {rules}"#);
            installed.kubernetes.apply(&ingress("web-canary", "web.example.com", "canary", &annotations))
        };
        let weight = |weight: u8| format!(r#"nginx.ingress.kubernetes.io/canary-weight: "{weight}""#);
        installed.kubernetes.apply(&super::world::backend("canary", "canary.example.com"))?;
        installed.wait_for_daemon_set("default", "canary")?;
        let target = Installed::target("web.example.com", "/");
        let all_are = |prefix: &str, target: &Target| -> Result<bool> {
            Ok(pods_that_answer(installed, target, 10)?.iter().all(|pod| pod.starts_with(prefix)))
        };
        write(&weight(100))?;
        load::wait_for("the canary to get all requests", PATIENCE, || all_are("canary-", &target))?;
        write(&weight(50))?;
        load::wait_for("both to get requests", PATIENCE, || {
            let pods = pods_that_answer(installed, &target, 20)?;
            Ok(["web-", "canary-"].iter().all(|prefix| pods.iter().any(|pod| pod.starts_with(prefix))))
        })?;
        // Flagger's A/B test.
        write(
            r#"nginx.ingress.kubernetes.io/canary-by-header: "X-Canary", nginx.ingress.kubernetes.io/canary-by-header-value: "insider""#,
        )?;
        load::wait_for("only insiders to get the canary", PATIENCE, || {
            Ok(all_are("web-", &target)? && insider_gets(installed)?.starts_with("canary-"))
        })?;
        // The end of Flagger's promotion.
        write(&weight(0))?;
        load::wait_for("nobody to get the canary", PATIENCE, || {
            Ok(all_are("web-", &target)? && !insider_gets(installed)?.starts_with("canary-"))
        })?;
        ensure!(!installed.has_warning("web-canary", "canary")?, "a canary is nothing to warn of");
        installed.kubernetes.kubectl(&["delete", "ingress", "web-canary", "canary"])?;
        installed.kubernetes.kubectl(&["delete", "daemonset,service", "canary"])?;
        installed
            .until(&target, |answer| answer.echo().is_ok_and(|echo| echo.pod.starts_with("web-")))
            .map(drop)
    })
}

/// The pod that answers somebody whom Flagger's A/B test shows the canary.
fn insider_gets(installed: &Installed) -> Result<String> {
    let url = format!("http://{}/", Installed::vip());
    let arguments =
        ["-sS", "--max-time", "3", "-H", "Host: web.example.com", "-H", "X-Canary: insider", &url];
    Ok(Echo::parse(&installed.client().output("curl", &arguments)?)?.pod)
}

/// A tenant with an Ingress at the class's VIP, one at an address of its own, and pods.
const TEAM: &str = r#"apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: xdp-ingress.io/v1alpha1
kind: AddressPool
metadata: {name: team}
spec: {addresses: [10.77.0.120], autoAssign: false}
---
apiVersion: v1
kind: Pod
metadata: {name: shop, namespace: team, labels: {app: shop}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: backend
      image: IMAGE
      imagePullPolicy: Never
      env: [{name: XDP_INGRESS_LAB_ECHO, value: "shop anywhere 8080"}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: team}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shared, namespace: team}
spec:
  ingressClassName: xdp
  rules: [{host: shop.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: own, namespace: team, annotations: {xdp-ingress.io/address-pool: team}}
spec:
  ingressClassName: xdp
  rules: [{host: shop.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}]
"#;

fn namespace_goes() -> Result<()> {
    with(|installed| {
        installed.kubernetes.apply(&TEAM.replace("IMAGE", POD_IMAGE))?;
        let shared = Installed::target("shop.example.com", "/");
        let own = Target::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 120)), "shop.example.com", "/");
        for target in [&shared, &own] {
            installed.until(target, |answer| answer.echo().is_ok_and(|echo| echo.pod == "shop"))?;
        }
        let used =
            || -> Result<Value> { Ok(installed.get(&["addresspool", "team"])?["status"]["used"].clone()) };
        load::wait_for("the pool to say that its address is used", PATIENCE, || Ok(used()? == 1))?;
        let others =
            SteadyRequests::start(installed.client(), &Installed::target("web.example.com", "/"), 40);

        let deleted = Instant::now();
        installed.kubernetes.kubectl(&["delete", "namespace", "team", "--wait=false"])?;
        let gone = installed.until(&shared, |answer| answer.status == 404)?;
        load::wait_for("nobody to answer at the address of its own", PATIENCE, || {
            installed.client().run(|| Ok(get(&own, Duration::from_secs(1)).is_err()))
        })?;
        load::wait_for("the address to be free again", PATIENCE, || Ok(used()? == 0))?;
        let names = ["get", "namespaces", "--output=name"];
        load::wait_for("the namespace to be gone", PATIENCE, || {
            Ok(!installed.kubernetes.kubectl(&names)?.contains("namespace/team"))
        })?;
        let report = others.finish()?;
        println!(
            "installed: routes of a deleted namespace were gone after {:.1} s, it after {:.1} s; {} of {} requests of others lost",
            gone.as_secs_f64(),
            deleted.elapsed().as_secs_f64(),
            report.lost(),
            report.sent(),
        );
        installed.kubernetes.kubectl(&["delete", "addresspool", "team"])?;
        ensure!(report.lost() == 0, "lost: {:?}", report.losses());
        Ok(())
    })
}
