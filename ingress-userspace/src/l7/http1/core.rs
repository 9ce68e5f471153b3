//! The engine's state and its loop over epoll events: finds the connection that an event is for, notes its readiness,
//! and drives it as far as it goes without waiting. The steps are in `receive`, `dispatch`, `relay`, `tunnel` and
//! `finish`. Never blocks; called by `Engine` only.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, getsockname};

use super::super::access_log::Notes;
use super::super::head::ConnectionInfo;
use super::super::upstream::connection::Upstream;
use super::super::upstream::pool::Pool;
use super::super::worker::Worker;
use super::config::{Http1Config, Timeouts};
use super::connection::{Client, Exchange, Phase};
use super::error::Refusal;
use super::link::Link;
use super::request::ParsedRequest;
use super::response::ParsedResponse;
use super::slots::{Id, Slots};
use super::splice::Pipes;
use super::wheel::Wheel;

/// What one read may bring, and the longest piece of a body that is in our hands at once.
const SCRATCH: usize = 64 * 1024;
/// Events that are taken from the kernel together.
const EVENTS: usize = 256;
/// Connections that are accepted from one listener before others get their turn.
const ACCEPTS: usize = 64;
/// Reads for one connection before others get their turn: 1 MiB.
const READS: u32 = 16;
/// Exchanges that are kept for use by the next request.
const SPARE: usize = 256;

const CLIENT: u64 = 0;
const UPSTREAM: u64 = 1 << 62;
const LISTENER: u64 = 2 << 62;
const KIND: u64 = 3 << 62;

/// How a connection goes on after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// With the next step, at once.
    Again,
    /// When an event tells that there is something to do.
    Wait,
    /// When the others have had their turn.
    Yield,
    /// Not at all.
    Close,
}

/// A listener of plain HTTP.
struct Listening {
    socket: TcpListener,
    address: SocketAddr,
}

/// All of a worker's HTTP/1 connections.
pub(super) struct Core {
    pub(super) worker: Rc<Worker>,
    pub(super) config: Http1Config,
    pub(super) timeouts: Timeouts,
    pub(super) clients: Slots<Client>,
    pub(super) upstreams: Slots<Upstream>,
    pub(super) pool: Pool,
    pub(super) pipes: Pipes,
    pub(super) wheel: Wheel,
    /// What was read last. Taken out while a request's head is being worked on.
    pub(super) scratch: Vec<u8>,
    /// Heads and answers on their way to a client.
    pub(super) out: Vec<u8>,
    pub(super) request: ParsedRequest,
    pub(super) response: ParsedResponse,
    /// Of a request that we answer ourselves.
    pub(super) notes: Notes,
    /// Reads that the connection being driven may still do in this turn.
    pub(super) reads: u32,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    listeners: Slots<Listening>,
    /// Listeners with more connections than one turn takes in.
    crowded: Vec<Id>,
    /// Listeners that wait for file descriptors: tried again with the next tick.
    stalled: Vec<Id>,
    /// Clients with more to do than one turn allows.
    queue: VecDeque<Id>,
    /// Clients whose requests wait until fewer are under way.
    pub(super) waiting: VecDeque<Id>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is used again")]
    spare: Vec<Box<Exchange>>,
}

/// The wheel's and epoll's name for a client.
pub(super) fn client_token(id: Id) -> u64 {
    CLIENT | id.to_bits()
}

/// The wheel's and epoll's name for a connection to an endpoint.
pub(super) fn upstream_token(id: Id) -> u64 {
    UPSTREAM | id.to_bits()
}

