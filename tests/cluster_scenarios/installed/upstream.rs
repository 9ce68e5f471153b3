//! Kubernetes' own programs against the release on the real cluster: agnhost, the backend of its tests, asked through the
//! VIP; and those of its end-to-end tests that have to do with Ingresses, Services and their slices, with traffic through
//! the VIP beside them. Only `cargo xtask conformance --kubernetes` builds and runs them; it writes what they said into
//! `docs/conformance.md`, below the table of `conformance.rs`.

use std::{env, fmt::Write as _, fs, net::IpAddr, process::Stdio, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ingress_tests::{lab::load::SteadyRequests, paths};
use libtest_mimic::Trial;
use serde_json::Value;

use super::{
    conformance, scenario,
    world::{Installed, ingress, with},
};

/// Set by xtask once everything is built: the name under which the tests ask for agnhost.
const AGNHOST_IMAGE: &str = "XDP_INGRESS_AGNHOST_IMAGE";
/// The tests that are run, as regular expressions over their names.
const FOCUS: [&str; 5] = [
    r"\[sig-network\] Ingress API ",
    r"\[sig-network\] (Default)?IngressClass( API)? ",
    r"\[sig-network\] EndpointSlice ",
    r"\[sig-network\] Services .*\[Conformance\]",
    // What else depends on the way of packets between nodes.
    r"\[sig-network\] Services should (preserve source|allow pods to hairpin|be possible to connect|be able to up and down|work after the service|be rejected when|respect internal|support external)",
];
/// Those of them that are not, and why.
const LEFT_OUT: [(&str, &str); 4] = [
    ("LoadBalancer", "Services of type LoadBalancer are not served by this version"),
    ("SCTP|sctp", "the kernel of the test machine has no SCTP"),
    (
        r"\[Disruptive\]",
        "they restart kube-proxy and the API server by SSH to machines that there are none of",
    ),
    ("evicted pods", "it fills a node's disk, which here is the machine's"),
];
/// The DNS of the cluster, by which the tests find Services: what kubeadm installs, less what it needs the Internet for.
const DNS: &str = r"apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns}
rules:
  - {apiGroups: [''], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      errors
      ready
      cache 5
      kubernetes cluster.local in-addr.arpa {
        pods insecure
        ttl 5
      }
    }
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: coredns, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      containers:
        - name: coredns
          image: xdp-ingress.test/coredns:1
          imagePullPolicy: Never
          args: [-conf, /etc/coredns/Corefile]
          readinessProbe: {httpGet: {port: 8181, path: /ready}, periodSeconds: 1}
          volumeMounts: [{name: config, mountPath: /etc/coredns}]
      volumes: [{name: config, configMap: {name: coredns}}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
";
/// agnhost on every node, as an HTTP server and as one that speaks HTTP/2 without TLS and nothing else.
const AGNHOST: &str = r"apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: agnhost
          image: IMAGE
          imagePullPolicy: Never
          args: [ARGUMENTS]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
          volumeMounts: [{name: uploads, mountPath: /uploads}]
      volumes: [{name: uploads, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{port: 80, targetPort: 8080}]}
---
";
const NETEXEC: &str = "netexec";
const H2C: &str = "h2c-server";

pub(super) fn trials() -> Vec<Trial> {
    if env::var_os(AGNHOST_IMAGE).is_none() {
        return Vec::new();
    }
    vec![scenario("conformance::agnhost_and_kubernetes_own_tests", both)]
}

fn both() -> Result<()> {
    with(|installed| {
        for node in installed.kubernetes.nodes() {
            for image in ["agnhost", "coredns"] {
                node.import(&paths::image(image))?;
            }
        }
        let (by_agnhost, wrong) = agnhost(installed)?;
        let (by_tests, failed) = kubernetes_tests(installed)?;
        conformance::write_second_part(&format!("{INTRODUCTION}{by_agnhost}{by_tests}"))?;
        let failed: Vec<_> = wrong.into_iter().chain(failed).collect();
        ensure!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
        Ok(())
    })
}

/// What an agnhost behind an Ingress answers through the VIP, and what of it is wrong.
fn agnhost(installed: &Installed) -> Result<(String, Vec<String>)> {
    let image = env::var(AGNHOST_IMAGE)?;
    for (name, arguments, protocol) in
        [(NETEXEC, "netexec", "HTTP"), (H2C, "h2c-server, --port=8080", "GRPC")]
    {
        let objects = AGNHOST.replace("IMAGE", &image).replace("ARGUMENTS", arguments).replace("NAME", name);
        let protocol = format!("nginx.ingress.kubernetes.io/backend-protocol: {protocol}");
        let ingress = ingress(name, &format!("{name}.example.com"), name, &protocol);
        installed.kubernetes.apply(&(objects + &ingress))?;
        installed.wait_for_daemon_set("default", name)?;
    }
    installed.until(&Installed::target("netexec.example.com", "/healthz"), |answer| answer.status == 200)?;
    let file = installed.kubernetes.lab().dir().join("upload");
    fs::write(&file, vec![b'x'; 900_000])?;
    let upload = format!("file=@{}", file.display());

    let mut rows = String::new();
    let mut wrong = Vec::new();
    let mut row = |shows: &str, outcome: Result<()>| {
        let said = match outcome {
            Ok(()) => "passed",
            Err(error) => {
                wrong.push(format!("agnhost: {shows}: {error:#}"));
                "**failed**"
            }
        };
        // Writing to a string does not fail.
        let _infallible = writeln!(rows, "| {shows} | {said} |");
    };
    let ask = |arguments: &[&str], path: &str| {
        curl(installed, arguments, &format!("http://{NETEXEC}.example.com{path}"))
    };
    row("`/hostname`: pods on all three nodes answer", all_pods(|| ask(&[], "/hostname")));
    row(
        "`/echo?msg=`: what is encoded in a query arrives as it was",
        is(ask(&[], "/echo?msg=a%26b%3D%2Fc+d"), "a&b=/c d"),
    );
    row(
        "`/echo?code=418`: the status is the backend's",
        is(ask(&["-o", "/dev/null", "-w", "%{http_code}"], "/echo?msg=x&code=418"), "418"),
    );
    row("`/clientip`: the backend sees a node", from_a_node(ask(&[], "/clientip")));
    let client = installed.client().addresses().first().context("the client has no address")?.to_string();
    row(
        "`/header?key=X-Forwarded-For`: and is told the client",
        is(ask(&[], "/header?key=X-Forwarded-For"), &client),
    );
    row(
        "`/header?key=X-Forwarded-For`: which cannot claim to be somebody else",
        is(ask(&["-H", "X-Forwarded-For: 192.0.2.1"], "/header?key=X-Forwarded-For"), &client),
    );
    row(
        "`/redirect`: `Location` and 307 pass as they are",
        is(
            ask(
                &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"],
                "/redirect?location=https%3A%2F%2Fother.example%2F&code=307",
            ),
            "307 https://other.example/",
        ),
    );
    row("`/upload`: 900,000 bytes as `multipart/form-data`", uploaded(ask(&["-F", &upload], "/upload")));
    let h2c = format!("https://{H2C}.example.com/");
    row(
        "`h2c-server`: HTTP/2 from the client to the backend (`backend-protocol: GRPC`)",
        is(curl(installed, &["--http2", "-k", "-w", " over HTTP/%{http_version}"], &h2c), "ok over HTTP/2"),
    );
    for name in [NETEXEC, H2C] {
        installed.kubernetes.kubectl(&["delete", "ingress,service,daemonset", name])?;
    }
    let name = image.rsplit('/').next().unwrap_or(&image);
    Ok((
        format!(
            "\nBehind an Ingress, asked through the VIP, {name} answers:\n\n| agnhost | Result |\n|---|---|\n{rows}"
        ),
        wrong,
    ))
}

/// What curl prints outside, where the name is the VIP's.
fn curl(installed: &Installed, arguments: &[&str], url: &str) -> Result<String> {
    let connect = format!("::{}:", Installed::vip());
    let always = ["-sS", "--max-time", "10", "--connect-to", &connect];
    installed.client().output("curl", &[&always[..], arguments, &[url]].concat())
}

fn is(said: Result<String>, wanted: &str) -> Result<()> {
    let said = said?;
    ensure!(said == wanted, "{said:?} instead of {wanted:?}");
    Ok(())
}

fn all_pods(ask: impl Fn() -> Result<String>) -> Result<()> {
    let mut pods = (0..60).map(|_| ask()).collect::<Result<Vec<_>>>()?;
    pods.sort();
    pods.dedup();
    ensure!(pods.len() == 3, "{pods:?}");
    Ok(())
}

fn from_a_node(said: Result<String>) -> Result<()> {
    let said = said?;
    let address = said.rsplit_once(':').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    let is_a_nodes = |address| (0..3).any(|node| Installed::seen_from_pods(node).contains(&address));
    ensure!(address.is_some_and(is_a_nodes), "{said:?}");
    Ok(())
}

fn uploaded(said: Result<String>) -> Result<()> {
    let said = said?;
    let answer: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(answer["output"].as_str().is_some_and(|file| file.contains("upload")), "{said}");
    Ok(())
}

/// What Kubernetes' own tests say of this cluster, and what of it is wrong.
fn kubernetes_tests(installed: &Installed) -> Result<(String, Vec<String>)> {
    installed.kubernetes.apply(DNS)?;
    installed.wait_for_daemon_set("kube-system", "coredns")?;
    let requests = SteadyRequests::start(installed.client(), &Installed::target("web.example.com", "/"), 20);
    let dir = installed.kubernetes.lab().dir().join("e2e");
    fs::create_dir_all(&dir)?;
    let (report, log) = (dir.join("report.json"), paths::xtask_dir().join("logs/e2e.log"));
    let skip: Vec<_> = LEFT_OUT.iter().map(|(what, _)| *what).collect();
    let focus = env::var("XDP_INGRESS_KUBERNETES_FOCUS").unwrap_or_else(|_| FOCUS.join("|"));
    let mut tests = installed.kubernetes.lab().client(1).command(paths::go_bin().join("e2e.test"));
    tests
        .args(["--provider=skeleton", "--ginkgo.no-color", "--ginkgo.timeout=3h"])
        .arg(format!("--kubeconfig={}", installed.kubernetes.cluster().admin().display()))
        .arg(format!("--kubectl-path={}", paths::go_bin().join("kubectl").display()))
        .arg(format!("--ginkgo.focus={focus}"))
        .arg(format!("--ginkgo.skip={}", skip.join("|")))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .current_dir(&dir)
        .env("HOME", &dir)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log).with_context(|| log.display().to_string())?)
        .stderr(Stdio::null());
    let started = Instant::now();
    // Its exit status says what the report says.
    tests.status().context("running e2e.test")?;
    let took = started.elapsed();
    let text = fs::read_to_string(&report).with_context(|| format!("no report; see {}", log.display()))?;
    let requests = requests.finish()?;

    let mut rows = String::new();
    let mut failed = Vec::new();
    let mut passed = 0;
    for test in &tests_in(&serde_json::from_str(&text)?) {
        let said = match test.state.as_str() {
            "passed" => {
                passed += 1;
                "passed".to_owned()
            }
            "skipped" => format!("says that it does not apply: {}", test.says),
            _ => {
                failed.push(format!("{} {}: {}", test.group, test.name, test.says));
                "**failed**".to_owned()
            }
        };
        writeln!(rows, "| {} | {} | {said} |", test.group, test.name)?;
    }
    if passed == 0 {
        bail!("none of Kubernetes' tests ran: see {}", log.display());
    }
    println!(
        "conformance: {passed} of Kubernetes' own tests passed, {} failed, in {:.0} s; {} of {} requests through the VIP lost",
        failed.len(),
        took.as_secs_f64(),
        requests.lost(),
        requests.sent()
    );
    let mut page = format!(
        "\nIts tests, {passed} passed and {} failed; meanwhile {} of {} requests through the VIP were lost:\n\n\
         | Tests | Test | Result |\n|---|---|---|\n{rows}\nLeft out:\n\n",
        failed.len(),
        requests.lost(),
        requests.sent()
    );
    for (what, why) in LEFT_OUT {
        writeln!(page, "- `{what}`: {why}")?;
    }
    if requests.lost() > 0 {
        failed.push(format!("requests through the VIP were lost: {:?}", requests.losses()));
    }
    Ok((page, failed))
}

