//! One server process of the bench: started on its core, waited for, its CPU time read, ended at the end.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ingress_tests::paths;
use rustix::process::{Pid, Signal, kill_process};

/// Where the client and the backend run.
pub(super) const PEERS_CORE: &str = "0";
/// Where the proxy that is measured runs.
pub(super) const PROXY_CORE: &str = "1";

/// How long a server may take to start, with ten thousand manifests to read.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server; ended when dropped.
pub(super) struct Server {
    name: &'static str,
    child: Child,
}

impl Server {
    /// Starts `command` on a core and waits until it accepts connections at `address`.
    pub(super) fn start(
        name: &'static str,
        core: &str,
        address: SocketAddr,
        command: &[&str],
    ) -> Result<Self> {
        let log_path = paths::xtask_dir().join(format!("bench/{name}.log"));
        let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        let child = Command::new("taskset")
            .args(["-c", core])
            .args(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run taskset (util-linux)")?;
        let mut server = Self { name, child };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended at once ({status}); see {}", log_path.display());
            }
            if Instant::now() > deadline {
                bail!("{name} does not listen on {address} after {PATIENCE:?}; see {}", log_path.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// CPU time so far of all its threads and of its children's, from the scheduler's own nanosecond count
    /// (`/proc/PID/task/*/schedstat`), and of children that have ended (`/proc/PID/stat`, in hundredths of a second).
    pub(super) fn cpu(&self) -> Result<Duration> {
        let mut spent = ended_children(self.child.id()).with_context(|| format!("{} is gone", self.name))?;
        for process in self.processes() {
            // Workers come and go; who is gone just now is counted as ended the next time.
            let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
            for task in tasks.flatten() {
                let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
                let on_cpu = stat.split(' ').next().context("schedstat is empty")?;
                spent += Duration::from_nanos(on_cpu.parse().context("schedstat holds no number")?);
            }
        }
        Ok(spent)
    }

    /// Memory that it has for itself now, in bytes (`RssAnon`).
    pub(super) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("RssAnon")?;
        Ok(kib * 1024.0)
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Itself and its children.
    pub(super) fn processes(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        std::iter::once(id).chain(children.split(' ').filter_map(|child| child.trim().parse().ok())).collect()
    }
}

/// CPU time of the children that a process has waited for: fields 16 and 17 of `/proc/PID/stat` (proc(5)).
fn ended_children(id: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name may hold anything; behind its parenthesis is field 3.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let ticks: u64 = fields.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Masters are asked, so that their workers end with them. It may have ended by itself; there is nothing to do
        // about any failure.
        for child in self.processes().into_iter().skip(1) {
            if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
                let _ended = kill_process(pid, Signal::KILL);
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address of 127.0.0.1 whose port is free now. Not from the range that clients get theirs from: a client that
/// waits there for a server to come up may end up connected to itself.
pub(super) fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    for _ in 0..1000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, NEXT.fetch_add(1, Ordering::Relaxed)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port of 127.0.0.1 is free from 20000 on")
}
