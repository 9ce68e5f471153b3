//! The 25 scenarios of kubernetes-sigs/ingress-controller-conformance (release 1.19 of the Ingress specification) as a
//! table of our own, against the release on the real cluster through the VIP. The result is the first part of
//! `docs/conformance.md`; `cargo xtask conformance` writes it. The second part is `upstream.rs`'s.

use std::{env, fmt::Write as _, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::{
    cluster::POD_IMAGE,
    lab::{http, load},
    paths,
};
use libtest_mimic::Trial;
use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::{
    scenario,
    world::{Installed, PATIENCE, with},
};

const SPACE: &str = "conformance";
/// The heading above what `upstream.rs` writes.
const SECOND_PART: &str = "\n## Kubernetes' own tests\n";

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("conformance::the_25_scenarios_hold", conformance)]
}

/// Who has to answer.
#[derive(Clone, Copy)]
enum Wanted {
    Service(&'static str),
    /// The same over TLS, with a certificate for the host.
    Tls(&'static str),
    /// Nobody: 404.
    None,
    /// Ten different pods, within 100 requests.
    TenPods,
    /// The Ingress gets no address, and its host no answer.
    NotOurs,
}
use Wanted::{None as Nobody, NotOurs, Service, TenPods, Tls};

/// Feature, Ingress in force, what is shown, host, path, who answers.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, Wanted);

const ROWS: [Row; 25] = [
    (
        "default backend",
        "default",
        "no rules: all requests go to the default backend",
        "any.example",
        "/",
        Service("echo-service"),
    ),
    (
        "host rules",
        "hosts",
        "a host over TLS, its certificate names it",
        "foo.bar.com",
        "/",
        Tls("foo-bar-com"),
    ),
    ("host rules", "hosts", "foo.bar.com matches foo.bar.com", "foo.bar.com", "/", Service("foo-bar-com")),
    ("host rules", "hosts", "foo.bar.com does not match subdomain.bar.com", "subdomain.bar.com", "/", Nobody),
    ("host rules", "hosts", "*.foo.com matches bar.foo.com", "bar.foo.com", "/", Service("wildcard-foo-com")),
    ("host rules", "hosts", "*.foo.com does not match two labels", "baz.bar.foo.com", "/", Nobody),
    ("host rules", "hosts", "*.foo.com does not match no label", "foo.com", "/", Nobody),
    (
        "ingress class",
        "foreign",
        "an unknown class gets no address and no traffic",
        "ingress-class",
        "/",
        NotOurs,
    ),
    ("load balancing", "default", "100 requests reach all 10 pods", "load-balancing", "/", TenPods),
    ("path rules", "paths", "exact /foo matches /foo", "exact-path-rules", "/foo", Service("foo-exact")),
    ("path rules", "paths", "exact /foo does not match /foo/", "exact-path-rules", "/foo/", Nobody),
    ("path rules", "paths", "exact /foo does not match /FOO", "exact-path-rules", "/FOO", Nobody),
    ("path rules", "paths", "exact /foo does not match /bar", "exact-path-rules", "/bar", Nobody),
    ("path rules", "paths", "prefix /foo matches /foo", "prefix-path-rules", "/foo", Service("foo-prefix")),
    ("path rules", "paths", "prefix /foo matches /foo/", "prefix-path-rules", "/foo/", Service("foo-prefix")),
    ("path rules", "paths", "prefix /foo does not match /FOO", "prefix-path-rules", "/FOO", Nobody),
    (
        "path rules",
        "paths",
        "prefix /aaa/bbb matches /aaa/bbb, the longest wins",
        "prefix-path-rules",
        "/aaa/bbb",
        Service("aaa-slash-bbb-prefix"),
    ),
    (
        "path rules",
        "paths",
        "prefix /aaa/bbb matches /aaa/bbb/ccc",
        "prefix-path-rules",
        "/aaa/bbb/ccc",
        Service("aaa-slash-bbb-prefix"),
    ),
    (
        "path rules",
        "paths",
        "prefix /aaa matches /aaa/ccc",
        "prefix-path-rules",
        "/aaa/ccc",
        Service("aaa-prefix"),
    ),
    ("path rules", "paths", "prefix /aaa does not match /aaaccc", "prefix-path-rules", "/aaaccc", Nobody),
    (
        "path rules",
        "paths",
        "prefix /foo ignores the request's trailing slash",
        "prefix-path-rules",
        "/foo/",
        Service("foo-prefix"),
    ),
    (
        "path rules",
        "paths",
        "exact /foo is preferred to prefix /foo",
        "mixed-path-rules",
        "/foo",
        Service("foo-exact"),
    ),
    (
        "path rules",
        "paths",
        "prefix /aaa/bbb/ matches /aaa/bbb",
        "trailing-slash-path-rules",
        "/aaa/bbb",
        Service("aaa-slash-bbb-slash-prefix"),
    ),
    (
        "path rules",
        "paths",
        "prefix /aaa/bbb/ matches /aaa/bbb/",
        "trailing-slash-path-rules",
        "/aaa/bbb/",
        Service("aaa-slash-bbb-slash-prefix"),
    ),
    ("path rules", "paths", "exact /foo/ does not match /foo", "trailing-slash-path-rules", "/foo", Nobody),
];

/// Services with one pod each.
const SERVICES: [&str; 7] = [
    "foo-bar-com",
    "wildcard-foo-com",
    "foo-exact",
    "foo-prefix",
    "aaa-slash-bbb-prefix",
    "aaa-prefix",
    "aaa-slash-bbb-slash-prefix",
];

fn conformance() -> Result<()> {
    with(|installed| {
        installed
            .kubernetes
            .apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SPACE}}}\n"))?;
        let result = run(installed);
        installed.kubernetes.kubectl(&["delete", "namespace", SPACE, "--wait=false"])?;
        result
    })
}

