//! What is counted and logged of a request by HTTP/2 at its end. Kept beside the exchange, then beside the body of the
//! answer (or the tunnel), and told to the worker when that goes, however it ends: answered, reset or cut off.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{REFERER, USER_AGENT};
use http::request::Parts;

use super::body::Progress;
use crate::l7::access_log::{Finished, Note, Notes, UpstreamPart, status_or_gone};
use crate::l7::head::{ConnectionInfo, HeadEdits, RequestHead};
use crate::l7::router::RouteEntry;
use crate::l7::stats::IngressSlot;
use crate::l7::worker::Worker;

/// One request.
pub struct Account {
    worker: Rc<Worker>,
    connection: Rc<ConnectionInfo>,
    client: IpAddr,
    notes: Notes,
    pub(super) ingress: IngressSlot,
    started: Instant,
    /// When the last endpoint was asked, and how long it took to connect.
    asked: Option<(SocketAddr, Instant)>,
    connect: Duration,
    headed: Option<Instant>,
    upstream_status: u16,
    /// What the client got; 0: nothing yet.
    status: u16,
    /// Length of the head, as it would be without compression.
    head: u64,
    /// Counts the body.
    progress: Option<Rc<Progress>>,
    /// Bytes of a tunnel from the client.
    received: u64,
    /// Bytes of the body that went to the client.
    pub(super) sent: u64,
}

impl Account {
    /// A request that has just come.
    pub(super) fn new(worker: &Rc<Worker>, connection: &Rc<ConnectionInfo>, parts: &Parts) -> Self {
        let mut account = Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            client: connection.client.ip(),
            notes: Notes::default(),
            ingress: IngressSlot::OTHER,
            started: Instant::now(),
            asked: None,
            connect: Duration::ZERO,
            headed: None,
            upstream_status: 0,
            status: 0,
            head: length(parts),
            progress: None,
            received: 0,
            sent: 0,
        };
        if worker.logs() {
            account.note(parts);
        }
        account
    }

    fn note(&mut self, parts: &Parts) {
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let line: [&[u8]; 4] = [parts.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/2.0"];
        self.notes.set(Note::Line, &line);
        for (note, name) in [(Note::Referer, REFERER), (Note::UserAgent, USER_AGENT)] {
            if let Some(value) = parts.headers.get(name) {
                self.notes.set(note, &[value.as_bytes()]);
            }
        }
    }

    /// Whose it is, and for whom.
    pub(super) fn note_head(&mut self, head: &RequestHead<'_>) {
        self.client = head.origin.client;
        if self.worker.logs() {
            self.notes.set(Note::Host, &[head.host.as_bytes()]);
        }
    }

    /// It begins: a traced one's backend is told with `edits`.
    pub(super) fn begin_trace(&mut self, head: &RequestHead<'_>, edits: &mut HeadEdits) {
        self.worker.begin_trace(head, edits, &mut self.notes);
    }

    /// Where it goes.
    pub(super) fn note_route(&mut self, route: &RouteEntry, id: &[u8]) {
        self.ingress = route.ingress;
        if self.worker.logs() {
            let ingress = &route.route.ingress;
            self.notes.set(Note::RequestId, &[id]);
            self.notes.set(Note::Namespace, &[ingress.namespace.as_bytes()]);
            self.notes.set(Note::Ingress, &[ingress.name.as_bytes()]);
            self.notes.set(Note::Upstream, &[route.upstream_name.as_bytes()]);
        }
    }

    /// This counts its body.
    pub(super) fn follow(&mut self, progress: &Rc<Progress>) {
        self.progress = Some(Rc::clone(progress));
    }

    /// An endpoint is asked now.
    pub(super) fn asks(&mut self, endpoint: SocketAddr) {
        self.asked = Some((endpoint, Instant::now()));
        (self.connect, self.headed, self.upstream_status) = (Duration::ZERO, None, 0);
    }

    /// A new connection to it stands.
    pub(super) fn connected(&mut self) {
        self.connect = self.asked.map_or(Duration::ZERO, |(_, asked)| asked.elapsed());
    }

    /// The head of its answer is there.
    pub(super) fn headed(&mut self, status: u16) {
        self.headed = Some(Instant::now());
        self.upstream_status = status;
    }

    /// What went through a tunnel in its two directions, in bytes.
    pub(super) fn carried(&mut self, from_client: u64, to_client: u64) {
        (self.received, self.sent) = (from_client, to_client);
    }

    /// The client gets this status. 101: what follows is a tunnel, whose length is no latency.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let end = Instant::now();
        let upstream = self.asked.map(|(endpoint, asked)| {
            let times = (asked, self.headed, end);
            UpstreamPart::new(endpoint, self.upstream_status, self.connect, times, self.sent)
        });
        let body = self.progress.as_ref().map_or(0, |progress| progress.received.get());
        self.worker.finished(&Finished {
            connection: &self.connection,
            client: self.client,
            ingress: self.ingress,
            status: status_or_gone(self.status),
            received: self.head + body + self.received,
            sent: self.sent,
            took: end.saturating_duration_since(self.started),
            upstream,
            notes: &self.notes,
        });
    }
}

/// What the request line and the fields are long, with what separates them in HTTP/1.1.
fn length(parts: &Parts) -> u64 {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let host = parts.uri.authority().map_or(0, |authority| "host: \r\n".len() + authority.as_str().len());
    let line = parts.method.as_str().len() + target + "  HTTP/2.0\r\n".len();
    (line + host + fields(&parts.headers) + "\r\n".len()) as u64
}

fn fields(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}
