//! A node of the real cluster: containerd, kubelet and kube-proxy on a host of the lab, in a mount namespace where
//! `/run`, `/var/lib/kubelet` and so on are the node's own. What pods leave (mounts, namespaces, cgroups) goes with it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Cluster, ProxyMode, binary,
    files::{self, CNI_CONFIG, CONTAINERD_CONFIG, CONTAINERD_SOCKET, KUBELET_CONFIG},
};
use crate::{
    lab::{Host, Node, cgroup, process::Process, topology},
    paths,
};

/// How long containerd may take; it takes under a second.
const READY: Duration = Duration::from_secs(30);
/// Directories of which each node has its own, kept below the lab's.
const OWN: [&str; 5] = ["/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/var/log", "/etc/cni"];

/// A node.
#[derive(Debug)]
pub struct KubeNode {
    name: String,
    // In this order: what starts containers ends before what runs them.
    processes: Vec<Process>,
    /// Holds the mount namespace.
    anchor: Process,
    host: Host,
    cgroup: String,
}

impl KubeNode {
    /// Starts containerd on `node`, the `index`-th of the lab, with `images` (OCI archives); then kubelet and proxy.
    pub(super) fn start(
        cluster: &Cluster,
        node: &Node,
        index: usize,
        proxy: ProxyMode,
        images: &[PathBuf],
    ) -> Result<Self> {
        let host = node.host().clone();
        let dir = node.bpffs().parent().context("the node has no directory")?.to_owned();
        // Addresses of Services exist nowhere: without a route the kernel would refuse them before kube-proxy's rules.
        host.ip("route add default via 10.77.0.202\n")?;
        let cgroup = host.namespace().to_owned();
        cgroup::create(&cgroup)?;
        let anchor = host.spawn("anchor", anchor(&host, &dir, node.bpffs())?)?;
        let mut this = Self { name: node.name().to_owned(), processes: Vec::new(), anchor, host, cgroup };
        this.wait_for_anchor()?;
        this.write(CONTAINERD_CONFIG, &files::containerd())?;
        this.write(CNI_CONFIG, &files::cni(&topology::pod_ranges(index).0))?;
        this.write(KUBELET_CONFIG, &files::kubelet(&cluster.dir.join("ca.crt"), &this.cgroup))?;
        let mut containerd = this.command(tool("containerd")?);
        containerd.args(["--config", CONTAINERD_CONFIG]);
        this.spawn("containerd", containerd)?;
        this.wait_for_containerd()?;
        for image in images {
            this.import(image)?;
        }
        this.start_kubelet(cluster)?;
        this.start_proxy(cluster, proxy)?;
        Ok(this)
    }

