//! Control groups of a node with containers: version 1 (one tree per controller) or 2. The tree's name is that of the
//! node's namespace, so that nothing else is ever touched.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the control group `name` for a kubelet.
pub(crate) fn create(name: &str) -> Result<()> {
    for tree in trees() {
        let group = tree.join(name);
        fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        // Version 1: a fresh cpuset has neither processors nor memory, and nothing can live in it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (true, Ok(value)) = (group.join(file).exists(), fs::read_to_string(tree.join(file))) {
                fs::write(group.join(file), value.trim()).with_context(|| format!("{file} of {name}"))?;
            }
        }
        if is_unified(&tree) {
            for at in [&tree, &group] {
                fs::write(at.join("cgroup.subtree_control"), "+cpu +cpuset +memory +pids +io")
                    .with_context(|| format!("enabling controllers in {}", at.display()))?;
            }
        }
    }
    Ok(())
}

/// Kills all processes in the group `name` and below, and removes it.
pub(crate) fn remove(name: &str) {
    for _ in 0..50 {
        let groups: Vec<PathBuf> =
            all_trees().into_iter().map(|tree| tree.join(name)).filter(|it| it.exists()).collect();
        if groups.is_empty() {
            return;
        }
        for group in &groups {
            kill(group);
            remove_tree(group);
        }
        // What was killed needs a moment to leave its group.
        thread::sleep(Duration::from_millis(20));
    }
}

/// All groups whose names begin with `prefix`.
pub(crate) fn with_prefix(prefix: &str) -> Vec<String> {
    let entries = all_trees().into_iter().filter_map(|tree| fs::read_dir(tree).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names.dedup();
    names
}

fn kill(group: &Path) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
        // Gone already is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
    for child in children(group) {
        kill(&child);
    }
}

fn remove_tree(group: &Path) {
    for child in children(group) {
        remove_tree(&child);
    }
    // Busy while a process is dying in it: the next round gets it.
    let _ = fs::remove_dir(group);
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn trees() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if is_unified(root) {
        return vec![root.to_owned()];
    }
    // Beside them a unified tree may be mounted, which then has no controllers.
    all_trees().into_iter().filter(|tree| !is_unified(tree)).collect()
}

/// Also the one without controllers, in which a container runtime makes groups all the same.
fn all_trees() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if is_unified(root) { vec![root.to_owned()] } else { children(root) }
}

fn is_unified(tree: &Path) -> bool {
    tree.join("cgroup.controllers").exists()
}
