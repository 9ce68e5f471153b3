//! What belongs to one worker thread and is shared by its engines: the current generation, balancing state, counters,
//! the draining flag. Never leaves its thread (`Rc`), so nothing here locks.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::TcpStream;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::access_log::{AccessLog, Finished, Notes};
use super::balance::Balancer;
use super::forwarded::{RequestId, RequestIds};
use super::head::{ConnectionInfo, HeadEdits, RequestHead};
use super::live::{Live, Shared};
use super::stats::Stats;
use super::trace::Tracer;

/// How often it is said that proxies send no good PROXY headers.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// A worker's own handle on a generation: cloning it touches no counter that other cores use.
#[derive(Debug)]
pub struct View(Arc<Live>);

impl Deref for View {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0
    }
}

/// Takes over a connection whose client speaks HTTP/2 without TLS (prior knowledge): the stream and what was already
/// read of it.
pub type Http2HandOver = Box<dyn Fn(TcpStream, Bytes, Rc<ConnectionInfo>)>;

/// One worker.
pub struct Worker {
    /// From 0.
    pub id: usize,
    /// Which endpoint gets a request.
    pub balancer: Balancer,
    /// Its counters.
    pub stats: Arc<Stats>,
    shared: Arc<Shared>,
    view: RefCell<Rc<View>>,
    request_ids: RequestIds,
    draining: Cell<bool>,
    complained: Cell<Option<Instant>>,
    http2: RefCell<Option<Http2HandOver>>,
    access_log: OnceCell<AccessLog>,
    tracer: OnceCell<Tracer>,
}

impl Worker {
    /// A worker that serves what `shared` holds.
    pub fn new(id: usize, shared: Arc<Shared>, stats: Arc<Stats>) -> Rc<Self> {
        let view = RefCell::new(Rc::new(View(shared.load())));
        Rc::new(Self {
            id,
            balancer: Balancer::default(),
            stats,
            shared,
            view,
            request_ids: RequestIds::new(),
            draining: Cell::new(false),
            complained: Cell::new(None),
            http2: RefCell::new(None),
            access_log: OnceCell::new(),
            tracer: OnceCell::new(),
        })
    }

    /// The newest generation. Asked once per request; costs one load of a number that rarely changes.
    pub fn live(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        if view.generation != self.shared.generation() {
            *view = Rc::new(View(self.shared.load()));
        }
        Rc::clone(&view)
    }

    /// Whether a connection must begin with a PROXY header.
    pub fn awaits_proxy_header(&self, info: &ConnectionInfo) -> bool {
        let live = self.live();
        let options = live.downstream_at(info.local.ip());
        options.is_some_and(|options| options.proxy_protocol && options.trusts(info.client.ip()))
    }

    /// A connection had no good one. Said now and then: a health check may come every second.
    pub fn proxy_header_failed(&self, info: &ConnectionInfo, error: &dyn std::error::Error) {
        let now = Instant::now();
        if self.complained.get().is_none_or(|last| now - last > COMPLAIN_EVERY) {
            self.complained.set(Some(now));
            tracing::warn!(proxy = %info.client, vip = %info.local, %error, "connections of a trusted proxy are closed");
        }
    }

    /// A new request id.
    pub fn request_id(&self) -> RequestId {
        self.request_ids.make()
    }

    /// Whether connections shall end as soon as they may: `Connection: close` with the next answer.
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Starts to drain.
    pub fn set_draining(&self) {
        self.draining.set(true);
    }

    /// Says where finished requests are logged. Called once, before the first of them.
    pub fn set_access_log(&self, log: Option<AccessLog>) {
        if let Some(log) = log {
            let _ = self.access_log.set(log);
        }
    }

    /// Says where spans go. Called once, before the first request.
    pub fn set_tracer(&self, tracer: Option<Tracer>) {
        if let Some(tracer) = tracer {
            let _ = self.tracer.set(tracer);
        }
    }

    /// Whether [`Finished::notes`] are wanted.
    pub fn logs(&self) -> bool {
        self.access_log.get().is_some() || self.tracer.get().is_some()
    }

    /// A request begins: if it is to be traced, the backend is told with `edits`, and `notes` remember it.
    pub fn begin_trace(&self, head: &RequestHead<'_>, edits: &mut HeadEdits, notes: &mut Notes) {
        if let Some(tracer) = self.tracer.get() {
            tracer.begin(head, edits, notes);
        }
    }

    /// Counts and logs a request that has ended.
    pub fn finished(&self, finished: &Finished<'_>) {
        self.stats.finished(finished);
        if let Some(tracer) = self.tracer.get() {
            tracer.end(finished);
        }
        if let Some(log) = self.access_log.get() {
            log.add(finished, &self.stats);
        }
    }

    /// Lets the log go on to its writer. Called a few times a second.
    pub fn flush_log(&self) {
        if let Some(log) = self.access_log.get() {
            log.flush(&self.stats);
        }
    }

    /// Says who takes HTTP/2 connections over.
    pub fn set_http2(&self, take_over: Http2HandOver) {
        *self.http2.borrow_mut() = Some(take_over);
    }

    /// Hands over a plain connection that began with the HTTP/2 preface (RFC 9113 3.3); `prefix` is what was read so
    /// far, the preface included. Without anybody to take it over it closes.
    pub fn http2(&self, stream: TcpStream, prefix: Bytes, info: Rc<ConnectionInfo>) {
        if let Some(take_over) = &*self.http2.borrow() {
            take_over(stream, prefix, info);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_sees_a_new_generation_and_keeps_the_old_one_alive() {
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(0, Arc::clone(&shared), Arc::default());
        let old = worker.live();
        assert!(Rc::ptr_eq(&old, &worker.live()));
        shared.publish(Arc::new(Live { generation: 7, ..Live::default() }));
        assert_eq!((old.generation, worker.live().generation), (0, 7));
    }
}