/// One of Kubernetes' tests that ran, or that said itself that it cannot.
struct Test {
    /// `Services` of `[sig-network] Services`.
    group: String,
    name: String,
    state: String,
    says: String,
}

/// Out of Ginkgo's report, which has all tests; those that were not selected are skipped without a word.
fn tests_in(report: &Value) -> Vec<Test> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reports = report.as_array().into_iter().flatten();
    let specs = reports.filter_map(|report| report["SpecReports"].as_array()).flatten();
    let mut tests: Vec<_> = specs
        .filter(|spec| spec["LeafNodeType"] == "It")
        .map(|spec| {
            let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten().map(text);
            let containers: Vec<_> = containers.collect();
            let says = text(&spec["Failure"]["Message"]);
            Test {
                group: containers.join(" ").trim_start_matches("[sig-network] ").to_owned(),
                name: text(&spec["LeafNodeText"]),
                state: text(&spec["State"]),
                says: says.lines().next().unwrap_or_default().to_owned(),
            }
        })
        .filter(|test| test.state != "skipped" || !test.says.is_empty())
        .collect();
    // They run in a random order.
    tests.sort_by(|one, other| (&one.group, &one.name).cmp(&(&other.group, &other.name)));
    tests
}

const INTRODUCTION: &str = "
Built from the Go module (`k8s.io/kubernetes/test/e2e`, `…/test/images/agnhost`), on the same cluster, with CoreDNS;
`cargo xtask conformance --kubernetes` builds and runs them and writes this part. None of these tests has an Ingress controller
take part: those of Ingresses and classes show what the API server stores, and those of Services, endpoints and slices ask
kube-proxy from pods and nodes, past our program on every node's uplink. They show that the daemon leaves them alone, and that
they leave the VIP alone. Of those about Services all are run that belong to Kubernetes' conformance, and those that depend on
the way of packets between nodes.
";
