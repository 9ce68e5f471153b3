//! The L4 front: loads the XDP program, fills its maps, knows which nodes are alive and answers for the VIPs. Called
//! by `cli::run`; knows `model` and nothing of the router. The packets themselves are `ingress-ebpf`'s.
//!
//! A change on its road: `publish` → `engine` (with `membership` and `neighbour`) → `sync` (pure) → maps, `lo`
//! (`address`), `announce`.

mod address;
mod announce;
mod arp;
mod bpf_log;
mod conflict;
mod engine;
mod findings;
mod heartbeat;
mod legacy;
mod load;

mod maps;
pub mod membership;
mod neighbour;
mod netlink;
mod numbers;
mod owner;
mod packet_socket;
mod path_mtu;
mod status;
mod sync;
mod vlan;
mod why;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingress_common::abi::{Config as Behaviour, DEFAULT_MAX_FLOWS};
use ingress_common::hash::FlowKey;
use tokio::sync::watch;

pub use findings::{Conflict, Findings};
pub use ingress_common::abi::MAX_CANDIDATES;
pub use legacy::Legacy;
pub use load::{Attachment, Mode, StartError};
pub use neighbour::Way;
pub use status::{Generation, NodeStatus, Status, Totals, VipStatus};
pub use sync::Standing;
pub use vlan::Told as VlanInterface;
pub use why::{Answer, CandidateStatus, Question, WhyError};

use crate::model::Snapshot;
use engine::{Engine, Orders};
use status::Picture;

/// Hand-overs inside walks that a node makes per second at most, and how many it may make at once (design: without a
/// budget a flood of stray ACKs would be multiplied by the number of candidates).
const WALKS_PER_SECOND: u64 = 200_000;
const WALK_BURST: u64 = 20_000;

/// More than nearly all sites ever see, and less than a listener's queue holds.
pub const DEFAULT_SYN_COOKIES_ABOVE: u32 = 1000;

/// How the L4 front runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node, as its Node object is called.
    pub node_name: String,
    /// Uplinks: interfaces at which clients' packets arrive and peers are reached.
    pub interfaces: Vec<String>,
    /// Interfaces that are VLANs of an uplink without the kernel saying so.
    pub vlans: Vec<VlanInterface>,
    /// How to attach the program.
    pub mode: Mode,
    /// Directory in a BPF file system, for this daemon alone.
    pub pin_path: PathBuf,
    /// How the nodes hear of each other.
    pub membership: membership::Config,
    /// Flows of other nodes that are remembered (8 bytes each).
    pub max_flows: u32,
    /// Nodes of a slot among which a flow is looked for, 1 to [`MAX_CANDIDATES`] (more are taken for that).
    pub candidates: usize,
    /// How often an owner repeats the announcement of a VIP.
    pub announce_interval: Duration,
    /// SYNs per second to one VIP on this node above which they are answered with cookies, unless the VIP says otherwise.
    /// 0: never.
    pub syn_cookies_above: u32,
    /// Log each verdict.
    pub bpf_log: bool,
}

impl Config {
    /// Defaults for everything but what only the node knows.
    pub fn new(node_name: impl Into<String>, interfaces: Vec<String>, pin_path: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            interfaces,
            vlans: Vec::new(),
            mode: Mode::Auto,
            pin_path: pin_path.into(),
            membership: membership::Config::default(),
            max_flows: DEFAULT_MAX_FLOWS,
            candidates: 4,
            announce_interval: Duration::from_secs(30),
            syn_cookies_above: DEFAULT_SYN_COOKIES_ABOVE,
            bpf_log: false,
        }
    }
}

/// The running L4 front. When it is dropped the daemon's part ends; program, link and maps stay pinned and go on, and
/// the next [`L4::start`] with the same pin path takes them over.
pub struct L4 {
    node_name: String,
    orders: watch::Sender<Orders>,
    picture: watch::Receiver<Picture>,
    tunnelled_mtu: watch::Receiver<Option<u16>>,
    findings: watch::Receiver<Findings>,
    traffic: Arc<membership::Traffic>,
    attachments: Vec<Attachment>,
    counters: maps::Counters,
    pin_path: PathBuf,
    engine: tokio::task::JoinHandle<Option<Legacy>>,
}

/// A front whose program is loaded and attached, and that does nothing yet: the daemon before it on this node may still do
/// its work.
pub struct Prepared {
    config: Config,
    netlink: netlink::Netlink,
    packets: packet_socket::PacketSocket,
    loaded: load::Loaded,
}

