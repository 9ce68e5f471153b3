//! What is remembered about a client's connection and about the exchange that goes on over it. Plain data; the steps
//! are in `receive`, `dispatch`, `relay`, `tunnel` and `finish`. An idle connection has no exchange and no buffer.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::access_log::{Finished, Notes, UpstreamPart, status_or_gone};
use super::super::balance::{Choice, ClusterState, InFlight, Pending};
use super::super::head::ConnectionInfo;
use super::super::stats::{IngressSlot, Stats};
use super::super::upstream::transport::Transport;
use super::body::Body;
use super::config::Patience;
use super::link::Link;
use super::request::Version;
use super::slots::Id;
use super::wheel::Timer;
use crate::model::{Hsts, Retry};

/// Where a client's connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for a request's head, or for the rest of one.
    Head,
    /// A request is with an endpoint.
    Exchange,
    /// We answered ourselves; the rest of the request's body is read and thrown away.
    Discard,
    /// After 101: bytes go both ways unread.
    Tunnel,
    /// The last answer goes out, then the connection closes; `linger`: after the client was given time to read it.
    Last { linger: bool },
    /// Our direction is closed; what still comes is thrown away.
    Linger,
}

/// A client's connection.
pub(super) struct Client {
    pub(super) link: Link,
    pub(super) info: Rc<ConnectionInfo>,
    pub(super) timer: Timer,
    pub(super) phase: Phase,
    /// Read, but not yet part of a request that was begun.
    pub(super) pending: Vec<u8>,
    /// How much of `pending` has been looked at in vain.
    pub(super) looked_at: usize,
    /// It begins with a PROXY header, which has not come yet.
    pub(super) awaits_proxy: bool,
    /// No request has been begun yet.
    pub(super) is_new: bool,
    /// More is to be done than one turn allows; it is in the queue.
    pub(super) queued: bool,
    pub(super) exchange: Option<Box<Exchange>>,
    /// The rest of a body that nobody wants (phase `Discard`).
    pub(super) discard: Body,
}

/// How far the answer is.
#[derive(Debug)]
pub(super) enum Answering {
    /// No final head yet.
    Waiting,
    /// The head has gone to the client; this is the rest of the body.
    Body(Body),
}

/// One request and its answer. Boxes are used again, so that a request allocates nothing.
pub(super) struct Exchange {
    /// The head as it was written for the endpoint, and what of the body came with it. Kept until the answer begins,
    /// so that it can be sent again.
    pub(super) request: Vec<u8>,
    /// The rest of the request's body.
    pub(super) upload: Body,
    /// How much payload it may still bring.
    pub(super) room: u64,
    /// Since when, and how much of the body, has come in the current span in which its rate is watched.
    pub(super) pace: Option<(Instant, u64)>,
    pub(super) patience: Patience,
    pub(super) retry: Retry,
    /// More of the body than `request` holds has gone out: it can't be sent again.
    pub(super) streamed: bool,
    /// The endpoint takes no more of the body; its answer may still come.
    pub(super) upload_broken: bool,
    pub(super) is_head: bool,
    pub(super) is_idempotent: bool,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) ingress: IngressSlot,
    pub(super) cluster: Option<Rc<ClusterState>>,
    pub(super) choice: Choice,
    /// `Strict-Transport-Security` of the answer.
    pub(super) hsts: Option<Hsts>,
    /// How endpoints are spoken to.
    pub(super) transport: Option<Arc<Transport>>,
    pub(super) in_flight: Option<InFlight>,
    /// It waits until fewer requests are under way.
    pub(super) pending: Option<Pending>,
    /// Endpoints that failed it.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) upstream: Option<Id>,
    /// The connection to the endpoint stands.
    pub(super) connected: bool,
    /// The connection came from the pool.
    pub(super) reused: bool,
    /// It was sent again on a fresh connection; not a second time.
    pub(super) retried: bool,
    /// Interim answers so far.
    pub(super) interim: u8,
    pub(super) answering: Answering,
    /// The client gets the payload without its chunks (HTTP/1.0).
    pub(super) unchunk: bool,
    /// The client's connection ends with this answer.
    pub(super) close: bool,
    /// The endpoint's connection can serve another request afterwards.
    pub(super) upstream_keeps: bool,
    /// What is counted and logged at its end.
    pub(super) account: Account,
}

