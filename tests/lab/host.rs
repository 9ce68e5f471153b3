//! One host of the lab: a network namespace with addresses. Runs commands, long-lived processes and Rust threads in
//! it. Clients and the switch are plain hosts; nodes and pods have one inside.

use std::{
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, bail};

use super::{
    guard::{self, Guard},
    netns,
    process::Process,
    topology::BRIDGE,
};

/// A handle; clones name the same host.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: String,
    addresses: Vec<IpAddr>,
    logs: PathBuf,
    /// Where its uplink ends; none for the switch itself and for pods.
    switch: Option<Host>,
}

impl Host {
    /// Makes the namespace `LAB-NAME`.
    pub(crate) fn create(
        guard: &Guard,
        name: &str,
        addresses: Vec<IpAddr>,
        switch: Option<&Self>,
    ) -> Result<Self> {
        let namespace = format!("{}-{name}", guard.id());
        netns::add(&namespace)?;
        let logs = guard.dir().join("logs");
        let inner = Inner { name: name.to_owned(), namespace, addresses, logs, switch: switch.cloned() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its name in the lab: `client1`, `node2`, `service1-3`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.inner.addresses
    }

    /// The address of the same IP version as `other`.
    pub fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.inner.addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// A command that will run on this host. The file system stays the machine's (`ip netns exec` would hide
    /// `/sys/fs/bpf` and cgroups).
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns::path(self.namespace()).display())).arg("--");
        command.arg(program.as_ref());
        command
    }

    /// What `program` with `args` prints on this host; an error with its stderr where it fails.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.command(program).args(args).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {} on {}: {} {}", args.join(" "), self.name(), output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a long-lived process made by [`Host::command`]; its output goes to `logs/HOST-NAME.log`.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Process> {
        std::fs::create_dir_all(&self.inner.logs)?;
        let path = self.inner.logs.join(format!("{}-{name}.log", self.name()));
        let log = File::options().create(true).append(true).open(&path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Process::start(format!("{name} on {}", self.name()), path, &mut command)
    }

    /// Runs `work` in a fresh thread on this host and waits for it. Threads that it starts are on this host too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                netns::enter(self.namespace())?;
                work()
            });
            worker.join().unwrap_or_else(|_| bail!("a thread on {} panicked", self.name()))
        })
    }

    /// Starts `work` in a thread of its own on this host.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let namespace = self.inner.namespace.clone();
        thread::spawn(move || {
            netns::enter(&namespace)?;
            work()
        })
    }

    /// Runs `ip` with each line of `lines` on this host.
    pub fn ip(&self, lines: &str) -> Result<()> {
        netns::ip(self.namespace(), lines)
    }

    /// Sets sysctls of this host, such as `("net/ipv4/ip_forward", "1")`.
    pub fn sysctl(&self, values: &[(&str, &str)]) -> Result<()> {
        netns::sysctl(self.namespace(), values)
    }

    /// Every process on this host.
    pub(crate) fn processes(&self) -> Vec<i32> {
        netns::pids(self.namespace())
    }

    /// Ends every process on this host.
    pub(crate) fn kill_all(&self) {
        guard::kill_all(self.namespace());
    }

    /// Takes the host off the switch: nothing arrives or leaves any more, and nobody is told, the host itself neither
    /// (its link stays up).
    pub fn cut_link(&self) -> Result<()> {
        let switch = self.switch()?;
        // At a router the link goes down, as with a power cut: it stops sending there.
        let line = if switch.has_bridge() { "nomaster" } else { "down" };
        switch.ip(&format!("link set {} {line}", self.name())).context("cutting the link")
    }

    /// Undoes [`Host::cut_link`] at a switch.
    pub fn mend_link(&self) -> Result<()> {
        self.switch()?.ip(&format!("link set {} master {BRIDGE}", self.name())).context("mending the link")
    }

    fn has_bridge(&self) -> bool {
        self.output("ip", &["link", "show", BRIDGE]).is_ok()
    }

    fn switch(&self) -> Result<&Self> {
        self.inner.switch.as_ref().with_context(|| format!("{} isn't plugged into the switch", self.name()))
    }
}