impl Core {
    pub(super) fn new(worker: Rc<Worker>, config: Http1Config) -> io::Result<Self> {
        Ok(Self {
            worker,
            timeouts: Timeouts::new(&config),
            config,
            clients: Slots::new(),
            upstreams: Slots::new(),
            pool: Pool::default(),
            pipes: Pipes::default(),
            wheel: Wheel::new(),
            scratch: vec![0; SCRATCH],
            out: Vec::new(),
            request: ParsedRequest::default(),
            response: ParsedResponse::default(),
            notes: Notes::default(),
            reads: 0,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            listeners: Slots::new(),
            crowded: Vec::new(),
            stalled: Vec::new(),
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    pub(super) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Serves what is ready now; whether there is more. If not, the next event wakes whoever watches the epoll: every
    /// registration is edge-triggered, and fewer events than asked for means that none is left.
    pub(super) fn turn(&mut self) -> bool {
        for _ in 0..self.queue.len() {
            if let Some(id) = self.queue.pop_front() {
                if let Some(client) = self.clients.get_mut(id) {
                    client.queued = false;
                }
                self.drive(id);
            }
        }
        for listener in std::mem::take(&mut self.crowded) {
            self.accept(listener, ACCEPTS);
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted, or (which cannot be) a bad descriptor: nothing is ready.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now));
        for event in &events {
            let (token, flags) = (event.data.u64(), event.flags);
            let id = Id::from_bits(token);
            match token & KIND {
                UPSTREAM => self.upstream_event(id, flags),
                LISTENER => self.accept(id, ACCEPTS),
                _ => self.client_event(id, flags),
            }
        }
        if !self.waiting.is_empty() {
            self.let_in();
        }
        let more = events.len() == EVENTS || !self.queue.is_empty() || !self.crowded.is_empty();
        self.events = events;
        more
    }

    fn client_event(&mut self, id: Id, flags: EventFlags) {
        if self.clients.get_mut(id).is_some_and(|client| client.link.notice(flags) && !client.queued) {
            self.drive(id);
        }
    }

    fn upstream_event(&mut self, id: Id, flags: EventFlags) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        let matters = upstream.link.notice(flags);
        match upstream.client {
            Some(client) if matters => match self.clients.get(client) {
                Some(client) if client.queued => {}
                Some(_) => self.drive(client),
                None => drop(self.upstreams.remove(id)),
            },
            // An unused connection has nothing to say: it was closed, or its endpoint is out of step.
            None if upstream.link.is_readable() => {
                let key = upstream.key;
                self.pool.forget(key, id);
                self.upstreams.remove(id);
            }
            _ => {}
        }
    }

    /// Lets a connection go on as far as it can. A bug that panics costs that connection only.
    pub(super) fn drive(&mut self, id: Id) {
        if catch_unwind(AssertUnwindSafe(|| self.drive_steps(id))).is_err() {
            tracing::error!(
                "a connection was closed because of an internal error; please report the panic message above"
            );
            if self.scratch.is_empty() {
                self.scratch = vec![0; SCRATCH];
            }
            self.close(id);
            for upstream in self.upstreams.ids() {
                if self.upstreams.get(upstream).is_some_and(|upstream| upstream.client == Some(id)) {
                    self.upstreams.remove(upstream);
                }
            }
        }
    }

    fn drive_steps(&mut self, id: Id) {
        self.reads = READS;
        while let Some(client) = self.clients.get(id) {
            let next = match client.phase {
                Phase::Head => self.receive(id),
                Phase::Exchange => self.with_exchange(id, Self::relay),
                Phase::Tunnel => self.with_exchange(id, Self::tunnel),
                Phase::Discard => self.discard(id),
                Phase::Last { linger } => self.last(id, linger),
                Phase::Linger => self.linger(id),
            };
            match next {
                Next::Again => {}
                Next::Wait => return,
                Next::Yield => {
                    if let Some(client) = self.clients.get_mut(id) {
                        client.queued = true;
                        self.queue.push_back(id);
                    }
                    return;
                }
                Next::Close => return self.close(id),
            }
        }
    }

    /// Does a step with the exchange of a client, and puts it aside when the step ended it.
    pub(super) fn with_exchange(&mut self, id: Id, step: fn(&mut Self, Id, &mut Exchange) -> Next) -> Next {
        let Some(mut exchange) = self.clients.get_mut(id).and_then(|client| client.exchange.take()) else {
            return Next::Close;
        };
        let next = step(self, id, &mut exchange);
        match self.clients.get_mut(id) {
            Some(client)
                if next != Next::Close && matches!(client.phase, Phase::Exchange | Phase::Tunnel) =>
            {
                client.exchange = Some(exchange);
            }
            _ => self.put_aside(exchange),
        }
        next
    }

    /// An exchange for a new request.
    pub(super) fn new_exchange(&mut self) -> Box<Exchange> {
        self.spare.pop().unwrap_or_else(|| Box::new(Exchange::new()))
    }

    /// Ends an exchange: its endpoint's connection closes unless it was given back before.
    pub(super) fn put_aside(&mut self, mut exchange: Box<Exchange>) {
        if let Some(upstream) = exchange.upstream.take() {
            self.upstreams.remove(upstream);
        }
        if let Some(finished) = exchange.account.finished(exchange.ingress) {
            self.worker.finished(&finished);
        }
        exchange.reset();
        if self.spare.len() < SPARE {
            self.spare.push(exchange);
        }
    }

    /// Whether the connection being driven may read once more in this turn.
    pub(super) fn may_read(&mut self) -> bool {
        self.reads = self.reads.saturating_sub(1);
        self.reads > 0
    }

    pub(super) fn close(&mut self, id: Id) {
        if let Some(mut client) = self.clients.remove(id) {
            if client.link.is_tls() && !client.link.is_dead() && !client.link.is_finished() {
                client.link.finish();
            }
            if let Some(exchange) = client.exchange.take() {
                self.put_aside(exchange);
            }
            self.worker.stats.open.sub(1);
        }
    }

    pub(super) fn add_listener(&mut self, socket: TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let id = self.listeners.insert(Listening { socket, address });
        let token = EventData::new_u64(LISTENER | id.to_bits());
        let flags = EventFlags::IN | EventFlags::ET;
        let watched =
            self.listeners.get(id).map_or(Ok(()), |new| epoll::add(&self.epoll, &new.socket, token, flags));
        if let Err(errno) = watched {
            self.listeners.remove(id);
            return Err(errno.into());
        }
        Ok(())
    }

    /// Takes in what waits in the listener's queue, then closes it.
    pub(super) fn remove_listener(&mut self, address: SocketAddr) {
        for id in self.listeners.ids() {
            if self.listeners.get(id).is_some_and(|listening| listening.address == address) {
                self.accept(id, usize::MAX);
                self.listeners.remove(id);
            }
        }
    }

    fn accept(&mut self, id: Id, max: usize) {
        for _ in 0..max {
            let Some(listening) = self.listeners.get(id) else { return };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match acceptfrom_with(&listening.socket, flags) {
                Ok((fd, peer)) => {
                    let local = if listening.address.ip().is_unspecified() {
                        getsockname(&fd).ok().and_then(|local| SocketAddr::try_from(local).ok())
                    } else {
                        Some(listening.address)
                    };
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    let (Some(local), Some(peer)) = (local, peer) else { continue };
                    let info = Rc::new(ConnectionInfo::new(peer, local, None));
                    let awaits_proxy = self.worker.awaits_proxy_header(&info);
                    self.add_client(Link::accepted(fd, None), info, awaits_proxy);
                }
                Err(Errno::AGAIN) => return,
                // The client gave up while it was waiting.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(errno) => {
                    tracing::warn!(error = %errno, "connections cannot be accepted; are file descriptors exhausted (ulimit -n)?");
                    self.stalled.push(id);
                    return;
                }
            }
        }
        self.crowded.push(id);
    }