fn run(installed: &Installed) -> Result<()> {
    let authority = prepare(installed)?;
    let mut table = String::from(HEAD);
    let (mut failed, mut applied) = (Vec::new(), "");
    for (feature, ingress, shows, host, path, wanted) in ROWS {
        if applied != ingress {
            if !applied.is_empty() {
                installed.kubernetes.kubectl(&["delete", "ingress", "-n", SPACE, "--all"])?;
            }
            installed.kubernetes.apply(&manifest(ingress))?;
            applied = ingress;
            // Live when its last rule is: all of an Ingress is served by one snapshot.
            std::thread::sleep(Duration::from_secs(1));
        }
        let outcome = match check(installed, &authority, host, path, wanted) {
            Ok(()) => "passed",
            Err(error) => {
                failed.push(format!("{feature}: {shows}: {error:#}"));
                "**failed**"
            }
        };
        writeln!(table, "| {feature} | {shows} | {outcome} |")?;
    }
    println!("conformance: {} of {} scenarios passed", ROWS.len() - failed.len(), ROWS.len());
    if env::var_os("XDP_INGRESS_UPDATE").is_some() {
        write(&table, &parts()?.1)?;
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    ensure!(parts()?.0 == table, "docs/conformance.md says something else: run `cargo xtask conformance`");
    Ok(())
}

fn page() -> PathBuf {
    paths::workspace().join("docs/conformance.md")
}

/// What is above and below the heading of the page's second part.
fn parts() -> Result<(String, String)> {
    let text = fs::read_to_string(page()).with_context(|| format!("reading {}", page().display()))?;
    let (first, second) = text.split_once(SECOND_PART).unwrap_or((&text, ""));
    Ok((first.to_owned(), second.to_owned()))
}

fn write(first: &str, second: &str) -> Result<()> {
    fs::write(page(), [first, SECOND_PART, second].concat())
        .with_context(|| format!("writing {}", page().display()))
}

/// Puts what Kubernetes' own tests said below the table of the scenarios.
pub(super) fn write_second_part(text: &str) -> Result<()> {
    write(&parts()?.0, text)
}

/// Namespace, pods, Services and the Secret; the file of its certificate.
fn prepare(installed: &Installed) -> Result<String> {
    let mut objects = String::new();
    for service in SERVICES {
        objects += &pod(service, "1");
        objects += &service_of(service);
    }
    for number in 0..10 {
        objects += &pod("echo-service", &number.to_string());
    }
    objects += &service_of("echo-service");
    installed.kubernetes.apply(&objects)?;
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["foo.bar.com".to_owned()])?;
    let file = |name: &str| installed.kubernetes.lab().dir().join(name).display().to_string();
    let (certificate, key) = (file("foo.crt"), file("foo.key"));
    fs::write(&certificate, cert.pem())?;
    fs::write(&key, signing_key.serialize_pem())?;
    let (cert_flag, key_flag) = (format!("--cert={certificate}"), format!("--key={key}"));
    installed.kubernetes.kubectl(&[
        "create",
        "secret",
        "tls",
        "conformance-tls",
        "-n",
        SPACE,
        &cert_flag,
        &key_flag,
    ])?;
    load::wait_for("the backends to be ready", PATIENCE, || {
        let pods = installed.get(&["pods", "-n", SPACE])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &&serde_json::Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok(pods.iter().filter(ready).count() == SERVICES.len() + 10)
    })?;
    Ok(certificate)
}

