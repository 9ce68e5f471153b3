//! One server process of the bench: started on its core, waited for, its CPU time read, ended at the end.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ingress_tests::paths;

/// Where the client and the backend run.
pub(super) const PEERS_CORE: &str = "0";
/// Where the proxy that is measured runs.
pub(super) const PROXY_CORE: &str = "1";

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
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended at once ({status}); see {}", log_path.display());
            }
            if Instant::now() > deadline {
                bail!("{name} does not listen on {address} after 10 s; see {}", log_path.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// CPU time of all its threads so far, from the scheduler's own nanosecond count (`/proc/PID/task/*/schedstat`).
    /// It has one process (see `proxies`).
    pub(super) fn cpu(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut nanoseconds = 0;
        for task in fs::read_dir(&tasks).with_context(|| format!("{} is gone", self.name))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = stat.split(' ').next().context("schedstat is empty")?;
            nanoseconds += on_cpu.parse::<u64>().context("schedstat holds no number")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either failure.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address of 127.0.0.1 whose port is free now.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