impl L4 {
    /// Attaches the program, or takes over what is pinned. Call it inside a multi-threaded tokio runtime.
    pub async fn prepare(config: Config) -> Result<Prepared, StartError> {
        let netlink = netlink::Netlink::connect().map_err(system("open a netlink socket"))?;
        let packets = packet_socket::PacketSocket::open().map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                StartError::NotPermitted { action: "open a packet socket" }
            }
            _ => system("open a packet socket")(error),
        })?;
        let options = load::Options {
            interfaces: &config.interfaces,
            mode: config.mode,
            pin_path: &config.pin_path,
            max_flows: config.max_flows,
            log: config.bpf_log,
        };
        let mut loaded = load::load(&options, &netlink).await?;
        if config.bpf_log {
            bpf_log::start(&mut loaded.ebpf);
        }
        tracing::info!(adopted = loaded.is_adopted, pin_path = %config.pin_path.display(), "XDP front loaded");
        Ok(Prepared { config, netlink, packets, loaded })
    }

    /// Starts the tasks. Nothing is steered before the first [`L4::publish`], but what is pinned goes on. `legacy`: what the
    /// daemon before left, which has ended its part.
    pub fn start(prepared: Prepared, legacy: Option<Legacy>) -> Result<Self, StartError> {
        let Prepared { config, netlink, packets, loaded } = prepared;
        let changes = netlink::Changes::subscribe().map_err(system("follow the network configuration"))?;
        let (legacy, inherited, handover) = Legacy::split(legacy);
        let mut places = sync::Places::new();
        let writer = sync::Writer::adopt(loaded.maps, &mut places).map_err(|error| StartError::System {
            action: "read the pinned maps",
            error: error.to_string(),
        })?;

        let behaviour = behaviour(&config);
        let membership = membership::Membership::start(config.node_name.clone(), config.membership, legacy)
            .map_err(system("start the membership"))?;
        let traffic = membership.traffic();
        let (orders, order_inbox) = watch::channel(Orders::default());
        let (publish_picture, picture) = watch::channel(Picture::default());
        let (publish_mtu, tunnelled_mtu) = watch::channel(None);
        let (publish_findings, findings) = watch::channel(Findings::default());
        let (peers, peers_inbox) = watch::channel(Vec::new());
        let (publish_surroundings, surroundings) = watch::channel(neighbour::Surroundings::default());
        tokio::spawn(neighbour::follow(
            netlink.clone(),
            changes,
            peers_inbox,
            config.vlans.clone(),
            publish_surroundings,
        ));
        tokio::spawn(arp::ask_in_own_name(
            netlink.clone(),
            config.pin_path.clone(),
            loaded.attachments.iter().map(|attachment| attachment.index).collect(),
            config.vlans,
            surroundings.clone(),
        ));
        let takeover = load::Takeover::new(loaded.ebpf, loaded.waiting, config.pin_path.clone());
        let engine = Engine {
            own_name: config.node_name.clone(),
            interfaces: config.interfaces,
            behaviour,
            candidates: config.candidates,
            cookies: sync::Cookies {
                above: config.syn_cookies_above,
                cpus: aya::util::nr_cpus().unwrap_or(1) as u32,
            },
            orders: order_inbox,
            view: membership.view(),
            membership,
            peers,
            surroundings,
            picture: publish_picture,
            tunnelled_mtu: publish_mtu,
            netlink,
            writer,
            places,
            handover,
            addresses: address::Addresses::default(),
            packets,
            schedule: announce::Schedule::new(config.announce_interval),
            watch: conflict::Watch::new(config.announce_interval),
            ears: announce::Ears::new(),
            findings: publish_findings,
            pulse: heartbeat::Pulse::new(),
            heartbeat: Some(loaded.heartbeat),
            started: Instant::now(),
            inherited,
            takeover,
        };
        Ok(Self {
            node_name: config.node_name,
            orders,
            picture,
            tunnelled_mtu,
            findings,
            traffic,
            attachments: loaded.attachments,
            counters: loaded.counters,
            pin_path: config.pin_path,
            engine: tokio::spawn(engine.run()),
        })
    }

    /// Brings `snapshot` into the kernel; returns at once, the latest wins. [`L4::generation`] tells when it is live.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Generation {
        let mut generation = Generation::default();
        self.orders.send_modify(|orders| {
            orders.generation.0 += 1;
            orders.snapshot = Some(snapshot);
            generation = orders.generation;
        });
        generation
    }

    /// Whether a program was there already, left by an earlier daemon.
    pub fn is_adopted(&self) -> bool {
        self.attachments.iter().any(|attachment| attachment.is_adopted)
    }

    /// The last snapshot that is in the kernel; 0: none yet.
    pub fn generation(&self) -> Generation {
        self.picture.borrow().generation
    }

    /// How many bytes a client's packet may have, its IP header included, so that it fits into the tunnel to or from any peer.
    /// `None` while no peer is behind a router.
    pub fn tunnelled_mtu(&self) -> watch::Receiver<Option<u16>> {
        self.tunnelled_mtu.clone()
    }

    /// What this node alone sees to be wrong with the VIPs. Ends when the front does.
    pub fn findings(&self) -> watch::Receiver<Findings> {
        self.findings.clone()
    }

    /// Whether this node takes new flows. Its established ones go on either way.
    pub fn drain(&self, draining: bool) {
        self.orders.send_modify(|orders| orders.draining = draining);
    }

    /// What it does now.
    pub fn status(&self) -> Status {
        let findings = self.findings.borrow().clone();
        let picture = self.picture.borrow();
        Status {
            findings,
            membership: self.traffic.status(),
            ..status::status(&self.node_name, &self.attachments, &picture, &self.counters)
        }
    }

    /// Finds out what would become of a packet that arrives here: the function returned takes some tenths of a second, and
    /// no part of this handle.
    pub fn why(&self, question: Question) -> impl FnOnce() -> Result<Answer, WhyError> + use<> {
        let (pin_path, node) = (self.pin_path.clone(), self.node_name.clone());
        let picture = self.picture.borrow().clone();
        move || why::ask(question, &pin_path, &node, &picture)
    }

    /// Ends in order: tells the peers that this node leaves and gives up its VIPs. Drain first, if connections shall
    /// end by themselves.
    pub async fn stop(self) {
        self.end().await;
    }

    /// Ends and leaves everything as it is, for the next daemon of this node: its peers hear nothing, the tables stay.
    /// [`L4::start`] of that daemon must follow within a part of a second.
    pub async fn hand_over(self) -> Option<Legacy> {
        self.orders.send_modify(|orders| orders.hand_over = true);
        self.end().await
    }

    async fn end(self) -> Option<Legacy> {
        let Self { orders, engine, .. } = self;
        drop(orders);
        engine
            .await
            .inspect_err(|error| tracing::warn!(%error, "the L4 engine did not end cleanly"))
            .ok()
            .flatten()
    }
}

