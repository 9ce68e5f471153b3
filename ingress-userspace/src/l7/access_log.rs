//! The access log's side of a worker: remembers what of a request is wanted at its end ([`Notes`]), renders one line for
//! each finished request into a buffer of the worker, and hands full buffers to the writer (`observe::access_log`)
//! without ever waiting: what the writer cannot take is dropped and counted. Called by `Worker::finished`.

mod render;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::head::ConnectionInfo;
use super::stats::{IngressSlot, Stats};

/// A worker's buffer goes to the writer when it is this long, or with the next tick of the clock.
const BATCH: usize = 64 * 1024;
/// The longest value of a header field or target that is remembered.
const LONGEST: usize = 2048;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// ingress-nginx's `upstreaminfo`, with node, VIP, connect and header times, and the Ingress behind it.
    #[default]
    Nginx,
    /// One JSON object a line.
    Json,
}

/// Whole lines on their way to the writer.
#[derive(Debug)]
pub struct Batch {
    /// The lines, each with its line feed.
    pub text: Vec<u8>,
    /// How many they are.
    pub lines: u64,
}

/// Where lines go and how they look.
#[derive(Debug, Clone)]
pub struct AccessLogConfig {
    /// The format.
    pub format: Format,
    /// Name of this node.
    pub node: String,
    /// The writer. Bounded: that bounds the memory, too.
    pub sink: SyncSender<Batch>,
}

/// One text that is remembered of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// `GET /path?query HTTP/1.1` as the client sent it.
    Line,
    /// `Host` or `:authority`.
    Host,
    /// `Referer`
    Referer,
    /// `User-Agent`
    UserAgent,
    /// `X-Request-ID` as the backend gets it.
    RequestId,
    /// Namespace of the Ingress and of its Service.
    Namespace,
    /// Name of the Ingress.
    Ingress,
    /// `namespace-service-port`, as ingress-nginx names upstreams.
    Upstream,
    /// Of a request that is traced: ids of the trace, of our span and of its parent, if it has one; bytes, not digits.
    Trace,
}

const NOTES: usize = Note::Trace as usize + 1;

/// What is remembered of a request, in one buffer that is used again.
#[derive(Debug, Default)]
pub struct Notes {
    text: Vec<u8>,
    spans: [(u32, u32); NOTES],
}

impl Notes {
    /// Forgets everything; keeps the buffer.
    pub fn clear(&mut self) {
        self.text.clear();
        self.spans = Default::default();
    }

    /// Remembers a text made of `pieces`, cut off where it is too long.
    pub fn set(&mut self, note: Note, pieces: &[&[u8]]) {
        let start = self.text.len();
        for piece in pieces {
            let room = (start + LONGEST).saturating_sub(self.text.len());
            self.text.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        self.spans[note as usize] = (start as u32, self.text.len() as u32);
    }

    /// The text; empty if there is none.
    pub fn get(&self, note: Note) -> &[u8] {
        let (start, end) = self.spans[note as usize];
        &self.text[start as usize..end as usize]
    }
}

/// What an endpoint did for a request.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamPart {
    /// The last one that was tried.
    pub endpoint: SocketAddr,
    /// Its status; 0 without an answer.
    pub status: u16,
    /// Time to connect; zero for a connection from the pool.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub header: Option<Duration>,
    /// From the request to the end of the answer.
    pub response: Duration,
    /// Bytes of the answer's body.
    pub bytes: u64,
}

impl UpstreamPart {
    /// The times: when it was asked, when the head of its answer was there, when all was over. `sent`: bytes of the answer's
    /// body that went on to the client.
    pub fn new(
        endpoint: SocketAddr,
        status: u16,
        connect: Duration,
        (asked, headed, end): (Instant, Option<Instant>, Instant),
        sent: u64,
    ) -> Self {
        Self {
            endpoint,
            status,
            connect,
            header: headed.map(|headed| headed.saturating_duration_since(asked)),
            response: end.saturating_duration_since(asked),
            bytes: if status == 0 { 0 } else { sent },
        }
    }
}

