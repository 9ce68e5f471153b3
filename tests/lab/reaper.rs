//! Cleans up after a lab whose owner died before it could: Ctrl-C, `kill -9`, a crash. It is this very program, started
//! again in a process group of its own, at the other end of a pipe that the owner holds: when the pipe closes, the
//! owner is gone.

use std::{
    env,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::guard;

const ROLE: &str = "XDP_INGRESS_LAB_REAPER";

/// The owner's side. Dropping it ends the reaper, after it has looked for what is left.
#[derive(Debug)]
pub(super) struct Reaper {
    process: Child,
}

impl Reaper {
    pub(super) fn start(id: &str, owner: &str, dir: &Path) -> Result<Self> {
        let this = env::current_exe().context("finding this program")?;
        let mut command = Command::new(this);
        // Not in our process group: a terminal sends Ctrl-C to all of that.
        command.env(ROLE, format!("{id} {owner}")).current_dir(dir).process_group(0);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { process })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It ends by itself; waiting for it only leaves no zombie.
        let _ = self.process.wait();
    }
}

/// Does not return in a process started as a reaper.
pub(super) fn run_if_asked() {
    let Ok(role) = env::var(ROLE) else { return };
    // Nothing is ever sent: this returns when the owner's end is closed.
    let _ = std::io::stdin().read(&mut [0]);
    if let Some((id, owner)) = role.split_once(' ') {
        guard::reap(id, owner);
    }
    std::process::exit(0);
}