    /// Takes a connection in. It is read before it is registered: its request is usually there already.
    /// `awaits_proxy`: behind a PROXY header.
    pub(super) fn add_client(&mut self, link: Link, info: Rc<ConnectionInfo>, awaits_proxy: bool) {
        self.worker.stats.accepted.add(1);
        self.worker.stats.open.add(1);
        let id = self.clients.insert(Client { awaits_proxy, ..Client::new(link, info) });
        if let Some(client) = self.clients.get_mut(id) {
            self.wheel.set(&mut client.timer, client_token(id), self.timeouts.head);
        }
        self.drive(id);
        if let Some(client) = self.clients.get(id)
            && let Err(errno) = register(&self.epoll, client.link.fd(), client_token(id))
        {
            tracing::warn!(error = %errno, "a connection cannot be watched (fs.epoll.max_user_watches)");
            self.close(id);
        }
    }

    /// Watches a connection to an endpoint.
    pub(super) fn add_upstream(&mut self, upstream: Upstream) -> Result<Id, Errno> {
        let id = self.upstreams.insert(upstream);
        let added =
            self.upstreams.get(id).map(|new| register(&self.epoll, new.link.fd(), upstream_token(id)));
        if let Some(Err(errno)) = added {
            self.upstreams.remove(id);
            return Err(errno);
        }
        Ok(id)
    }

    /// Stops watching a client's connection and gives it away.
    pub(super) fn give_away(&mut self, id: Id) -> Option<Client> {
        let client = self.clients.remove(id)?;
        // Fails if it was never registered, which is fine too.
        let _ = epoll::delete(&self.epoll, client.link.fd());
        // Whoever takes it over counts it as open, but not as accepted: that counter never goes back.
        self.worker.stats.open.sub(1);
        Some(client)
    }

    /// One tick of the clock has passed.
    pub(super) fn tick(&mut self) {
        self.worker.flush_log();
        for listener in std::mem::take(&mut self.stalled) {
            self.accept(listener, ACCEPTS);
        }
        for entry in self.wheel.advance() {
            let id = Id::from_bits(entry.0);
            if entry.0 & KIND == UPSTREAM {
                let Some(upstream) = self.upstreams.get_mut(id) else { continue };
                if self.wheel.is_due(&mut upstream.timer, entry) && upstream.client.is_none() {
                    let key = upstream.key;
                    self.pool.forget(key, id);
                    self.upstreams.remove(id);
                }
            } else if let Some(client) = self.clients.get_mut(id)
                && self.wheel.is_due(&mut client.timer, entry)
            {
                self.timed_out(id);
            }
        }
    }

    fn timed_out(&mut self, id: Id) {
        let Some(client) = self.clients.get(id) else { return };
        let next = match client.phase {
            Phase::Head if !client.pending.is_empty() && !client.awaits_proxy => {
                self.refuse(id, Refusal::TooSlow)
            }
            Phase::Exchange => self.with_exchange(id, Self::exchange_timed_out),
            _ => Next::Close,
        };
        if next == Next::Close { self.close(id) } else { self.drive(id) }
    }

    /// Listeners close once their queues are empty; connections that wait for a request get a last chance to bring one.
    pub(super) fn drain(&mut self) {
        for id in self.listeners.ids() {
            self.accept(id, usize::MAX);
            self.listeners.remove(id);
        }
        for id in self.clients.ids() {
            if let Some(client) = self.clients.get_mut(id).filter(|client| client.is_idle()) {
                self.wheel.set(&mut client.timer, client_token(id), self.timeouts.drain_idle);
            }
        }
        for id in self.pool.clear() {
            self.upstreams.remove(id);
        }
    }
}

/// Edge-triggered and for everything, once and for all: no further call is ever made to change it.
fn register(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64) -> Result<(), Errno> {
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(epoll, fd, EventData::new_u64(token), flags)
}
