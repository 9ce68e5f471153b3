//! Network namespaces: make, remove, enter, and run `ip`, `ethtool` and sysctl settings in them. Called by `build`,
//! `host` and `guard`. Named namespaces (`/run/netns/NAME`) are used, so that `ip netns exec` works for a person.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::paths;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// The file that stands for the namespace `name`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// Makes the namespace `name`, with `lo` up.
pub(crate) fn add(name: &str) -> Result<()> {
    succeed(tool("ip")?.args(["netns", "add", name]))?;
    ip(name, "link set lo up")
}

/// Removes the namespace `name`, and with it all interfaces inside and their peers.
pub(crate) fn delete(name: &str) -> Result<()> {
    succeed(tool("ip")?.args(["netns", "delete", name]))
}

/// All named namespaces that begin with `prefix`.
pub(crate) fn with_prefix(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMES) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Processes that live in the namespace `name`.
pub(crate) fn pids(name: &str) -> Vec<i32> {
    let output = tool("ip").and_then(|mut ip| Ok(ip.args(["netns", "pids", name]).output()?));
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Moves the calling thread, and all threads that it starts from now on, into the namespace `name`.
pub(crate) fn enter(name: &str) -> Result<()> {
    let file = File::open(path(name)).with_context(|| format!("opening the namespace {name}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering the namespace {name} (needs root)"))
}

/// Runs `ip` with each line of `lines` inside the namespace `name`, all in one process.
pub(crate) fn ip(name: &str, lines: &str) -> Result<()> {
    let mut child = tool("ip")?
        .args(["-netns", name, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip in {name}: {} (of: {lines})", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Switches offloads of `interface` in the namespace `name`, such as `["tx", "off"]`.
pub(crate) fn offloads(name: &str, interface: &str, features: &[&str]) -> Result<()> {
    let net = format!("--net={}", path(name).display());
    succeed(
        tool("nsenter")?.arg(net).arg(tool("ethtool")?.get_program()).args(["-K", interface]).args(features),
    )
}

/// Writes sysctl values (`net/ipv4/ip_forward`, `1`) of the namespace `name`; `/proc/sys/net` shows a thread those of
/// its own namespace.
pub(crate) fn sysctl(name: &str, values: &[(&str, &str)]) -> Result<()> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter(name)?;
            for (key, value) in values {
                fs::write(Path::new("/proc/sys").join(key), value)
                    .with_context(|| format!("sysctl {key}={value} in {name}"))?;
            }
            Ok(())
        });
        worker.join().unwrap_or_else(|_| bail!("the thread for sysctls of {name} panicked"))
    })
}

/// The program `name`, also from the system folders that an ordinary user's `PATH` lacks.
pub(crate) fn tool(name: &str) -> Result<Command> {
    let program = paths::program(name)
        .with_context(|| format!("`{name}` isn't installed: run `cargo xtask setup` first"))?;
    Ok(Command::new(program))
}

/// Runs `command`; an error with what it wrote to stderr where it fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
