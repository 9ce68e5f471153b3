//! Brings a lab from bare hosts to one that serves: the objects of the examples, a daemon on every node, and real
//! `curl` to see it. Used by scenarios, the demo and `cargo xtask lab`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Host, Lab, Node,
    echo::Echo,
    http::Target,
    load,
    manifests::{self, TLS, TWO_HOSTS, WILDCARD_HOST},
    netns,
    tls::Authority,
    topology,
};

/// How long the first request may take after the daemons are ready: membership settles, the owner is found.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

impl Lab {
    /// Writes all examples with their cluster, starts all daemons, and waits until every VIP answers.
    pub fn serve_examples(&self) -> Result<()> {
        self.declare_examples()?;
        self.start_daemons()
    }

    /// Writes all examples with their cluster.
    pub fn declare_examples(&self) -> Result<()> {
        self.declare_cluster()?;
        self.manifests().write("wildcard-host", WILDCARD_HOST)?;
        self.manifests().write("two-hosts", TWO_HOSTS)?;
        self.declare_tls()?;
        Ok(())
    }

    /// Writes the TLS example, with a certificate of an authority whose own one goes to [`Lab::authority_file`].
    pub fn declare_tls(&self) -> Result<Authority> {
        let authority = Authority::new()?;
        fs::write(self.authority_file(), authority.certificate())?;
        let identity = authority.issue(&["secure.example.com"])?;
        let yaml = format!("{}---\n{TLS}", manifests::tls_secret("secure-example-com", &identity));
        self.manifests().write("tls", &yaml)?;
        Ok(authority)
    }

    /// What `curl --cacert` needs to trust the lab's certificates.
    pub fn authority_file(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }

    /// Starts the daemons of all nodes and waits until all are ready and every VIP is served.
    pub fn start_daemons(&self) -> Result<()> {
        self.nodes().iter().try_for_each(Node::launch_daemon)?;
        self.nodes().iter().try_for_each(Node::wait_until_ready)?;
        for vip in self.vips() {
            self.wait_until_served(vip)?;
        }
        Ok(())
    }

    /// Waits until a request through `vip` reaches a backend of the first example; how long that took.
    pub fn wait_until_served(&self, vip: IpAddr) -> Result<Duration> {
        let target = Target::new(vip, "foo.bar.com", "/bar");
        let served = load::until(self.client(0), &target, Instant::now(), FIRST_REQUEST, |answer| {
            answer.as_ref().is_ok_and(|response| response.echo().is_ok())
        });
        served.with_context(|| {
            let logs =
                self.nodes().iter().map(|node| format!("{}:\n{}", node.name(), node.daemon_log_tail()));
            format!("the daemons' logs:\n{}", logs.collect::<Vec<_>>().join("\n"))
        })
    }

    /// The node that owns `vip`, as a running daemon has it.
    pub fn owner(&self, vip: IpAddr) -> Result<&Node> {
        let asked = self.nodes().iter().find(|node| node.is_running()).context("no daemon runs")?;
        let status = asked.status()?;
        let owner = status["l4"]["vips"].as_array().into_iter().flatten().find_map(|entry| {
            let address: SocketAddr = entry["address"].as_str()?.parse().ok()?;
            (address.ip() == vip).then(|| entry["owner"].as_str())?
        });
        let owner = owner.with_context(|| format!("{vip} has no owner: {:#}", status["l4"]["vips"]))?;
        self.nodes().iter().find(|node| node.name() == owner).context("a node of this lab")
    }

    /// The node that answers for `vip` on the wire, as the first client learns it anew.
    pub fn answers_for(&self, vip: IpAddr) -> Result<&Node> {
        let client = self.client(0);
        // Whatever it knew is forgotten; a connection attempt asks anew.
        client.output("ip", &["neigh", "flush", "to", &vip.to_string()])?;
        client.run(|| {
            let _ = std::net::TcpStream::connect_timeout(&SocketAddr::new(vip, 80), Duration::from_secs(2));
            Ok(())
        })?;
        let table = client.output("ip", &["neigh", "show", &vip.to_string()])?;
        let owner = self.nodes().iter().find(|node| table.contains(&topology::mac(node.addresses())));
        owner.with_context(|| format!("nobody answers for {vip}: {}", table.trim()))
    }
}

/// A request by real `curl`, to a site at a given address.
#[derive(Debug, Clone)]
pub struct Curl {
    arguments: Vec<String>,
}

/// What curl got.
#[derive(Debug, Clone)]
pub struct CurlAnswer {
    /// Status code.
    pub status: u16,
    /// `1.1`, `2`.
    pub version: String,
    /// The body.
    pub body: String,
}

impl Curl {
    /// `curl URL`, with the host's name resolved to `address`; `options` are curl's own.
    pub fn new(url: &str, address: IpAddr, options: &[&str]) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").context("a URL")?;
        let name = rest.split(['/', ':']).next().unwrap_or(rest);
        let port = if scheme == "https" { 443 } else { 80 };
        let address = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let mut arguments = vec!["--resolve".to_owned(), format!("{name}:{port}:{address}")];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        arguments.push(url.to_owned());
        Ok(Self { arguments })
    }

    /// The command as a person would type it.
    pub fn shown(&self) -> String {
        format!("curl {}", self.arguments.join(" "))
    }

    /// Runs it on `host`.
    pub fn run(&self, host: &Host) -> Result<CurlAnswer> {
        let curl = netns::tool("curl")?;
        let mut command: Command = host.command(curl.get_program());
        command
            .args(["-sS", "--max-time", "5", "-w", "\n%{http_code} %{http_version}"])
            .args(&self.arguments);
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{}: {}", self.shown(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, trailer) = text.rsplit_once('\n').context("curl's output")?;
        let (status, version) = trailer.split_once(' ').context("curl's trailer")?;
        Ok(CurlAnswer { status: status.parse()?, version: version.to_owned(), body: body.to_owned() })
    }
}

impl CurlAnswer {
    /// The backend's answer.
    pub fn echo(&self) -> Result<Echo> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.body.trim());
        Echo::parse(&self.body)
    }
}
