//! Flags of `xdp-ingress run`, each also an environment variable `XDP_INGRESS_…`, and what they parse to.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::translate::DefaultBackend;

/// Where the objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceArg {
    /// The API server: in-cluster configuration, or kubeconfig.
    Kubernetes,
    /// A file or directory of manifests.
    Directory(PathBuf),
}

impl FromStr for SourceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            _ => Err("expected `kubernetes` or `dir:PATH`".to_owned()),
        }
    }
}

impl fmt::Display for SourceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes => f.write_str("kubernetes"),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Switch {
    On,
    Off,
}

/// Which Secrets are read from the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Secrets {
    /// Those that our Ingresses name, each by its name.
    Named,
    /// All of type `kubernetes.io/tls`, in one watch.
    Tls,
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum XdpMode {
    /// Native where the driver can, generic otherwise (the reason is shown by `status`).
    Auto,
    /// In the driver.
    Native,
    /// In the network core: works with every driver, slower.
    Generic,
}

/// `xdp-ingress run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Where objects come from: `kubernetes`, or `dir:PATH` with ordinary manifests.
    #[arg(
        long,
        env = "XDP_INGRESS_SOURCE",
        default_value = "kubernetes",
        value_name = "kubernetes|dir:PATH"
    )]
    pub source: SourceArg,
    /// Kubeconfig file, when not running in a cluster.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node, as its Node object is called. Needed with `--l4 on`; the host's name by default.
    #[arg(long, env = "XDP_INGRESS_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Name of the `DaemonSet` that runs this daemon, in its own namespace. When it is gone at the daemon's end, the XDP
    /// program is taken off the node; it stays for the next daemon otherwise.
    #[arg(long, env = "XDP_INGRESS_DAEMON_SET", value_name = "NAME")]
    pub daemon_set: Option<String>,
    /// Uplink interfaces at which clients' packets arrive. Needed with `--l4 on`.
    #[arg(long, env = "XDP_INGRESS_INTERFACE", value_delimiter = ',', value_name = "IF[,IF]")]
    pub interface: Vec<String>,
    /// An interface that is a VLAN of an uplink, where the kernel does not say so (Open vSwitch, a bridge that filters
    /// VLANs); of the kernel's own VLAN interfaces it is known. Repeatable.
    #[arg(long, env = "XDP_INGRESS_VLAN", value_delimiter = ',', value_name = "IF=UPLINK:VLAN")]
    pub vlan: Vec<crate::l4::VlanInterface>,
    /// How to attach the XDP program.
    #[arg(long, env = "XDP_INGRESS_XDP_MODE", value_enum, default_value_t = XdpMode::Auto)]
    pub xdp_mode: XdpMode,
    /// The XDP front. Off: a plain HTTP router on `--http` and `--https`; needs neither root nor BPF.
    #[arg(long, env = "XDP_INGRESS_L4", value_enum, default_value_t = Switch::On)]
    pub l4: Switch,
    /// Listen for plain HTTP here, besides the VIPs. Repeatable.
    #[arg(long, env = "XDP_INGRESS_HTTP", value_delimiter = ',', value_name = "ADDR:PORT")]
    pub http: Vec<SocketAddr>,
    /// Listen for TLS here, besides the VIPs. Repeatable.
    #[arg(long, env = "XDP_INGRESS_HTTPS", value_delimiter = ',', value_name = "ADDR:PORT")]
    pub https: Vec<SocketAddr>,
    /// Serve /healthz, /readyz and /metrics here.
    #[arg(long, env = "XDP_INGRESS_ADMIN", default_value = "127.0.0.1:9901", value_name = "ADDR:PORT")]
    pub admin: SocketAddr,
    /// Directory for the control socket and what must survive a restart.
    #[arg(long, env = "XDP_INGRESS_STATE_DIR", default_value = super::client::DEFAULT_STATE_DIR, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Directory in a BPF file system for pinned maps and links.
    #[arg(long, env = "XDP_INGRESS_PIN_PATH", default_value = "/sys/fs/bpf/xdp-ingress", value_name = "DIR")]
    pub pin_path: PathBuf,
    /// How long established connections may go on after SIGTERM.
    #[arg(long, env = "XDP_INGRESS_GRACE_PERIOD", default_value = "240s", value_parser = duration, value_name = "DURATION")]
    pub grace_period: Duration,
    /// Name of our `IngressClass`.
    #[arg(long, env = "XDP_INGRESS_INGRESS_CLASS", default_value = "xdp", value_name = "NAME")]
    pub ingress_class: String,
    /// Serve the Ingresses of this class too, whoever its controller is (migration). Repeatable.
    #[arg(long, env = "XDP_INGRESS_ALSO_CLASS", value_delimiter = ',', value_name = "NAME")]
    pub also_class: Vec<String>,
    /// Serve Ingresses that name no class, even where no class is the default.
    #[arg(long, env = "XDP_INGRESS_WATCH_INGRESS_WITHOUT_CLASS")]
    pub watch_ingress_without_class: bool,
    /// Backend of requests that no rule matches.
    #[arg(long, env = "XDP_INGRESS_DEFAULT_BACKEND", value_name = "NAMESPACE/SERVICE:PORT")]
    pub default_backend: Option<DefaultBackend>,
    /// Which Secrets to read from the API server.
    #[arg(long, env = "XDP_INGRESS_SECRETS", value_enum, default_value_t = Secrets::Named)]
    pub secrets: Secrets,
    /// Router threads; one per core by default.
    #[arg(long, env = "XDP_INGRESS_WORKERS", value_name = "N")]
    pub workers: Option<std::num::NonZeroUsize>,
    /// Log finished requests: `off`, `-` (standard output) or a file, which is reopened when it is moved away.
    #[arg(long, env = "XDP_INGRESS_ACCESS_LOG", default_value = "off", value_name = "FILE|-|off")]
    pub access_log: AccessLogArg,
    /// Format of that log: nginx is ingress-nginx's `upstreaminfo` with node, VIP and more behind it.
    #[arg(long, env = "XDP_INGRESS_ACCESS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Nginx)]
    pub access_log_format: LogFormat,
    /// OTLP collector (over HTTP, without TLS) that gets a span of each traced request.
    #[cfg(feature = "otlp")]
    #[arg(long, env = "XDP_INGRESS_OTLP_ENDPOINT", value_name = "http://HOST:PORT")]
    pub otlp_endpoint: Option<crate::observe::otlp::Endpoint>,
    /// Share of the requests without a trace context of their own that are traced (0 to 1); with a context, its `sampled`
    /// flag decides.
    #[cfg(feature = "otlp")]
    #[arg(long, env = "XDP_INGRESS_OTLP_SHARE", default_value_t = 0.01, value_parser = share, value_name = "SHARE")]
    pub otlp_share: f64,
    /// UDP port on which the nodes tell each other that they are alive.
    #[arg(long, env = "XDP_INGRESS_MEMBERSHIP_PORT", default_value_t = 7947, value_name = "PORT")]
    pub membership_port: u16,
    /// File with the key (32 bytes or more) that authenticates those datagrams; the same on all nodes.
    #[arg(long, env = "XDP_INGRESS_MEMBERSHIP_KEY_FILE", value_name = "FILE")]
    pub membership_key_file: Option<PathBuf>,
    /// File with a secret (32 bytes or more) of which the keys of TLS session tickets are made; the same on all nodes, read
    /// again when it changes. By default they are made of the membership key; without either, a session is resumed by the
    /// node that began it only.
    #[arg(long, env = "XDP_INGRESS_TICKET_KEY_FILE", value_name = "FILE")]
    pub ticket_key_file: Option<PathBuf>,

    /// With more nodes than this they watch each other by SWIM gossip instead of all-to-all heartbeats. The same on all
    /// nodes.
    #[arg(long, env = "XDP_INGRESS_GOSSIP_ABOVE", default_value_t = 32, value_name = "NODES")]
    pub gossip_above: usize,
    /// How many nodes are candidates for a flow (1 to 8). More of them find it after bigger changes of the cluster, and a stray
    /// packet is handed on more often. The same on all nodes.
    #[arg(long, env = "XDP_INGRESS_CANDIDATES", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8), value_name = "NODES")]
    pub candidates: u8,
    /// How often the owner of a VIP repeats its announcement (gratuitous ARP, unsolicited neighbour advertisement).
    #[arg(long, env = "XDP_INGRESS_ANNOUNCE_INTERVAL", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub announce_interval: Duration,
    /// SYNs per second to one VIP on this node above which they are answered with SYN cookies in XDP where the listener's
    /// queue is full; 0: never. `spec.protection.synCookiesAbove` of a class's parameters wins.
    #[arg(long, env = "XDP_INGRESS_SYN_COOKIES_ABOVE", default_value_t = crate::l4::DEFAULT_SYN_COOKIES_ABOVE, value_name = "N")]
    pub syn_cookies_above: u32,
    /// Log the verdict of each packet (debugging; costs speed).
    #[arg(long, env = "XDP_INGRESS_BPF_LOG")]
    pub bpf_log: bool,
}