fn check(installed: &Installed, authority: &str, host: &str, path: &str, wanted: Wanted) -> Result<()> {
    let target = Installed::target(host, path);
    let ask = || {
        let answer = installed.client().run(|| Ok(http::get(&target, Duration::from_secs(5))))?;
        answer.map_err(|failure| anyhow::anyhow!("{target}: {failure}"))
    };
    match wanted {
        Service(service) => {
            let answer = ask()?;
            ensure!(answer.status == 200, "answered with {}", answer.status);
            let echo = answer.echo()?;
            ensure!(
                echo.pod.starts_with(&format!("{service}-")),
                "served by {} instead of {service}",
                echo.pod
            );
            let line = format!("GET {path} HTTP/1.1");
            ensure!(echo.request == line, "the backend saw {}", echo.request);
            ensure!(echo.header("host") == Some(host), "the backend saw the host {:?}", echo.header("host"));
        }
        Tls(service) => {
            let (resolve, url) =
                (format!("{host}:443:{}", target.address.ip()), format!("https://{host}{path}"));
            let arguments = ["-sS", "--max-time", "5", "--cacert", authority, "--resolve", &resolve, &url];
            let body = installed.client().output("curl", &arguments)?;
            ensure!(body.contains(&format!("pod: {service}-")), "{body}");
        }
        Nobody => {
            let status = ask()?.status;
            ensure!(status == 404, "answered with {status} instead of 404");
        }
        TenPods => {
            let mut pods = Vec::new();
            for _ in 0..100 {
                pods.push(ask()?.echo()?.pod);
            }
            pods.sort();
            pods.dedup();
            ensure!(pods.len() == 10, "{} pods answered", pods.len());
        }
        NotOurs => {
            let ingress = installed.get(&["ingress", "foreign", "-n", SPACE])?;
            let addresses = &ingress["status"]["loadBalancer"]["ingress"];
            ensure!(addresses.is_null(), "it got {addresses}");
            let status = ask()?.status;
            ensure!(status == 404, "answered with {status} instead of 404");
        }
    }
    Ok(())
}

fn pod(service: &str, number: &str) -> String {
    let name = format!("{service}-{number}");
    format!(
        r#"---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {SPACE}, labels: {{app: {service}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: backend
      image: {POD_IMAGE}
      imagePullPolicy: Never
      env: [{{name: XDP_INGRESS_LAB_ECHO, value: "{name} node 8080"}}]
"#
    )
}

fn service_of(service: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: {SPACE}}}\n\
         spec: {{selector: {{app: {service}}}, ports: [{{name: http, port: 8080}}]}}\n"
    )
}

/// The Ingress called `name`.
fn manifest(name: &str) -> String {
    let backend = |service: &str| format!("{{service: {{name: {service}, port: {{number: 8080}}}}}}");
    let rule = |host: &str, paths: &[(&str, &str, &str)]| {
        let path = |(path, kind, service): &(&str, &str, &str)| {
            format!("{{path: {path}, pathType: {kind}, backend: {}}}", backend(service))
        };
        let paths: Vec<_> = paths.iter().map(path).collect();
        format!("    - {{host: '{host}', http: {{paths: [{}]}}}}\n", paths.join(", "))
    };
    let (class, spec) = match name {
        "default" => ("xdp", format!("  defaultBackend: {}\n", backend("echo-service"))),
        "hosts" => (
            "xdp",
            format!(
                "  tls: [{{hosts: [foo.bar.com], secretName: conformance-tls}}]\n  rules:\n{}{}",
                rule("*.foo.com", &[("/", "Prefix", "wildcard-foo-com")]),
                rule("foo.bar.com", &[("/", "Prefix", "foo-bar-com")]),
            ),
        ),
        "foreign" => (
            "some-invalid-class-name",
            format!("  rules:\n{}", rule("ingress-class", &[("/", "Prefix", "foo-prefix")])),
        ),
        _ => (
            "xdp",
            format!(
                "  rules:\n{}{}{}{}",
                rule("exact-path-rules", &[("/foo", "Exact", "foo-exact")]),
                rule(
                    "prefix-path-rules",
                    &[
                        ("/foo", "Prefix", "foo-prefix"),
                        ("/aaa/bbb", "Prefix", "aaa-slash-bbb-prefix"),
                        ("/aaa", "Prefix", "aaa-prefix"),
                    ]
                ),
                rule("mixed-path-rules", &[("/foo", "Prefix", "foo-prefix"), ("/foo", "Exact", "foo-exact")]),
                rule(
                    "trailing-slash-path-rules",
                    &[("/aaa/bbb/", "Prefix", "aaa-slash-bbb-slash-prefix"), ("/foo/", "Exact", "foo-exact")]
                ),
            ),
        ),
    };
    // Both schemes of one host are asked: without the annotation plain HTTP is redirected, as ingress-nginx does it.
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: {SPACE}\n  \
         annotations: {{nginx.ingress.kubernetes.io/ssl-redirect: 'false'}}\nspec:\n  ingressClassName: {class}\n{spec}"
    )
}

const HEAD: &str = "# Conformance

The 25 scenarios of
[ingress-controller-conformance](https://github.com/kubernetes-sigs/ingress-controller-conformance), run against the
release on a real cluster (three nodes with containerd and kubelet, installed with helm), asked through the VIP from a
client outside. `cargo xtask conformance` runs them and writes this page.

Set for the host rules: `nginx.ingress.kubernetes.io/ssl-redirect: \"false\"`, because one host is asked over both
schemes there; without it a host with TLS is redirected to https, as ingress-nginx does.

| Feature | Scenario | Result |
|---|---|---|
";
