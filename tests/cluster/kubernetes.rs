//! A whole Kubernetes: the control plane on one host, nodes with real containers, an external client, a switch. Used
//! by the scenarios of the cluster level and by `cargo xtask cluster`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Cluster, KubeNode, binary};
use crate::{
    lab::{Host, Lab, topology},
    paths,
};

/// How long all nodes may take until they are Ready; some ten seconds on two cores.
const NODES_READY: Duration = Duration::from_mins(2);

/// What kube-proxy programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// nftables, the default of new clusters.
    Nftables,
    /// iptables.
    Iptables,
}

impl ProxyMode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Kubernetes {
    // In this order: nodes leave before the API, and all before the lab.
    nodes: Vec<KubeNode>,
    cluster: Cluster,
    lab: Lab,
}

impl Kubernetes {
    /// Brings up `nodes` nodes and waits until they are Ready. The images are there already (`cargo xtask image
    /// --test`).
    pub fn up(name: &str, nodes: usize, proxy: ProxyMode) -> Result<Self> {
        let lab = Lab::builder(name).nodes(nodes).clients(2).pods_per_node(0).ipv6(false).build()?;
        let cluster = Cluster::start_whole(lab.client(1), lab.dir())?;
        for index in 0..nodes {
            cluster.apply(&node_object(index))?;
            // Pods use the API, and the API server is a proxy to them.
            let (range, node) = (topology::pod_ranges(index).0, topology::node(index).0);
            lab.client(1).ip(&format!("route add {range} via {node}\n"))?;
        }
        let images = [paths::image("xdp-ingress"), paths::image("pod")];
        if let Some(missing) = images.iter().find(|image| !image.is_file()) {
            bail!("{} isn't there: run `cargo xtask image --test`", missing.display());
        }
        // Side by side: most of the time is spent waiting.
        let started: Vec<Result<KubeNode>> = thread::scope(|scope| {
            let starts: Vec<_> = (lab.nodes().iter().enumerate())
                .map(|(index, node)| {
                    let (cluster, images) = (&cluster, &images);
                    scope.spawn(move || KubeNode::start(cluster, node, index, proxy, images))
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap_or_else(|_| bail!("a node's start panicked")))
                .collect()
        });
        let nodes = started.into_iter().collect::<Result<Vec<_>>>()?;
        let this = Self { nodes, cluster, lab };
        this.wait_until_ready()?;
        Ok(this)
    }

    /// The external client.
    pub fn client(&self) -> &Host {
        self.lab.client(0)
    }

    /// The API.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The API, for stopping and starting it.
    pub fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// All nodes.
    pub fn nodes(&self) -> &[KubeNode] {
        &self.nodes
    }

    /// A node, to do something to it.
    pub fn node_mut(&mut self, index: usize) -> &mut KubeNode {
        &mut self.nodes[index]
    }

    /// The network below.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What `kubectl` prints, as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.cluster.apply(yaml)
    }

    /// What `helm` prints, as the administrator.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.lab.client(1).command(binary("helm")?);
        environment(&mut command, self.lab.dir());
        let output = command.args(arguments).current_dir(paths::workspace()).output()?;
        if !output.status.success() {
            bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a line of shell prints for which `kubectl` and `helm` are the administrator's, in the workspace.
    pub fn shell(&self, line: &str) -> Result<String> {
        let programs = paths::go_bin().display().to_string();
        let mut command = self.lab.client(1).command("sh");
        environment(&mut command, self.lab.dir());
        command.args(["-c", line]).current_dir(paths::workspace());
        command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()));
        let output = command.output()?;
        if !output.status.success() {
            bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `$HOME` of [`Kubernetes::shell`].
    pub fn home(&self) -> PathBuf {
        self.lab.dir().join("kubernetes")
    }

    /// Leaves everything up; `cargo xtask cluster down` removes it.
    pub fn keep(mut self) -> Result<()> {
        self.nodes.iter_mut().for_each(KubeNode::keep);
        self.cluster.keep();
        self.lab.keep()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let end = Instant::now() + NODES_READY;
        let path = "-o=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
        loop {
            let states = self.kubectl(&["get", "nodes", path])?;
            if states.split(' ').filter(|state| *state == "True").count() == self.nodes.len() {
                return Ok(());
            }
            if Instant::now() > end {
                let logs: Vec<_> = self.nodes.iter().map(KubeNode::logs).collect();
                bail!(
                    "the nodes are not Ready ({states}); the ends of their logs:\n{}",
                    logs.join("\n====\n")
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// A program (`kubectl`, `helm`) for the cluster that was kept in `dir` under `id`.
pub fn command(id: &str, dir: &Path, program: &str) -> Result<Command> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{id}-client2")).arg("--").arg(binary(program)?);
    environment(&mut command, dir);
    Ok(command)
}

/// Nothing of the user's own configuration and caches is read or written.
fn environment(command: &mut Command, lab: &Path) {
    let dir: PathBuf = lab.join("kubernetes");
    command.env("HOME", &dir).env("KUBECONFIG", dir.join("admin.kubeconfig"));
    for variable in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env_remove(variable);
    }
}

/// Made before the kubelet comes: so the pod range is the one that the lab's routes lead to.
fn node_object(index: usize) -> String {
    let (name, range) = (format!("node{}", index + 1), topology::pod_ranges(index).0);
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDR: {range}, podCIDRs: [{range}]}}\n"
    )
}