/// `--access-log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogArg {
    /// No log.
    Off,
    /// To standard output.
    Stdout,
    /// To a file.
    File(PathBuf),
}

impl FromStr for AccessLogArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "-" => Ok(Self::Stdout),
            "" => Err("expected `off`, `-` or a file".to_owned()),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// `--access-log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// ingress-nginx's.
    Nginx,
    /// JSON, one object a line.
    Json,
}

/// Parses `90`, `90s`, `500ms`, `5m`, `1h` (Kubernetes' and Go's way; bare numbers are seconds).
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "expected a duration such as 30s, 500ms or 5m".to_owned())?;
    let seconds =
        |factor: u64| number.checked_mul(factor).map(Duration::from_secs).ok_or("too long".to_owned());
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    }
}

/// A number from 0 to 1.
#[cfg(feature = "otlp")]
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("240s"), Ok(Duration::from_mins(4)));
        assert_eq!(duration("240"), Ok(Duration::from_mins(4)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "s", "-1s", "1d", "1.5s", "99999999999999999999", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn shares() {
        assert_eq!((share("0"), share("0.25"), share("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for wrong in ["", "-0.1", "1.1", "NaN", "all"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sources() {
        assert_eq!("kubernetes".parse(), Ok(SourceArg::Kubernetes));
        assert_eq!("dir:a/b:c".parse(), Ok(SourceArg::Directory("a/b:c".into())));
        for wrong in ["", "dir:", "dir", "k8s", "file:x"] {
            assert!(wrong.parse::<SourceArg>().is_err(), "{wrong}");
        }
    }
}
