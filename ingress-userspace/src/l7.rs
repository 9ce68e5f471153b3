//! The router, in the order of a request's road: listeners, `tls`, the protocol engines, `decide` (`router`, `filter`),
//! `balance`, `upstream`. One worker a core; a request never leaves its worker. Started and fed by `cli::run`; knows
//! `model` and nobody else.

pub mod access_log;
pub mod answer;
pub mod balance;
pub mod decide;
pub mod filter;
pub mod forwarded;
pub mod head;
pub mod http1;
pub mod http2;
pub mod listener;
pub mod live;
mod migrate;
pub mod origin;
pub mod proxy_protocol;
pub mod retry;
pub mod router;
mod runtime;
pub mod stats;
#[cfg(test)]
mod tests;
pub mod timeouts;
pub mod tls;
pub mod trace;
pub mod upstream;
pub mod worker;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

pub use listener::{Address, Proto};
pub use live::{Backend, ClusterKey};

use crate::model::{ObjectRef, Snapshot};
use access_log::AccessLogConfig;
use live::{Compiler, Shared};
use runtime::{Command, Start};
use stats::{IngressSlot, Stats, Totals};
use trace::{SpanCounts, TraceConfig};

/// How the router runs.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Worker threads; one per core is best. 0 means one.
    pub workers: usize,
    /// Where to listen for plain HTTP, besides VIPs.
    pub http: Vec<SocketAddr>,
    /// Where to listen for TLS, besides VIPs.
    pub https: Vec<SocketAddr>,
    /// Whether to listen on the VIPs of each snapshot.
    pub follow_vips: bool,
    /// What the keys of TLS session tickets are made of, the same on all nodes. None: tickets are good here only.
    pub ticket_seed: Option<tls::tickets::Seed>,
    /// Where finished requests are logged; `None`: nowhere.
    pub access_log: Option<AccessLogConfig>,
    /// Where spans go, and of which requests; `None`: nowhere.
    pub tracing: Option<TraceConfig>,
}

/// The running router. Dropping it ends the workers at once; [`L7::drain`] ends them gently.
#[derive(Debug)]
pub struct L7 {
    workers: Vec<WorkerHandle>,
    shared: Arc<Shared>,
    tickets: Arc<tls::tickets::Tickets>,
    follow_vips: bool,
    spans: Option<Arc<SpanCounts>>,
    fixed: BTreeSet<Address>,
    /// Held while a snapshot is compiled; never by a worker.
    publisher: Mutex<Publisher>,
}

#[derive(Debug, Default)]
struct Publisher {
    compiler: Compiler,
    vip_listeners: BTreeSet<Address>,
    /// All listening sockets once more, to set options on.
    copies: Vec<(Address, TcpListener)>,
    /// What clients of VIPs are told; see [`L7::limit_packets`].
    packet_limit: Option<u16>,
}

#[derive(Debug)]
struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    stats: Arc<Stats>,
    /// How many connections it cut off when it ended; taken by the one who drains.
    ended: Mutex<Option<oneshot::Receiver<usize>>>,
}

/// What was counted so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Over all workers.
    pub totals: Totals,
    /// Names of the slots in `totals.by_ingress`; [`IngressSlot::OTHER`] has none.
    pub ingresses: Vec<(ObjectRef, IngressSlot)>,
}

impl L7 {
    /// Compiles the first snapshot, listens, and starts the workers. Fails with one sentence if an address of
    /// `config.http` or `config.https` cannot be listened on; a VIP that cannot is logged.
    pub fn start(config: Config, snapshot: &Snapshot) -> anyhow::Result<Self> {
        let Config { workers: count, http, https, follow_vips, ticket_seed, access_log, tracing } = config;
        let count = count.max(1);
        let mut listeners = Vec::new();
        for (proto, addresses) in [(Proto::Http, http), (Proto::Https, https)] {
            for address in addresses {
                listeners.push((proto, listener::open(address, count)?));
            }
        }
        let shared = Arc::new(Shared::default());
        let default = tls::self_signed().context("cannot make a default certificate")?;
        let seed = ticket_seed.map_or_else(tls::tickets::Seed::random, Ok);
        let tickets =
            seed.and_then(tls::tickets::Tickets::new).context("cannot make keys for TLS tickets")?;
        let tls = tls::Server::new(Arc::clone(&shared), default, Arc::clone(&tickets))
            .context("cannot configure TLS")?;
        let mut workers = Vec::with_capacity(count);
        for id in 0..count {
            let (commands, receiver) = mpsc::unbounded_channel();
            let (ended, wait) = oneshot::channel();
            let stats = Arc::new(Stats::new());
            runtime::spawn(Start {
                id,
                shared: Arc::clone(&shared),
                stats: Arc::clone(&stats),
                tls: tls.clone(),
                access_log: access_log.clone(),
                tracing: tracing.clone(),
                commands: receiver,
                ended,
            })
            .context("cannot start a router worker; are file descriptors exhausted (ulimit -n)?")?;
            workers.push(WorkerHandle { commands, stats, ended: Mutex::new(Some(wait)) });
        }
        let mut l7 = Self {
            workers,
            shared,
            tickets,
            follow_vips,
            spans: tracing.map(|tracing| tracing.counts),
            fixed: BTreeSet::new(),
            publisher: Mutex::default(),
        };
        // Routes before listeners: the first connection finds them.
        l7.publish(snapshot);
        for (proto, opened) in listeners {
            let socket = opened[0].local_addr().context("cannot read a listener's address")?;
            let address = Address { socket, proto };
            l7.fixed.insert(address);
            l7.publisher().keep(address, &opened);
            l7.hand_out(address, opened);
        }
        Ok(l7)
    }