    /// `node1`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A command in the node's network and mount namespaces.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.host.namespace()))
            .arg(format!("--mount=/proc/{}/ns/mnt", self.anchor.id()))
            .arg("--")
            .arg(program.as_ref());
        command
    }

    /// What `program` prints on this node; an error with its stderr where it fails.
    pub fn output(&self, program: impl AsRef<Path>, args: &[&str]) -> Result<String> {
        let program = program.as_ref();
        let output = self.command(program).args(args).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{} {} on {}: {}", program.display(), args.join(" "), self.name, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the image in the OCI archive known to the kubelet.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let file = archive.display().to_string();
        self.output(
            tool("ctr")?,
            &["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import", &file],
        )
        .with_context(|| format!("importing {file}"))
        .map(drop)
    }

    /// The processes in the node's network (its containers with `hostNetwork`, too) that run `program`.
    pub fn processes_of(&self, program: &str) -> Vec<i32> {
        let runs_it = |process: &i32| {
            fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim() == program)
        };
        self.host.processes().into_iter().filter(runs_it).collect()
    }

    /// Ends `processes` at once.
    pub fn kill(&self, processes: &[i32]) {
        for process in processes.iter().copied().filter_map(Pid::from_raw) {
            // Gone already is as good.
            let _gone = kill_process(process, Signal::KILL);
        }
    }

    /// The node dies as by a power cut: its link, then every process on it and in its containers.
    pub fn shut_down(&mut self) -> Result<()> {
        self.host.cut_link()?;
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        self.processes.clear();
        self.host.kill_all();
        cgroup::remove(&self.cgroup);
        self.anchor.kill();
    }

    pub(super) fn keep(&mut self) {
        self.processes.iter_mut().for_each(Process::keep);
        self.anchor.keep();
        self.cgroup.clear();
    }

    /// The ends of the logs of its processes, for messages.
    pub fn logs(&self) -> String {
        self.processes.iter().map(Process::log_tail).collect::<Vec<_>>().join("\n--\n")
    }

    fn start_kubelet(&mut self, cluster: &Cluster) -> Result<()> {
        let kubeconfig =
            cluster.kubeconfig(&format!("system:node:{}", self.name), "system:nodes", "default")?;
        let address = self.host.addresses().first().context("the node has no address")?;
        let mut kubelet = self.command(binary("kubelet")?);
        kubelet
            .args(["--config", KUBELET_CONFIG, "--hostname-override", &self.name])
            .arg(format!("--node-ip={address}"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()));
        self.spawn("kubelet", kubelet)
    }

    fn start_proxy(&mut self, cluster: &Cluster, mode: ProxyMode) -> Result<()> {
        let kubeconfig = cluster.kubeconfig("system:kube-proxy", "lab", "default")?;
        let mut proxy = self.command(binary("kube-proxy")?);
        proxy
            .args(["--proxy-mode", mode.name(), "--hostname-override", &self.name])
            .args([
                "--cluster-cidr=10.244.0.0/16",
                "--oom-score-adj=0",
                "--metrics-bind-address=127.0.0.1:10249",
            ])
            // Connection tracking's limits are the machine's, not the node's.
            .args(["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s"])
            .args(["--conntrack-tcp-timeout-close-wait=0s"])
            .arg(format!("--kubeconfig={}", kubeconfig.display()));
        self.spawn("kube-proxy", proxy)
    }

    fn spawn(&mut self, name: &str, command: Command) -> Result<()> {
        let process = self.host.spawn(name, command)?;
        self.processes.push(process);
        Ok(())
    }

    /// Writes a file as the node sees it.
    fn write(&self, path: &str, text: &str) -> Result<()> {
        let seen = PathBuf::from(format!("/proc/{}/root{path}", self.anchor.id()));
        if let Some(parent) = seen.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&seen, text).with_context(|| format!("writing {path} of {}", self.name))
    }

    fn wait_for_anchor(&mut self) -> Result<()> {
        let ready = PathBuf::from(format!("/proc/{}/root/run/ready", self.anchor.id()));
        let end = Instant::now() + READY;
        while !ready.exists() {
            if let Some(status) = self.anchor.ended() {
                bail!("the mounts of {} failed ({status}): {}", self.name, self.anchor.log_tail());
            }
            if Instant::now() > end {
                bail!("the mounts of {} are not there: {}", self.name, self.anchor.log_tail());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn wait_for_containerd(&mut self) -> Result<()> {
        let ctr = tool("ctr")?;
        let end = Instant::now() + READY;
        while self.output(&ctr, &["--address", CONTAINERD_SOCKET, "version"]).is_err() {
            if Instant::now() > end || self.processes.iter_mut().any(|process| process.ended().is_some()) {
                bail!("containerd on {} isn't there; the end of its log:\n{}", self.name, self.logs());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for KubeNode {
    fn drop(&mut self) {
        // Kept: the cgroup is somebody else's to remove.
        if !self.cgroup.is_empty() {
            self.end();
        }
    }
}

/// Makes the node's mount namespace and stays in it. `nsenter`, `unshare` and the shell replace each other, so that the
/// process number stays.
fn anchor(host: &Host, dir: &Path, bpffs: &Path) -> Result<Command> {
    let mut script =
        "set -e\nmount -t tmpfs -o mode=755 run /run\nmkdir -p /run/netns /run/lock\n".to_owned();
    for own in OWN {
        let here = dir.join(own.trim_start_matches('/').replace('/', "-"));
        fs::create_dir_all(&here)?;
        // Mounted over in the node's own view only; `mkdir` makes what a machine without Kubernetes lacks.
        writeln!(script, "mkdir -p {own}\nmount --bind {} {own}", here.display())?;
    }
    writeln!(script, "mount --bind {} /sys/fs/bpf\n: > /run/ready\nexec sleep infinity", bpffs.display())?;
    let mut command = host.command("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]);
    Ok(command)
}

fn tool(name: &str) -> Result<PathBuf> {
    paths::program(name).with_context(|| format!("`{name}` isn't installed: run `cargo xtask setup` first"))
}
