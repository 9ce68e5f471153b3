//! The one real cluster that the scenarios of this level share, with our chart installed by helm and a backend on every
//! node. What a scenario changes it puts back; helm brings the release to what is wanted before each.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ingress_tests::{
    cluster::{Kubernetes, POD_IMAGE, ProxyMode},
    lab::{
        Host,
        http::{Response, Target},
        load, topology,
    },
};
use serde_json::Value;

use super::docs;

/// How long something may take that needs images unpacked, probes and a drain on three nodes.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);
/// Release and namespace.
pub(super) const NAME: &str = "xdp-ingress";
/// What `helm` sets: addresses of the lab's link, and a drain that ends soon.
const VALUES: [&str; 2] = ["addressPool.addresses={10.77.0.100-10.77.0.103}", "gracePeriodSeconds=20"];

static SHARED: Mutex<Option<Installed>> = Mutex::new(None);

/// A cluster with the release in it.
pub(super) struct Installed {
    pub(super) kubernetes: Kubernetes,
}

/// Lets a scenario have the cluster; the first one brings it up.
pub(super) fn with(scenario: impl FnOnce(&mut Installed) -> Result<()>) -> Result<()> {
    let mut shared = lock();
    if shared.is_none() {
        let started = Instant::now();
        let kubernetes = Kubernetes::up("kube", 3, ProxyMode::Nftables)?;
        println!("cluster: 3 nodes Ready after {:.1} s", started.elapsed().as_secs_f64());
        *shared = Some(Installed { kubernetes });
    }
    let installed = shared.as_mut().context("the cluster is there")?;
    installed.install(&[])?;
    let result = scenario(installed);
    result.with_context(|| installed.logs())
}

/// A small cluster of its own, where kube-proxy programs iptables and nobody has helm.
pub(super) fn beside_iptables(scenario: impl FnOnce(&Installed) -> Result<()>) -> Result<()> {
    let installed = Installed { kubernetes: Kubernetes::up("kubeipt", 1, ProxyMode::Iptables)? };
    installed.install_plainly().and_then(|()| scenario(&installed)).with_context(|| installed.logs())
}

/// Removes the cluster, if there is one.
pub(in crate::installed) fn finish() {
    drop(lock().take());
}