    /// Makes a snapshot the one that is served: compiles it on the caller's thread, then swaps. Open connections stay;
    /// their next request sees it.
    pub fn publish(&self, snapshot: &Snapshot) {
        let mut publisher = self.publisher();
        let live = publisher.compiler.compile(snapshot, &self.shared.load());
        self.shared.publish(Arc::new(live));
        if self.follow_vips {
            let wanted = listener::of_vips(&snapshot.vips);
            self.follow(&mut publisher, &wanted);
        }
    }

    /// Clients of VIPs shall send packets of at most `mtu` bytes, IP header included; `None`: as big as the interface
    /// takes. Holds for new connections.
    pub fn limit_packets(&self, mtu: Option<u16>) {
        let mut publisher = self.publisher();
        publisher.packet_limit = mtu;
        let Publisher { copies, vip_listeners, .. } = &*publisher;
        for (address, listener) in copies.iter().filter(|(address, _)| vip_listeners.contains(address)) {
            limit_packets(address, listener, mtu);
        }
    }

    /// A panic while it was held leaves what was published.
    fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, publisher: &mut Publisher, wanted: &BTreeSet<Address>) {
        let current = &publisher.vip_listeners;
        let gone: Vec<Address> = current.difference(wanted).copied().collect();
        if !gone.is_empty() {
            for address in &gone {
                tracing::info!(address = %address.socket, protocol = ?address.proto, "no longer listening");
            }
            for worker in &self.workers {
                // A worker that has ended listens nowhere.
                let _ = worker.commands.send(Command::Unlisten(gone.clone()));
            }
            publisher.vip_listeners.retain(|address| wanted.contains(address));
            publisher.copies.retain(|(address, _)| wanted.contains(address) || self.fixed.contains(address));
        }
        for &address in wanted {
            if publisher.vip_listeners.contains(&address) || self.fixed.contains(&address) {
                continue;
            }
            match listener::open(address.socket, self.workers.len()) {
                Ok(opened) => {
                    for listener in &opened {
                        limit_packets(&address, listener, publisher.packet_limit);
                    }
                    publisher.keep(address, &opened);
                    self.hand_out(address, opened);
                    publisher.vip_listeners.insert(address);
                }
                // Tried again with the next snapshot.
                Err(error) => {
                    tracing::error!(vip = %address.socket, %error, "a VIP is not served on this node");
                }
            }
        }
    }

    fn hand_out(&self, address: Address, listeners: Vec<TcpListener>) {
        tracing::info!(address = %address.socket, protocol = ?address.proto, "listening");
        for (worker, listener) in self.workers.iter().zip(listeners) {
            // A worker that has ended serves nothing.
            let _ = worker.commands.send(Command::Listen(vec![(address, listener)]));
        }
    }

    /// Where `config.http` and `config.https` ended up: the same, with real ports in place of 0.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.fixed.iter().copied()
    }

    /// Makes session tickets from another seed from now on; those of the one before are still accepted.
    pub fn set_ticket_seed(&self, seed: tls::tickets::Seed) {
        if let Err(error) = self.tickets.replace_seed(seed) {
            tracing::error!(%error, "no keys for TLS tickets can be made of the new seed; the old ones stay");
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> Report {
        let mut totals = Totals::default();
        for worker in &self.workers {
            worker.stats.add_to(&mut totals);
        }
        if let Some(spans) = &self.spans {
            totals.spans_exported = spans.exported.load(Relaxed);
            totals.spans_dropped = spans.dropped.load(Relaxed);
        }
        let publisher = self.publisher();
        let ingresses = publisher.compiler.ingress_slots().map(|(name, slot)| (name.clone(), slot)).collect();
        Report { totals, ingresses }
    }

    /// Client connections open now.
    pub fn connections(&self) -> u64 {
        self.workers.iter().map(|worker| worker.stats.open.get()).sum()
    }

    /// Stops accepting, lets open requests finish, asks clients to go elsewhere (`Connection: close`, GOAWAY), and
    /// ends the workers when the last connection is gone, or after `grace`. Gives the number of connections that were
    /// cut off (0 if this was called before).
    pub async fn drain(&self, grace: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + grace;
        // A listener is closed when its last copy is.
        let copies = std::mem::take(&mut self.publisher().copies);
        keep_queues(&copies);
        drop(copies);
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Drain(deadline));
        }
        let mut cut_off = 0;
        for worker in &self.workers {
            let ended = worker.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(ended) = ended {
                // An error means that the worker's thread broke.
                cut_off += ended.await.unwrap_or(0);
            }
        }
        cut_off
    }
}

impl Publisher {
    fn keep(&mut self, address: Address, listeners: &[TcpListener]) {
        let copies = listeners.iter().filter_map(|listener| listener.try_clone().ok());
        self.copies.extend(copies.map(|copy| (address, copy)));
    }
}

/// Another daemon that listens there gets what is in the queues. Without the right to it, what is there now is still accepted
/// before the listeners close, and what arrives in that moment is reset.
fn keep_queues(listeners: &[(Address, TcpListener)]) {
    let attached = migrate::Migration::load()
        .and_then(|program| listeners.iter().try_for_each(|(_, listener)| program.attach(listener)));
    if let Err(error) = attached {
        tracing::debug!(%error, "the kernel will not move waiting connections to another daemon's listeners");
    }
}

/// What fails costs answers to packets that are too big, nothing else.
fn limit_packets(address: &Address, listener: &TcpListener, mtu: Option<u16>) {
    if let Err(error) = listener::limit_packets(listener, mtu) {
        tracing::warn!(address = %address.socket, %error, "clients cannot be told to send smaller packets");
    }
}
