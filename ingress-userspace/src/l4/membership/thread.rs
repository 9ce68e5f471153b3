//! Runs the membership (`members`): a thread of its own with one UDP socket per own address, so that a busy runtime
//! (a big translation, a full rebuild) never looks like a dead node. Commands come in through a channel, views go
//! out through a `watch`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::link::{self, Head, Links, Road};
use super::machine::{self, Announced, Beat, Incarnation, Liveness};
use super::members::Members;
use super::replay::Window;
use super::wire::{Datagram, Gossip};
use super::{Config, Declared, MembershipStatus, View, wire};

/// Heartbeats sent in a row when leaving: one may be lost.
const FAREWELLS: usize = 3;
/// Datagrams taken in between two looks at the clock.
const BATCH: usize = 256;
/// How often a socket that could not be opened is tried again.
const REBIND_AFTER: Duration = Duration::from_secs(1);

enum Command {
    Declare(Vec<Declared>),
    Announce(Announced),
    Roads(BTreeMap<String, Road>),
    /// The thread stands still for so long.
    #[cfg(test)]
    Freeze(Duration),
    /// It ends without a word, as with its machine.
    #[cfg(test)]
    Vanish,
    /// Leave all to the next daemon of this node, without a farewell.
    HandOver(mpsc::Sender<Legacy>),
}

/// What a daemon leaves to the next one of its node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Legacy {
    pub(crate) members: machine::Legacy,
    /// Gossip datagrams sent; the number is their nonce.
    gossiped: u64,
}

/// What the thread has seen. Counted by it, read for metrics.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    beats_sent: AtomicU64,
    beats_received: AtomicU64,
    gossip_sent: AtomicU64,
    gossip_received: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    suspects: AtomicU64,
    by_link: AtomicU64,
}

impl Traffic {
    pub(crate) fn status(&self) -> MembershipStatus {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        MembershipStatus {
            beats_sent: read(&self.beats_sent),
            beats_received: read(&self.beats_received),
            gossip_sent: read(&self.gossip_sent),
            gossip_received: read(&self.gossip_received),
            refused: read(&self.refused),
            lost: read(&self.lost),
            suspects: read(&self.suspects),
            by_link: read(&self.by_link),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The running membership. Dropping it tells the peers that this node leaves, and ends the thread.
#[derive(Debug)]
pub(crate) struct Membership {
    commands: Option<mpsc::Sender<Command>>,
    wake: Arc<OwnedFd>,
    view: watch::Receiver<View>,
    traffic: Arc<Traffic>,
    thread: Option<JoinHandle<()>>,
}

impl Membership {
    /// Starts the thread. It hears nobody until nodes are declared.
    /// With `legacy` it goes on as the run that left it, which has ended.
    pub(crate) fn start(node_name: String, config: Config, legacy: Option<Legacy>) -> io::Result<Self> {
        if config.key.is_none() {
            info!(
                port = config.port,
                "heartbeats between nodes are not authenticated: give all nodes the same key file to protect them"
            );
        }
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed)
            .map_err(|_| io::Error::other("no random numbers from the system"))?;
        // 0 means "none" on the wire.
        let fresh = Incarnation(u64::from_be_bytes(seed).max(1));
        let incarnation = legacy.as_ref().map_or(fresh, |legacy| legacy.members.incarnation);
        let wake = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, inbox) = mpsc::channel();
        let (publish, view) = watch::channel(View::default());
        let traffic = Arc::new(Traffic::default());
        let mut members = Members::new(
            node_name.clone(),
            incarnation,
            config.timing,
            config.gossip_above,
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(1, |since| since.as_millis() as u64),
        );
        let gossiped = legacy.as_ref().map_or(0, |legacy| legacy.gossiped);
        if let Some(legacy) = legacy {
            members.inherit(Instant::now(), legacy.members);
        }
        let links = Links::new(config.timing.interval, config.port);
        let runner = Runner {
            members,
            incarnation,
            gossiped,
            windows: BTreeMap::new(),
            own_name: node_name,
            config,
            wake: Arc::clone(&wake),
            inbox,
            publish,
            traffic: Arc::clone(&traffic),
            declared: BTreeMap::new(),
            sockets: Vec::new(),
            links,
            next_bind: None,
        };
        let thread = std::thread::Builder::new().name("membership".to_owned()).spawn(move || runner.run())?;
        Ok(Self { commands: Some(commands), wake, view, traffic, thread: Some(thread) })
    }

    /// The nodes that take part, this one included.
    pub(crate) fn declare(&self, nodes: Vec<Declared>) {
        self.command(Command::Declare(nodes));
    }

    /// What this node tells the others of itself; they hear it at once.
    pub(crate) fn announce(&self, announced: Announced) {
        self.command(Command::Announce(announced));
    }

    /// How frames get to the peers on the link.
    pub(crate) fn set_roads(&self, roads: BTreeMap<String, Road>) {
        self.command(Command::Roads(roads));
    }

    /// Ends it without a word to the peers: the next daemon of this node goes on with what this gives. Waits for the thread.
    pub(crate) fn hand_over(mut self) -> Option<Legacy> {
        let (reply, legacy) = mpsc::channel();
        self.command(Command::HandOver(reply));
        let legacy = legacy.recv().ok();
        // Its sockets must be closed before anybody else opens them.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        legacy
    }

    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// As if the machine gave it no CPU.
    #[cfg(test)]
    pub(crate) fn freeze(&self, time: Duration) {
        self.command(Command::Freeze(time));
    }

    /// As if its machine had crashed.
    #[cfg(test)]
    pub(crate) fn vanish(self) {
        self.command(Command::Vanish);
    }

    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The thread ends only with this handle, so there is always somebody to receive.
            let _ = commands.send(command);
        }
        self.wake();
    }

    fn wake(&self) {
        // A full counter means that it is awake already.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where a datagram comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Udp(IpAddr),
    Link(Head),
}

