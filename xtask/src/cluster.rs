//! `cargo xtask cluster up|kubectl|helm|exec|down`: a real Kubernetes on this machine for a person
//! (`ingress_tests::cluster::Kubernetes`): control plane, nodes with containers, an external client. It stays up until
//! `down`.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};
use ingress_tests::{
    cluster::{self, Kubernetes, ProxyMode},
    lab::guard,
};

use crate::{image, process, report, setup};

/// What the cluster is called: its namespaces begin with `xi-` and this.
const NAME: &str = "cluster";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Bring it up, with our image on every node.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// What kube-proxy programs.
        #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
        proxy: Proxy,
    },
    /// kubectl, as the administrator.
    Kubectl {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// helm, as the administrator; `deploy/chart` is the chart.
    Helm {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command on a host: `exec client1 curl …`, `exec node1 ip addr`.
    Exec {
        /// client1 (outside), client2 (the control plane), switch, node1, …
        host: String,
        /// The command with its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Remove it: processes, containers, namespaces, control groups, mounts.
    Down,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Proxy {
    Nftables,
    Iptables,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!(
            "the cluster needs root (network namespaces, containers): run it with `sudo -E env PATH=\"$PATH\" cargo xtask cluster …`"
        );
    }
    match &args.verb {
        Verb::Up { nodes, proxy } => up(*nodes, *proxy),
        Verb::Kubectl { arguments } => tool("kubectl", arguments),
        Verb::Helm { arguments } => tool("helm", arguments),
        Verb::Exec { host, command } => exec(host, command),
        Verb::Down => {
            down();
            Ok(())
        }
    }
}

fn up(nodes: usize, proxy: Proxy) -> Result<()> {
    if let Ok((id, _)) = kept() {
        bail!("the cluster {id} is up: remove it first with `cargo xtask cluster down`");
    }
    setup::ensure(&setup::CLUSTER)?;
    image::for_tests()?;
    let started = Instant::now();
    let proxy = match proxy {
        Proxy::Nftables => ProxyMode::Nftables,
        Proxy::Iptables => ProxyMode::Iptables,
    };
    let kubernetes = Kubernetes::up(NAME, nodes, proxy)?;
    report::heading(&format!("cluster: {nodes} nodes Ready after {:.1} s", started.elapsed().as_secs_f64()));
    print!("{}", kubernetes.kubectl(&["get", "nodes", "-o", "wide"])?);
    report::note("cargo xtask cluster kubectl get pods -A");
    report::note(
        "cargo xtask cluster helm install xdp-ingress deploy/chart -n xdp-ingress --create-namespace",
    );
    report::note("cargo xtask cluster exec client1 curl -H 'Host: app.test.com' http://10.77.0.100/");
    kubernetes.keep()
}

/// The cluster that is up.
fn kept() -> Result<(String, PathBuf)> {
    guard::kept()
        .into_iter()
        .find(|(id, _)| is_ours(id))
        .context("no cluster is up: `cargo xtask cluster up`")
}

fn is_ours(id: &str) -> bool {
    id.strip_prefix("xi-").is_some_and(|name| name.split('.').next() == Some(NAME))
}

/// Does not return where the program could be started: its exit status is ours.
fn tool(program: &str, arguments: &[String]) -> Result<()> {
    let (id, dir) = kept()?;
    let status = cluster::command(&id, &dir, program)?.args(arguments).status()?;
    std::process::exit(status.code().unwrap_or(1));
}

fn exec(host: &str, command: &[String]) -> Result<()> {
    let (id, _) = kept()?;
    let mut nsenter = std::process::Command::new("nsenter");
    nsenter.arg(format!("--net=/run/netns/{id}-{host}")).arg("--").args(command);
    let status = nsenter.status().with_context(|| format!("running {}", command[0]))?;
    std::process::exit(status.code().unwrap_or(1));
}

fn down() {
    guard::sweep();
    let mut clusters = guard::kept();
    clusters.retain(|(id, _)| is_ours(id));
    if clusters.is_empty() {
        report::skipped("cluster down", "no cluster is up");
    }
    for (id, dir) in clusters {
        guard::remove(&id, &dir);
        report::heading(&format!("cluster {id} is gone"));
    }
}