fn system(action: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError::System { action, error: error.to_string() }
}

impl Prepared {
    /// Whether a program was there already, left by an earlier daemon.
    pub fn is_adopted(&self) -> bool {
        self.loaded.attachments.iter().any(|attachment| attachment.is_adopted)
    }
}

/// Takes the L4 front off the node: detaches the program, removes all pins and the VIPs from `lo`, and puts `arp_announce`
/// back.
pub async fn cleanup(pin_path: &Path) -> std::io::Result<()> {
    let vips = load::pinned_vips(pin_path);
    let netlink = netlink::Netlink::connect()?;
    arp::restore(&netlink, pin_path).await?;
    load::unload(pin_path)?;
    if address::Addresses::left(vips).apply(&netlink, &BTreeSet::new()).await {
        Ok(())
    } else {
        Err(std::io::Error::other("not all VIPs could be removed from lo"))
    }
}

fn behaviour(config: &Config) -> Behaviour {
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    let walk_cost_ns = 1_000_000_000 * cpus / WALKS_PER_SECOND;
    Behaviour {
        flags: if config.bpf_log { Behaviour::LOG } else { 0 },
        // Without a key all clusters hash alike: clients can then choose their slot, which only unbalances.
        flow_key: FlowKey::of(
            config.membership.key.as_ref().map_or(0x5cd4_8a1f_90b3_6e27, membership::Key::hash_key),
        ),
        flow_sets: load::flow_sets(config.max_flows),
        heartbeat_timeout_ns: heartbeat::TIMEOUT.as_nanos() as u64,
        walk_cost_ns,
        walk_burst_ns: walk_cost_ns * WALK_BURST / cpus,
        ..Behaviour::default()
    }
}