/// What is counted and logged when an exchange ends.
#[derive(Default)]
pub(super) struct Account {
    /// The connection it came by; `None` once it has been counted.
    pub(super) info: Option<Rc<ConnectionInfo>>,
    /// Whose request it is; `None`: the connection says it.
    pub(super) client: Option<IpAddr>,
    pub(super) notes: Notes,
    /// When the request's head was complete.
    pub(super) started: Option<Instant>,
    /// When the last endpoint was asked, and, if that needed a new connection, how long it took.
    pub(super) asked: Option<Instant>,
    pub(super) connect: Duration,
    /// When its answer's head was there.
    pub(super) headed: Option<Instant>,
    /// When the whole answer was there, if that is known to be the same moment.
    pub(super) ended: Option<Instant>,
    pub(super) endpoint: Option<SocketAddr>,
    /// What the endpoint said; 0: nothing.
    pub(super) upstream_status: u16,
    /// What the client got; 0: nothing.
    pub(super) status: u16,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Account {
    /// The request as it is counted and logged, now that it has ended; `None` if that was done.
    pub(super) fn finished(&self, ingress: IngressSlot) -> Option<Finished<'_>> {
        let connection = self.info.as_deref()?;
        let started = self.started?;
        let end = self.ended.unwrap_or_else(Instant::now);
        let upstream = self.endpoint.zip(self.asked).map(|(endpoint, asked)| {
            let times = (asked, self.headed, end);
            UpstreamPart::new(endpoint, self.upstream_status, self.connect, times, self.sent)
        });
        let took = end.saturating_duration_since(started);
        let status = status_or_gone(self.status);
        let (received, sent) = (self.received, self.sent);
        let client = self.client.unwrap_or(connection.client.ip());
        Some(Finished {
            connection,
            client,
            ingress,
            status,
            received,
            sent,
            took,
            upstream,
            notes: &self.notes,
        })
    }
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            request: Vec::new(),
            upload: Body::Done,
            room: u64::MAX,
            pace: None,
            patience: Patience::default(),
            retry: Retry::default(),
            streamed: false,
            upload_broken: false,
            is_head: false,
            is_idempotent: false,
            version: Version::Http11,
            keep_alive: false,
            upgrade: false,
            ingress: IngressSlot::OTHER,
            cluster: None,
            choice: Choice::default(),
            hsts: None,
            transport: None,
            in_flight: None,
            pending: None,
            tried: Vec::new(),
            upstream: None,
            connected: false,
            reused: false,
            retried: false,
            interim: 0,
            answering: Answering::Waiting,
            unchunk: false,
            close: false,
            upstream_keeps: false,
            account: Account::default(),
        }
    }

    /// `count` bytes of the request's body, or behind it, have come.
    pub(super) fn note_upload(&mut self, count: usize, stats: &Stats) {
        self.streamed = true;
        self.account.received += count as u64;
        stats.bytes_in.add(count as u64);
    }

    /// The endpoint did not do what it should.
    pub(super) fn note_failure(&self) {
        if let (Some(cluster), Some(in_flight)) = (&self.cluster, &self.in_flight) {
            cluster.failed(in_flight);
        }
    }

    /// Ready for the next request; buffers are kept unless a large body has passed through them.
    pub(super) fn reset(&mut self) {
        const KEPT: usize = 16 * 1024;
        let mut request = std::mem::take(&mut self.request);
        let mut tried = std::mem::take(&mut self.tried);
        request.clear();
        request.shrink_to(KEPT);
        tried.clear();
        let mut notes = std::mem::take(&mut self.account.notes);
        notes.clear();
        *self = Self { request, tried, account: Account { notes, ..Account::default() }, ..Self::new() };
    }
}

impl Client {
    pub(super) fn new(link: Link, info: Rc<ConnectionInfo>) -> Self {
        Self {
            link,
            info,
            timer: Timer::default(),
            phase: Phase::Head,
            pending: Vec::new(),
            looked_at: 0,
            awaits_proxy: false,
            is_new: true,
            queued: false,
            exchange: None,
            discard: Body::Done,
        }
    }

    /// Nothing of a request has arrived and none is being served.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Head && self.pending.is_empty()
    }

    /// Keeps `bytes` for later; none of them has been looked at.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.looked_at = 0;
        if bytes.is_empty() {
            // Idle connections have no buffer.
            self.pending = Vec::new();
        } else {
            self.pending.clear();
            self.pending.extend_from_slice(bytes);
        }
    }
}
