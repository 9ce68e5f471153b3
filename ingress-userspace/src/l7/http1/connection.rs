//! What is remembered about a client's connection and about the exchange that goes on over it. Plain data; the steps
//! are in `receive`, `dispatch`, `relay`, `tunnel` and `finish`. An idle connection has no exchange and no buffer.

use std::net::SocketAddr;
use std::rc::Rc;

use super::super::balance::{ClusterState, InFlight};
use super::super::head::ConnectionInfo;
use super::super::stats::IngressSlot;
use super::body::Body;
use super::link::Link;
use super::request::Version;
use super::slots::Id;
use super::wheel::Timer;

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
    pub(super) in_flight: Option<InFlight>,
    /// Endpoints that did not take the connection.
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
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            request: Vec::new(),
            upload: Body::Done,
            streamed: false,
            upload_broken: false,
            is_head: false,
            is_idempotent: false,
            version: Version::Http11,
            keep_alive: false,
            upgrade: false,
            ingress: IngressSlot::OTHER,
            cluster: None,
            in_flight: None,
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
        *self = Self { request, tried, ..Self::new() };
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
