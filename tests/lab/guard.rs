//! Who owns which lab. Each lab claims an id (`xi-NAME`, or `xi-NAME-2` … while others of that name run) with a file
//! under `/run/xdp-ingress-lab` that names the owning process. Dropping the guard removes the lab's processes,
//! mounts and namespaces. Should the owner die without that (Ctrl-C, `kill -9`), its `reaper` does it, and failing
//! that, whoever starts a lab next. Only what carries a claimed id is ever touched.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::{cgroup, netns, reaper::Reaper};
use crate::paths;

/// Claims, and the sockets of the daemons.
pub(crate) const RUN: &str = "/run/xdp-ingress-lab";

/// One lab's claim, as it stands in its file.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    /// The owning process; `None`: kept for a person until `lab down`.
    owner: Option<Owner>,
    /// Scratch directory, with mounts below.
    dir: PathBuf,
}

/// A process that can't be mistaken for a later one with the same number.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    /// Clock ticks since boot at its start (`/proc/PID/stat`, field 22).
    started: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.started)
    }
}

/// The right to the namespaces `ID-…`.
#[derive(Debug)]
pub struct Guard {
    id: String,
    dir: PathBuf,
    keep: bool,
    reaper: Option<Reaper>,
}

impl Guard {
    /// Claims an id for a lab called `name`, after removing what dead processes left.
    pub(crate) fn claim(name: &str) -> Result<Self> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            bail!("a lab's name has letters, digits and _ only: {name:?}");
        }
        fs::create_dir_all(RUN)
            .with_context(|| format!("making {RUN} (the lab needs root: network namespaces)"))?;
        sweep();
        for number in 1..100 {
            let id = if number == 1 { format!("xi-{name}") } else { format!("xi-{name}.{number}") };
            let file = OpenOptions::new().write(true).create_new(true).open(claim_file(&id));
            let mut file = match file {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).context("claiming a lab"),
            };
            let dir = paths::xtask_dir().join("lab").join(&id);
            let claim = Claim { owner: Some(myself()?), dir: dir.clone() };
            file.write_all(&serde_json::to_vec(&claim)?)?;
            if dir.exists() {
                fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
            }
            fs::create_dir_all(&dir)?;
            let reaper = Reaper::start(&id, &myself()?.to_string(), &dir).context("starting the reaper")?;
            return Ok(Self { id, dir, keep: false, reaper: Some(reaper) });
        }
        bail!("a hundred labs called {name} are up: see `ls {RUN}`");
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lab outlives this process.
    pub(crate) fn keep(&mut self) -> Result<()> {
        let claim = Claim { owner: None, dir: self.dir.clone() };
        fs::write(claim_file(&self.id), serde_json::to_vec(&claim)?)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.id, &self.dir);
        }
        // It finds nothing left to do, or that the lab is kept.
        drop(self.reaper.take());
    }
}

/// The ids and directories of labs that were kept for a person.
pub fn kept() -> Vec<(String, PathBuf)> {
    claims().filter(|(_, claim)| claim.owner.is_none()).map(|(id, claim)| (id, claim.dir)).collect()
}

/// The hosts of the lab `id`.
pub fn hosts(id: &str) -> Vec<String> {
    let prefix = format!("{id}-");
    let mut names: Vec<String> = netns::with_prefix(&prefix)
        .iter()
        .filter_map(|name| name.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// Removes the lab `id` with its directory: processes, mounts, namespaces, claim.
pub fn remove(id: &str, dir: &Path) {
    let names = netns::with_prefix(&format!("{id}-"));
    for name in &names {
        kill_all(name);
    }
    // Containers live in namespaces of their own, but in the node's control groups.
    for name in cgroup::with_prefix(&format!("{id}-")) {
        cgroup::remove(&name);
    }
    for mount in mounts_below(dir) {
        if let Ok(mut umount) = netns::tool("umount") {
            let _ = umount.arg("--lazy").arg(mount).status();
        }
    }
    for name in &names {
        if let Err(error) = netns::delete(name) {
            eprintln!("lab: {error:#}");
        }
        let _ = fs::remove_dir_all(Path::new(RUN).join(name));
    }
    let _ = fs::remove_file(claim_file(id));
}

/// Ends all processes in the namespace `name`.
pub(super) fn kill_all(name: &str) {
    for pid in netns::pids(name).into_iter().filter_map(Pid::from_raw) {
        // Gone already is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Removes the lab `id` of the dead `owner`, unless it is kept, or gone and its id somebody else's by now.
pub(super) fn reap(id: &str, owner: &str) {
    let is_its = |claim: &Claim| claim.owner.as_ref().is_some_and(|known| known.to_string() == owner);
    if let Some((_, claim)) = claims().find(|(claimed, claim)| claimed == id && is_its(claim)) {
        remove(id, &claim.dir);
    }
}

/// Removes the labs whose owners are gone.
pub fn sweep() {
    for (id, claim) in claims() {
        if claim.owner.as_ref().is_some_and(|owner| start_of(owner.pid) != Some(owner.started)) {
            remove(&id, &claim.dir);
        }
    }
}

fn claims() -> impl Iterator<Item = (String, Claim)> {
    let entries = fs::read_dir(RUN).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.strip_suffix(".json")?.to_owned();
        // A claim that is just being written isn't readable yet, and isn't dead either.
        Some((id, serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?))
    })
}

fn claim_file(id: &str) -> PathBuf {
    Path::new(RUN).join(format!("{id}.json"))
}

fn myself() -> Result<Owner> {
    let pid = std::process::id();
    Ok(Owner { pid, started: start_of(pid).context("reading /proc/self/stat")? })
}

/// When the process `pid` started; none if there is no such process.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let me = myself().unwrap();
        assert_eq!(start_of(me.pid), Some(me.started));
        assert_ne!(start_of(1), Some(me.started));
        assert_eq!(start_of(u32::MAX), None);
    }
}
