//! `cargo xtask lab up|exec|down`: the lab of network namespaces for a person (`ingress_tests::lab`): the demo's
//! hosts, objects and daemons, to try things on. It stays up until `down`.

use std::{path::PathBuf, process::ExitStatus};

use anyhow::{Context as _, Result, bail};
use ingress_tests::lab::{Lab, guard};

use crate::{build, process, report, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Bring it up: a client, a switch, nodes with the daemon, pods, and the example objects.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Only hosts and pods: no objects, no daemons.
        #[arg(long)]
        bare: bool,
    },
    /// Run a command on a host of it: `exec client1 curl …`, `exec node1 bash`; without a host, list them.
    Exec {
        /// client1, switch, node1, service1-1, …
        host: Option<String>,
        /// The command with its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Remove every lab that was kept: processes, namespaces, mounts.
    Down,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!(
            "the lab needs root (network namespaces, BPF): run it with `sudo -E env PATH=\"$PATH\" cargo xtask lab …`"
        );
    }
    match &args.verb {
        Verb::Up { nodes, bare } => up(*nodes, *bare),
        Verb::Exec { host: None, .. } => list(),
        Verb::Exec { host: Some(host), command } => {
            let status = exec(host, command)?;
            std::process::exit(status.code().unwrap_or(1));
        }
        Verb::Down => {
            down();
            Ok(())
        }
    }
}

fn up(nodes: usize, bare: bool) -> Result<()> {
    if let Some((id, _)) = guard::kept().first() {
        bail!("the lab {id} is up: remove it first with `cargo xtask lab down`");
    }
    setup::ensure(&setup::LAB)?;
    if !bare {
        build::run()?;
    }
    let lab = Lab::builder("lab").nodes(nodes).build()?;
    report::heading(&format!("lab {}: {nodes} nodes, a client, a switch", lab.id()));
    if !bare {
        lab.serve_examples()?;
        println!("{}", ingress_tests::demo::what_to_try(&lab));
    }
    lab.keep()
}

/// The lab that commands go to: the one that was kept last.
fn kept() -> Result<(String, PathBuf)> {
    let mut labs = guard::kept();
    labs.pop().context("no lab is up: `cargo xtask lab up`, or `cargo xtask demo --keep`")
}

fn list() -> Result<()> {
    let (id, dir) = kept()?;
    println!("hosts of {id} (files in {}):", dir.display());
    for host in guard::hosts(&id) {
        println!("  {host}");
    }
    Ok(())
}

fn exec(host: &str, command: &[String]) -> Result<ExitStatus> {
    let (id, _) = kept()?;
    if !guard::hosts(&id).iter().any(|known| known == host) {
        bail!("{id} has no host {host}: {}", guard::hosts(&id).join(", "));
    }
    let mut command: Vec<&str> = command.iter().map(String::as_str).collect();
    if command.is_empty() {
        command.push("bash");
    }
    let mut nsenter = std::process::Command::new("nsenter");
    nsenter.arg(format!("--net=/run/netns/{id}-{host}")).arg("--").args(&command);
    nsenter.env("LAB_HOST", host).status().with_context(|| format!("running {}", command[0]))
}

fn down() {
    guard::sweep();
    let labs = guard::kept();
    if labs.is_empty() {
        report::skipped("lab down", "no lab is up");
    }
    for (id, dir) in labs {
        guard::remove(&id, &dir);
        report::heading(&format!("lab {id} is gone"));
    }
}