struct Runner {
    members: Members,
    incarnation: Incarnation,
    /// Gossip datagrams sent.
    gossiped: u64,
    /// What was heard of each sender's gossip, so that it counts once.
    windows: BTreeMap<String, Window>,
    own_name: String,
    config: Config,
    wake: Arc<OwnedFd>,
    inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<View>,
    traffic: Arc<Traffic>,
    /// Addresses by name, this node included.
    declared: BTreeMap<String, Vec<IpAddr>>,
    sockets: Vec<UdpSocket>,
    links: Links,
    /// Set while a socket is missing.
    next_bind: Option<Instant>,
}

impl Runner {
    fn run(mut self) {
        let mut next_tick = Instant::now();
        loop {
            let now = Instant::now();
            let mut speak_now = false;
            loop {
                match self.inbox.try_recv() {
                    Ok(Command::Declare(nodes)) => self.declare(now, nodes),
                    Ok(Command::Announce(announced)) => self.members.announce(now, announced),
                    Ok(Command::Roads(roads)) => self.links.set_roads(roads),
                    #[cfg(test)]
                    Ok(Command::Freeze(time)) => std::thread::sleep(time),
                    #[cfg(test)]
                    Ok(Command::Vanish) => return,
                    Ok(Command::HandOver(reply)) => {
                        let legacy = Legacy { members: self.members.legacy(), gossiped: self.gossiped };
                        // Nobody waits: then the peers find out by themselves.
                        let _ = reply.send(legacy);
                        return;
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return self.leave(),
                }
                speak_now = true;
            }
            if self.next_bind.is_some_and(|at| at <= now) {
                self.bind(now);
            }
            self.receive_all();
            let now = Instant::now();
            if now >= next_tick {
                self.members.tick(now);
                self.traffic.by_link.store(self.links.alone(now) as u64, Ordering::Relaxed);
                next_tick = now + self.config.timing.interval;
                speak_now = true;
            }
            self.members.tick_gossip(now);
            if speak_now {
                self.speak();
            }
            self.gossip();
            self.publish_if_changed();
            self.wait(self.members.next_gossip().map_or(next_tick, |due| due.min(next_tick)));
        }
    }

    fn declare(&mut self, now: Instant, nodes: Vec<Declared>) {
        let own_before = self.declared.get(&self.own_name).cloned();
        self.declared = nodes.into_iter().map(|node| (node.name, node.addresses)).collect();
        let names: Vec<&str> = self.declared.keys().map(String::as_str).collect();
        self.members.declare(now, &names);
        self.links.declare(now, self.declared.keys().filter(|name| **name != self.own_name));
        self.windows.retain(|name, _| self.declared.contains_key(name));
        if self.declared.get(&self.own_name) != own_before.as_ref() || self.next_bind.is_some() {
            self.bind(now);
        }
    }

    /// Opens a socket on each own address, so that peers see the address that they know as the source.
    fn bind(&mut self, now: Instant) {
        self.sockets.clear();
        self.next_bind = None;
        for &address in self.declared.get(&self.own_name).map_or(&[][..], Vec::as_slice) {
            match open(SocketAddr::new(address, self.config.port)) {
                Ok(socket) => self.sockets.push(socket),
                Err(error) => {
                    warn!(%address, port = self.config.port, %error, "cannot listen for heartbeats; trying again");
                    self.next_bind = Some(now + REBIND_AFTER);
                }
            }
        }
    }

    fn receive_all(&mut self) {
        let mut buffer = [0; link::MAX_FRAME];
        let mut answers = Vec::new();
        let sockets = std::mem::take(&mut self.sockets);
        for socket in &sockets {
            for _ in 0..BATCH {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { break };
                answers.extend(self.take(&buffer[..len], Source::Udp(from.ip())));
            }
        }
        self.sockets = sockets;
        for _ in 0..BATCH {
            let Ok(frame) = self.links.receive(&mut buffer) else { break };
            answers.extend(frame.and_then(|(head, datagram)| self.take(datagram, Source::Link(head))));
        }
        for name in answers {
            self.speak_to(&name);
        }
    }

    /// Takes a datagram in. A peer that waits for an answer.
    fn take(&mut self, datagram: &[u8], source: Source) -> Option<String> {
        let now = Instant::now();
        let Some(datagram) = wire::decode(datagram, self.config.key.as_ref()) else {
            count(&self.traffic.refused);
            debug!(?source, "not a datagram of this cluster");
            return None;
        };
        let (Datagram::Beat(Beat { sender, .. }) | Datagram::Gossip(Gossip { sender, .. })) = &datagram;
        // Only from where that node is.
        let waits = match source {
            Source::Udp(from) => {
                let is_its = self.declared.get(sender).is_some_and(|its| its.contains(&from));
                is_its.then(|| self.links.heard_by_udp(now, sender)).map(|()| false)
            }
            Source::Link(head) => self.links.heard_by_link(now, sender, head),
        };
        let Some(mut waits) = waits else {
            count(&self.traffic.refused);
            debug!(?source, sender, "a datagram from a place that is not this node's");
            return None;
        };
        let sender = sender.clone();
        match datagram {
            Datagram::Beat(beat) => {
                count(&self.traffic.beats_received);
                waits |= self.members.receive(now, &beat);
            }
            Datagram::Gossip(gossip) => {
                count(&self.traffic.gossip_received);
                let window = self.windows.entry(gossip.sender).or_default();
                if window.is_news(gossip.incarnation, gossip.sequence) {
                    self.members.gossip(now, &gossip.message);
                }
            }
        }
        waits.then_some(sender)
    }

    fn speak(&mut self) {
        let now = Instant::now();
        let peers = self.declared.keys().filter(|n| **n != self.own_name && self.members.beats(now, n));
        for name in peers.cloned().collect::<Vec<_>>() {
            self.speak_to(&name);
        }
    }

    fn speak_to(&mut self, name: &str) {
        let Some(beat) = self.members.beat_for(name) else { return };
        count(&self.traffic.beats_sent);
        self.send(name, wire::encode(&beat, self.config.key.as_ref()));
    }

    fn gossip(&mut self) {
        for (name, message) in self.members.take_messages() {
            self.gossiped += 1;
            let gossip = Gossip {
                sender: self.own_name.clone(),
                incarnation: self.incarnation,
                sequence: self.gossiped,
                message,
            };
            count(&self.traffic.gossip_sent);
            self.send(&name, wire::encode_gossip(&gossip, self.config.key.as_ref()));
        }
    }

    /// By UDP, and on the link where that may be needed.
    fn send(&self, name: &str, datagram: Option<Vec<u8>>) {
        let Some(datagram) = datagram else { return };
        self.links.send(Instant::now(), name, &datagram);
        if let Some((socket, to)) = self.way_to(name)
            && let Err(error) = socket.send_to(&datagram, to)
        {
            // A link that is down or a route that is missing shows as a peer that is down; no need to say it ten times
            // a second.
            debug!(%to, %error, "datagram not sent");
        }
    }

    /// The first address of the peer for whose IP version this node has a socket.
    fn way_to(&self, name: &str) -> Option<(&UdpSocket, SocketAddr)> {
        self.declared.get(name)?.iter().find_map(|&address| {
            let socket = self
                .sockets
                .iter()
                .find(|socket| socket.local_addr().is_ok_and(|own| own.is_ipv4() == address.is_ipv4()))?;
            Some((socket, SocketAddr::new(address, self.config.port)))
        })
    }

    fn publish_if_changed(&self) {
        self.traffic.suspects.store(self.members.suspects(Instant::now()) as u64, Ordering::Relaxed);
        let view = View { settled: self.members.is_settled(), peers: self.members.view() };
        self.publish.send_if_modified(|old| {
            if *old == view {
                return false;
            }
            for (name, liveness) in &view.peers {
                let before = old.peers.get(name).copied().unwrap_or(Liveness::Down);
                if before != *liveness {
                    info!(node = name, ?before, now = ?liveness, "node changed its state");
                    if *liveness == Liveness::Down {
                        count(&self.traffic.lost);
                    }
                }
            }
            *old = view;
            true
        });
    }

    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        fds.extend(self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        fds.extend(self.links.socket().map(|socket| PollFd::new(socket, PollFlags::IN)));
        // An interrupted or failed wait only makes the loop turn earlier.
        if rustix::event::poll(&mut fds, Some(&timeout)).is_ok() && !fds[0].revents().is_empty() {
            let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        }
    }

    fn leave(&mut self) {
        self.members.announce(Instant::now(), Announced::Leaving);
        self.gossip();
        for _ in 0..FAREWELLS {
            self.speak();
        }
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        // The address may come up later than the daemon.
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
