//! A node: its host, its pods, and the daemon that runs on it as a DaemonSet's pod would (host network, bpffs of its
//! own, so that several nodes share this machine's kernel). What can happen to a node, scenarios say here.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Host, Pod,
    guard::RUN,
    http::{self, Target},
    netns,
    process::Process,
    topology::UPLINK,
};
use crate::paths;

/// Where each daemon serves `/readyz` and `/metrics`, seen from its own node.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// How long a daemon may take until it is ready; it takes about a second, many times that on a starved machine (the kernel
/// verifies the programs).
const READY: Duration = Duration::from_mins(1);

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    daemon: Mutex<Option<Process>>,
    pods: Vec<Pod>,
    host: Host,
    bpffs: PathBuf,
    state: PathBuf,
    manifests: PathBuf,
}

impl Node {
    pub(super) fn new(host: Host, pods: Vec<Pod>, lab: &Path, manifests: &Path) -> Result<Self> {
        let bpffs = lab.join(host.name()).join("bpf");
        // Short, since a socket's path has at most 107 bytes.
        let state = Path::new(RUN).join(host.namespace());
        fs::create_dir_all(&bpffs)?;
        fs::create_dir_all(&state)?;
        netns::succeed(netns::tool("mount")?.args(["-t", "bpf", "bpf"]).arg(&bpffs))?;
        Ok(Self { daemon: Mutex::default(), pods, host, bpffs, state, manifests: manifests.to_owned() })
    }

    /// `node1`, …: also the name of its Node object.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its namespace.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        self.host.addresses()
    }

    /// One per service.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Where its bpffs is mounted: nobody else's.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// What `--state-dir` its daemon has.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// The daemon's command line on this node, with everything but what a scenario wants to add.
    pub fn daemon_command(&self) -> Command {
        self.daemon_command_from(&format!("dir:{}", self.manifests.display()))
    }

    /// The same with another source of objects than the lab's manifests.
    pub fn daemon_command_from(&self, source: &str) -> Command {
        let mut command = self.host.command(paths::daemon());
        command
            .arg("run")
            .args(["--source", source])
            .args(["--node-name", self.name(), "--interface", UPLINK, "--xdp-mode", "auto", "--l4", "on"])
            .args(["--workers", "1", "--grace-period", "20s"])
            .arg("--admin")
            .arg(ADMIN.to_string())
            .arg("--state-dir")
            .arg(&self.state)
            .arg("--pin-path")
            .arg(self.bpffs.join("xdp-ingress"));
        command
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start_daemon(&self) -> Result<()> {
        self.launch_daemon()?;
        self.wait_until_ready()
    }

    /// Starts the daemon without waiting for it.
    pub fn launch_daemon(&self) -> Result<()> {
        self.launch(self.daemon_command())
    }

    /// Starts `command`, made from [`Node::daemon_command_from`], as this node's daemon, without waiting for it.
    pub fn launch(&self, command: Command) -> Result<()> {
        let process = self.host.spawn("daemon", command)?;
        *self.slot() = Some(process);
        Ok(())
    }

    /// Starts another daemon beside the one that runs, which it takes over from; gives that one.
    pub fn launch_successor(&self) -> Result<Process> {
        self.launch_successor_as(self.daemon_command())
    }

    /// The same with another command line, made from [`Node::daemon_command_from`].
    pub fn launch_successor_as(&self, command: Command) -> Result<Process> {
        let old = self.slot().take().with_context(|| format!("no daemon runs on {}", self.name()))?;
        self.launch(command)?;
        Ok(old)
    }

    /// Waits for `/readyz`.
    pub fn wait_until_ready(&self) -> Result<()> {
        self.wait_until_ready_within(READY)
    }

    /// The same with another patience: where there is very much to read first.
    pub fn wait_until_ready_within(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let ready = self.host.run(|| {
            let target = Target { address: ADMIN, host: "localhost".to_owned(), path: "/readyz".to_owned() };
            while Instant::now() < end {
                if http::get(&target, Duration::from_secs(1)).is_ok_and(|response| response.status == 200) {
                    return Ok(true);
                }
                if self.slot().as_mut().and_then(Process::ended).is_some() {
                    return Ok(false);
                }
                thread::sleep(Duration::from_millis(10));
            }
            Ok(false)
        })?;
        if !ready {
            bail!(
                "the daemon on {} isn't ready; the end of its log:\n{}",
                self.name(),
                self.daemon_log_tail()
            );
        }
        Ok(())
    }

    /// What the daemon's `/metrics` says.
    pub fn metrics(&self) -> Result<String> {
        self.host.run(|| {
            let target = Target { address: ADMIN, host: "localhost".to_owned(), path: "/metrics".to_owned() };
            Ok(http::get(&target, Duration::from_secs(5)).context("reading /metrics")?.body)
        })
    }

    /// Runs a verb of the command line against this node's daemon (`status -o json`, `drain`) and returns its output.
    pub fn ask(&self, verb: &[&str]) -> Result<String> {
        let mut command = self.host.command(paths::daemon());
        let output = command.args(verb).arg("--state-dir").arg(&self.state).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("xdp-ingress {} on {}: {}", verb.join(" "), self.name(), stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `xdp-ingress status -o json`.
    pub fn status(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.ask(&["status", "-o", "json"])?).context("reading the daemon's status")
    }

    /// `xdp-ingress drain`: no new connections, the established ones stay.
    pub fn drain(&self) -> Result<()> {
        self.ask(&["drain"]).map(drop)
    }

    /// `xdp-ingress undrain`.
    pub fn undrain(&self) -> Result<()> {
        self.ask(&["undrain"]).map(drop)
    }

    /// The node dies as by a power cut: nothing arrives or leaves any more, and its daemon is gone too.
    pub fn crash(&self) -> Result<()> {
        self.host.cut_link()?;
        self.kill_daemon();
        Ok(())
    }

    /// `kill -9` of the daemon; the kernel's part stays.
    pub fn kill_daemon(&self) {
        if let Some(mut process) = self.slot().take() {
            process.kill();
        }
    }

    /// `SIGTERM`, without waiting: the daemon drains and ends.
    pub fn begin_stop(&self) -> Result<()> {
        match self.slot().as_ref() {
            Some(process) => process.terminate(),
            None => bail!("no daemon runs on {}", self.name()),
        }
    }

    /// Waits until the daemon has ended.
    pub fn wait_stopped(&self, at_most: Duration) -> Result<ExitStatus> {
        let process = self.slot().take();
        process.with_context(|| format!("no daemon runs on {}", self.name()))?.wait(at_most)
    }

    /// The daemon is running.
    pub fn is_running(&self) -> bool {
        self.slot().as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// The last lines of the daemon's log.
    pub fn daemon_log_tail(&self) -> String {
        self.slot().as_ref().map(Process::log_tail).unwrap_or_default()
    }

    /// Number of the daemon's process, if it was started.
    pub fn daemon_id(&self) -> Option<u32> {
        self.slot().as_ref().map(Process::id)
    }

    /// All that the daemon wrote, also the one before it on this node.
    pub fn daemon_log(&self) -> String {
        self.slot().as_ref().map(Process::log).unwrap_or_default()
    }

    pub(super) fn keep(&mut self) {
        if let Some(process) = self.slot().as_mut() {
            process.keep();
        }
        self.pods.iter_mut().for_each(Pod::keep);
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        // A panic elsewhere leaves the process as it is: still ours to end.
        self.daemon.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
