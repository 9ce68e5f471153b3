//! A worker's thread: a current-thread tokio runtime that runs the HTTP/1 engine, the TLS listeners and HTTP/2, and
//! obeys the commands of `L7`. A panic in one connection's task ends that connection alone.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access_log::{AccessLog, AccessLogConfig};
use super::http1::{Engine, Http1Config};
use super::http2::{Http2, Patience};
use super::listener::{Address, Proto};
use super::live::Shared;
use super::stats::Stats;
use super::tls::{self, accept::TlsAccept};
use super::trace::{TraceConfig, Tracer};
use super::worker::Worker;

/// How often a draining worker looks whether its last connection is gone.
const DRAIN_CHECK: Duration = Duration::from_millis(20);

/// What a worker is told.
pub(super) enum Command {
    /// Serve these listeners.
    Listen(Vec<(Address, TcpListener)>),
    /// Close the listeners of these addresses; open connections stay.
    Unlisten(Vec<Address>),
    /// Close all listeners, let connections finish, end when the last one has, or at the deadline.
    Drain(Instant),
}

/// What a worker needs to start.
pub(super) struct Start {
    pub(super) id: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) stats: Arc<Stats>,
    pub(super) tls: tls::Server,
    pub(super) access_log: Option<AccessLogConfig>,
    pub(super) tracing: Option<TraceConfig>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// Told when the worker has ended: how many connections it cut off.
    pub(super) ended: oneshot::Sender<usize>,
}

/// Starts the thread of a worker; returns when it is ready to listen.
pub(super) fn spawn(start: Start) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (report, ready) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name(format!("l7-{}", start.id)).spawn(move || {
        let Start { id, shared, stats, tls, access_log, tracing, commands, ended } = start;
        let worker = Worker::new(id, shared, stats);
        worker.set_access_log(access_log.map(AccessLog::new));
        worker.set_tracer(tracing.map(Tracer::new));
        let local = LocalSet::new();
        let logging = Rc::clone(&worker);
        let cut_off = local.block_on(&runtime, async {
            let running = Running::new(worker, tls);
            // The caller waits for this report.
            let _ = report.send(running.as_ref().map(|_| ()).map_err(|error| io::Error::from(error.kind())));
            match running {
                Ok(running) => running.obey(commands).await,
                Err(_) => 0,
            }
        });
        // Closes what is left, before anybody is told that it is closed.
        drop((local, runtime));
        logging.flush_log();
        // The receiver is gone if nobody waits for us.
        let _ = ended.send(cut_off);
    })?;
    ready.recv().unwrap_or_else(|_| Err(io::Error::other("the worker's thread broke")))
}

struct Running {
    worker: Rc<Worker>,
    engine: Rc<Engine>,
    http2: Rc<Http2>,
    tls: Rc<TlsAccept>,
    tls_listeners: HashMap<Address, CancellationToken>,
    drain: CancellationToken,
}

impl Running {
    /// Must be called inside the worker's runtime.
    fn new(worker: Rc<Worker>, tls: tls::Server) -> io::Result<Self> {
        let drain = CancellationToken::new();
        let engine = Engine::new(Rc::clone(&worker), Http1Config::default())?;
        let http2 = Http2::new(Rc::clone(&worker), drain.clone(), Patience::default());
        let tls = TlsAccept::new(Rc::clone(&worker), Rc::clone(&engine), Rc::clone(&http2), tls);
        // Weak: the HTTP/2 side holds the worker.
        let taker = Rc::downgrade(&http2);
        worker.set_http2(Box::new(move |stream, prefix, info| {
            if let Some(taker) = taker.upgrade() {
                taker.take_over(stream, prefix, info);
            }
        }));
        tokio::task::spawn_local(Rc::clone(&engine).run());
        tokio::task::spawn_local(Rc::clone(&http2).sweep());
        Ok(Self { worker, engine, http2, tls, tls_listeners: HashMap::new(), drain })
    }

    /// Runs until drained or abandoned; gives the number of connections that are open then.
    async fn obey(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> usize {
        // No more commands: `L7` was dropped without draining.
        while let Some(command) = commands.recv().await {
            match command {
                Command::Listen(listeners) => self.listen(listeners),
                Command::Unlisten(addresses) => self.unlisten(&addresses),
                Command::Drain(deadline) => {
                    self.drain(deadline).await;
                    break;
                }
            }
        }
        self.connections()
    }

    async fn drain(&mut self, deadline: Instant) {
        self.worker.set_draining();
        self.engine.drain();
        self.tls_listeners.values().for_each(CancellationToken::cancel);
        self.drain.cancel();
        while self.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_CHECK).await;
        }
    }

    fn listen(&mut self, listeners: Vec<(Address, TcpListener)>) {
        for (address, listener) in listeners {
            let listening = match address.proto {
                Proto::Http => self.engine.add_listener(listener),
                Proto::Https => {
                    let stop = CancellationToken::new();
                    self.tls_listeners.insert(address, stop.clone());
                    self.tls.listen(listener, stop)
                }
            };
            if let Err(error) = listening {
                tracing::error!(worker = self.worker.id, address = %address.socket, %error, "cannot listen");
            }
        }
    }

    fn unlisten(&mut self, addresses: &[Address]) {
        for address in addresses {
            match address.proto {
                Proto::Http => self.engine.remove_listener(address.socket),
                Proto::Https => {
                    if let Some(stop) = self.tls_listeners.remove(address) {
                        stop.cancel();
                    }
                }
            }
        }
    }

    fn connections(&self) -> usize {
        self.engine.connections() + self.http2.connections() + self.tls.handshakes()
    }
}
