//! What every scenario stands on: a lab whose second client hosts the API server, with the objects that a cluster
//! has before its first Ingress, and daemons that read from it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ingress_tests::{
    cluster::Cluster,
    lab::{
        Host, Lab, Node,
        http::{Failure, Response, Target},
        load,
    },
    paths,
};
use serde_json::Value;

/// How long a change may take to be live; it takes milliseconds.
pub(crate) const LIVE: Duration = Duration::from_secs(20);

/// The user that the daemon is to the API server.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:xdp-ingress:xdp-ingress";

/// A lab and a cluster.
pub(crate) struct World {
    // Before the lab: its processes run on a host of it.
    pub(crate) cluster: Cluster,
    pub(crate) lab: Lab,
    /// What was applied last, by file: `kubectl` runs only for what changed.
    applied: RefCell<BTreeMap<String, String>>,
}

impl World {
    /// `nodes` nodes without daemons, and a cluster with our kinds, the class, the pool, Nodes, Services and slices.
    pub(crate) fn start(name: &str, nodes: usize) -> Result<Self> {
        let lab = Lab::builder(name).nodes(nodes).clients(2).build()?;
        let started = Instant::now();
        let cluster = Cluster::start(lab.client(1), lab.dir())?;
        println!("{name}: etcd and kube-apiserver were ready after {:.1} s", started.elapsed().as_secs_f64());
        let world = Self { cluster, lab, applied: RefCell::default() };
        world.apply_our_kinds()?;
        world.apply_folder("deploy/manifests")?;
        world.lab.declare_cluster()?;
        world.apply_changes()?;
        Ok(world)
    }

    /// Where the requests come from.
    pub(crate) fn client(&self) -> &Host {
        self.lab.client(0)
    }

    /// The first VIP.
    pub(crate) fn vip(&self) -> Result<IpAddr> {
        self.lab.vips().into_iter().next().context("the lab has no VIP")
    }

    /// Starts the daemon on every node. To the API server it is the `ServiceAccount` of `deploy/manifests`, with the
    /// rights that are bound to that and no more.
    pub(crate) fn start_daemons(&self) -> Result<()> {
        let kubeconfig = self.account()?;
        for node in self.lab.nodes() {
            let mut command = node.daemon_command_from("kubernetes");
            command.arg("--kubeconfig").arg(&kubeconfig).args(["--announce-interval", "1s"]);
            node.launch(command)?;
        }
        self.lab.nodes().iter().try_for_each(Node::wait_until_ready)
    }

    /// The kubeconfig of the `ServiceAccount`, in its namespace.
    pub(crate) fn account(&self) -> Result<PathBuf> {
        self.cluster.kubeconfig(ACCOUNT, "system:serviceaccounts", "xdp-ingress")
    }

    /// Applies an object that the lab's manifests don't have.
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        self.cluster.apply(yaml).map(drop)
    }

    /// Brings the cluster to what the lab's manifests say now.
    pub(crate) fn apply_changes(&self) -> Result<()> {
        for (name, yaml) in yaml_files(self.lab.manifests().dir())? {
            if self.applied.borrow().get(&name) == Some(&yaml) {
                continue;
            }
            self.cluster.apply(&yaml).with_context(|| format!("applying {name}"))?;
            self.applied.borrow_mut().insert(name, yaml);
        }
        Ok(())
    }

    /// Our kinds, and waits until the API server knows them.
    fn apply_our_kinds(&self) -> Result<()> {
        self.apply_folder("deploy/crds")?;
        self.cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=20s", "crd", "--all"])
            .map(drop)
    }

    /// What an administrator applies. The DaemonSet stays an object: nobody makes pods of it here.
    fn apply_folder(&self, folder: &str) -> Result<()> {
        for (name, yaml) in yaml_files(&paths::workspace().join(folder))? {
            self.cluster.apply(&yaml).with_context(|| format!("applying {folder}/{name}"))?;
        }
        Ok(())
    }

    /// Asks until a backend of `service` answers; how long that took since `since`.
    pub(crate) fn until_served_by(
        &self,
        site: (&str, &str),
        service: &str,
        since: Instant,
    ) -> Result<Duration> {
        let target = Target::new(self.vip()?, site.0, site.1);
        let prefix = format!("{service}-");
        load::until(self.client(), &target, since, LIVE, |answer: &Result<Response, Failure>| {
            let echo = answer.as_ref().ok().and_then(|response| response.echo().ok());
            echo.is_some_and(|echo| echo.pod.starts_with(&prefix))
        })
        .with_context(|| format!("{}{} should be served by {service}; {}", site.0, site.1, self.logs()))
    }

    /// An object as the API server has it.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let json = self.cluster.kubectl(&["get", kind, name, "--namespace=default", "--output=json"])?;
        serde_json::from_str(&json).with_context(|| format!("{kind} {name}"))
    }

    /// The end of every daemon's log, for messages.
    pub(crate) fn logs(&self) -> String {
        let log = |node: &Node| format!("{}:\n{}", node.name(), node.daemon_log_tail());
        self.lab.nodes().iter().map(log).collect::<Vec<_>>().join("\n")
    }
}

/// Name and text of the YAML files of a folder, in the order of their names.
fn yaml_files(dir: &Path) -> Result<BTreeMap<String, String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            files.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(files)
}