fn lock() -> MutexGuard<'static, Option<Installed>> {
    // A scenario that panicked leaves a cluster that is as good as after one that failed.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Installed {
    /// `helm upgrade --install` with `more` values, the backends, and waits until they serve.
    pub(super) fn install(&self, more: &[&str]) -> Result<()> {
        let mut arguments =
            vec!["upgrade", "--install", NAME, "deploy/chart", "-n", NAME, "--create-namespace"];
        for value in VALUES.iter().chain(more) {
            arguments.extend(["--set", value]);
        }
        self.kubernetes.helm(&arguments)?;
        self.until_served()
    }

    /// The same by the plain manifests, as their page says.
    fn install_plainly(&self) -> Result<()> {
        docs::write_pool(self)?;
        docs::run(self, ("deploy/manifests/README.md", "Plain manifests", 0), &[])?;
        self.until_served()
    }

    fn until_served(&self) -> Result<()> {
        self.kubernetes.apply(&backend("web", "web.example.com"))?;
        self.wait_for_daemon_set(NAME, NAME)?;
        self.wait_for_daemon_set("default", "web")?;
        self.until(&Self::target("web.example.com", "/"), |answer| answer.status == 200).map(drop)
    }

    /// Waits until every node has a ready pod of the present template.
    pub(super) fn wait_for_daemon_set(&self, namespace: &str, name: &str) -> Result<Duration> {
        self.wait_for_pods_of(namespace, name, self.kubernetes.nodes().len() as u64)
    }

    /// The same where so many nodes are to have one, and no others.
    pub(super) fn wait_for_pods_of(&self, namespace: &str, name: &str, pods: u64) -> Result<Duration> {
        load::wait_for(&format!("the DaemonSet {namespace}/{name} to be rolled out"), PATIENCE, || {
            let set = self.get(&["daemonset", name, "-n", namespace])?;
            let (status, wanted) = (&set["status"], set["status"]["desiredNumberScheduled"].as_u64());
            Ok(status["observedGeneration"] == set["metadata"]["generation"]
                && wanted == Some(pods)
                && status["numberMisscheduled"] == 0
                && status["updatedNumberScheduled"].as_u64() == wanted
                && status["numberAvailable"].as_u64() == wanted)
        })
    }

    pub(super) fn client(&self) -> &Host {
        self.kubernetes.client()
    }

    pub(super) fn vip() -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100))
    }

    pub(super) fn target(host: &str, path: &str) -> Target {
        Target::new(Self::vip(), host, path)
    }

    /// Asks from outside until an answer is good.
    pub(super) fn until(
        &self,
        target: &Target,
        good: impl Fn(&Response) -> bool + Send + Sync,
    ) -> Result<Duration> {
        load::until(self.client(), target, Instant::now(), PATIENCE, |answer| {
            answer.as_ref().is_ok_and(&good)
        })
    }

    /// An object as JSON.
    pub(super) fn get(&self, what: &[&str]) -> Result<Value> {
        let mut arguments = vec!["get"];
        arguments.extend(what);
        arguments.push("--output=json");
        serde_json::from_str(&self.kubernetes.kubectl(&arguments)?).with_context(|| what.join(" "))
    }

    /// Whether an Event of type Warning about `name` says `text`.
    pub(super) fn has_warning(&self, name: &str, text: &str) -> Result<bool> {
        let selector = format!("--field-selector=involvedObject.name={name},type=Warning");
        let events = self.get(&["events", &selector])?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        Ok(events.iter().any(|event| event["message"].as_str().is_some_and(|message| message.contains(text))))
    }

    /// The addresses by which the pods see the router of node `index`: towards other nodes' pods, and its own.
    pub(super) fn seen_from_pods(index: usize) -> [IpAddr; 2] {
        [IpAddr::V4(topology::node(index).0), IpAddr::V4(topology::gateway(index).0)]
    }

    /// The node that answers ARP for the VIP, as the client has learnt it.
    pub(super) fn owner(&self) -> Result<usize> {
        let neighbour = self.client().output("ip", &["neighbour", "show", &Self::vip().to_string()])?;
        let owner = (0..self.kubernetes.nodes().len())
            .find(|index| neighbour.contains(&topology::mac(&[IpAddr::V4(topology::node(*index).0)])));
        owner.with_context(|| format!("no node owns the VIP: {neighbour}"))
    }

    /// What `command` in the daemon's container on node `index` prints; that node's daemon has only our image's files.
    pub(super) fn in_daemon(&self, index: usize, command: &[&str]) -> Result<String> {
        let pod = self.pod_on(index)?;
        let mut arguments = vec!["exec", "-n", NAME, &pod, "--"];
        arguments.extend(command);
        self.kubernetes.kubectl(&arguments)
    }

    /// Deletes a daemon's pod without a farewell and waits for the next one.
    pub(super) fn delete_by_force(&self, pod: &str) -> Result<()> {
        self.kubernetes.kubectl(&["delete", "pod", "-n", NAME, pod, "--force", "--grace-period=0"])?;
        self.wait_for_daemon_set(NAME, NAME).map(drop)
    }

    /// Kills the daemon of node `index` and waits until its kubelet has started another one that is ready.
    pub(super) fn end_daemon(&self, index: usize) -> Result<Duration> {
        let node = &self.kubernetes.nodes()[index];
        let before = node.processes_of(NAME);
        ensure!(!before.is_empty(), "no daemon on {}", node.name());
        node.kill(&before);
        load::wait_for("the daemon to be started again and ready", PATIENCE, || {
            let ready = ["-sf", "--max-time", "2", "http://127.0.0.1:9901/readyz"];
            let is_new = node.processes_of(NAME).iter().any(|process| !before.contains(process));
            Ok(is_new && node.output("curl", &ready).is_ok())
        })
    }

    /// The daemon's pod on node `index`.
    pub(super) fn pod_on(&self, index: usize) -> Result<String> {
        let node = self.kubernetes.nodes()[index].name();
        let pods = self.get(&["pods", "-n", NAME, &format!("--field-selector=spec.nodeName={node}")])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let alive = pods.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let name = alive.and_then(|pod| pod["metadata"]["name"].as_str());
        name.map(str::to_owned).with_context(|| format!("no daemon on {node}"))
    }

    fn logs(&self) -> String {
        let logs = ["logs", "-n", NAME, "-l", "app.kubernetes.io/name=xdp-ingress", "--tail=15", "--prefix"];
        let pods = self.kubernetes.kubectl(&["get", "pods", "-A", "-o", "wide"]).unwrap_or_default();
        format!("pods:\n{pods}\nlogs:\n{}", self.kubernetes.kubectl(&logs).unwrap_or_default())
    }
}

/// A DaemonSet of the lab's backend, its Service and an Ingress for `host`.
pub(super) fn backend(name: &str, host: &str) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: backend
          image: {POD_IMAGE}
          imagePullPolicy: Never
          env:
            - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
            - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
            - {{name: XDP_INGRESS_LAB_ECHO, value: "$(POD) $(NODE) 8080 8089"}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
{}"#,
        ingress(name, host, name, "")
    )
}

/// An Ingress for all of `host`; `annotations` is the inside of a flow mapping.
pub(super) fn ingress(name: &str, host: &str, service: &str, annotations: &str) -> String {
    format!(
        r"apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  annotations: {{{annotations}}}
spec:
  ingressClassName: xdp
  rules:
    - host: {host}
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}
"
    )
}

/// The pods that answered; an error where an answer was not the backend's.
pub(super) fn pods_that_answer(
    installed: &Installed,
    target: &Target,
    requests: usize,
) -> Result<Vec<String>> {
    let mut pods = Vec::new();
    for _ in 0..requests {
        let answer = installed.client().run(|| {
            ingress_tests::lab::http::get(target, Duration::from_secs(5))
                .map_err(|failure| anyhow::anyhow!("{target}: {failure}"))
        })?;
        ensure!(answer.status == 200, "{target}: {}", answer.status);
        match answer.echo() {
            Ok(echo) => pods.push(format!("{} on {}", echo.pod, echo.pod_node)),
            Err(error) => bail!("{target}: {error:#}"),
        }
    }
    pods.sort();
    pods.dedup();
    Ok(pods)
}