/// What is logged of a client that was told `status`; 0: it went away before it had an answer, nginx's 499.
pub const fn status_or_gone(status: u16) -> u16 {
    if status == 0 { 499 } else { status }
}

/// A request at its end.
pub struct Finished<'a> {
    /// The connection it came by.
    pub connection: &'a ConnectionInfo,
    /// Whose it is: a proxy's client, where a trusted proxy made the connection.
    pub client: IpAddr,
    /// Where it is counted.
    pub ingress: IngressSlot,
    /// What the client got; 499 if it went away first.
    pub status: u16,
    /// Bytes of the request, head included.
    pub received: u64,
    /// Bytes of the answer's body that went to the client.
    pub sent: u64,
    /// From the request's head to the end of the answer.
    pub took: Duration,
    /// The endpoint's part, if there was one.
    pub upstream: Option<UpstreamPart>,
    /// Texts; empty unless a log is written.
    pub notes: &'a Notes,
}

/// A worker's log.
#[derive(Debug)]
pub struct AccessLog {
    config: AccessLogConfig,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    lines: u64,
    clock: render::Clock,
}

impl AccessLog {
    /// A log without lines.
    pub fn new(config: AccessLogConfig) -> Self {
        Self { config, state: RefCell::default() }
    }

    /// Adds a line.
    pub fn add(&self, finished: &Finished<'_>, stats: &Stats) {
        let state = &mut *self.state.borrow_mut();
        state.clock.read();
        match self.config.format {
            Format::Nginx => render::nginx(&mut state.text, &state.clock, &self.config.node, finished),
            Format::Json => render::json(&mut state.text, &state.clock, &self.config.node, finished),
        }
        state.lines += 1;
        if state.text.len() >= BATCH {
            self.hand_over(state, stats);
        }
    }

    /// Hands over what there is. Called with each tick of the clock and at the end.
    pub fn flush(&self, stats: &Stats) {
        self.hand_over(&mut self.state.borrow_mut(), stats);
    }

    fn hand_over(&self, state: &mut State, stats: &Stats) {
        if state.lines == 0 {
            return;
        }
        let text = std::mem::replace(&mut state.text, Vec::with_capacity(BATCH + LONGEST));
        let lines = std::mem::take(&mut state.lines);
        if self.config.sink.try_send(Batch { text, lines }).is_err() {
            stats.log_dropped.add(lines);
        }
    }
}

#[cfg(test)]
impl<'a> Finished<'a> {
    /// A request that we answered ourselves, for tests.
    pub(super) fn example(connection: &'a ConnectionInfo, notes: &'a Notes) -> Self {
        Self {
            connection,
            client: connection.client.ip(),
            ingress: IngressSlot::OTHER,
            status: 200,
            received: 1,
            sent: 2,
            took: Duration::from_millis(3),
            upstream: None,
            notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn what_the_writer_cannot_take_is_dropped_and_counted() {
        let (sink, lines) = sync_channel(1);
        let log = AccessLog::new(AccessLogConfig { format: Format::Json, node: "n".to_owned(), sink });
        let stats = Stats::new();
        let (connection, notes) = (ConnectionInfo::example(), Notes::default());
        let finished = Finished::example(&connection, &notes);
        for _ in 0..3 {
            log.add(&finished, &stats);
            log.add(&finished, &stats);
            log.flush(&stats);
        }
        assert_eq!((lines.recv().unwrap().lines, stats.log_dropped.get()), (2, 4));
        drop(lines);
        log.add(&finished, &stats);
        log.flush(&stats);
        log.flush(&stats);
        assert_eq!(stats.log_dropped.get(), 5);
    }

    #[test]
    fn notes_are_bounded() {
        let mut notes = Notes::default();
        notes.set(Note::Line, &[b"GET ", &[b'a'; 3 * LONGEST], b" HTTP/1.1"]);
        notes.set(Note::Host, &[b"a.b"]);
        assert_eq!((notes.get(Note::Line).len(), notes.get(Note::Host)), (LONGEST, &b"a.b"[..]));
        notes.clear();
        assert_eq!(notes.get(Note::Host), b"");
    }
}
