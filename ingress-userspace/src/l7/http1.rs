//! HTTP/1.1, an engine of our own: strict parsing and framing in one pass (`request`, `response`, `chunked`, pure), and
//! the steps that join a client's connection with an endpoint's for one exchange at a time (`receive`, `dispatch`,
//! `relay`, `tunnel`, `finish`). Runs on its own epoll inside the worker's tokio runtime; asks `decide` what to do with a
//! request and never looks at rules itself.

mod config;
mod connection;
mod core;
mod dispatch;
pub mod error;
pub mod fields;
mod finish;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod receive;
mod relay;
pub mod request;
pub mod response;
mod splice;
pub mod syntax;
#[cfg(test)]
mod timeout_tests;
mod tunnel;

pub(in crate::l7) mod body;
pub(in crate::l7) mod chunked;
pub(in crate::l7) mod link;
pub(in crate::l7) mod slots;
pub(in crate::l7) mod wheel;
pub(in crate::l7) mod write;

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{MissedTickBehavior, interval, sleep};

pub use config::Http1Config;

use self::core::Core;
use self::link::Link;
use self::wheel::TICK;
use super::head::ConnectionInfo;
use super::timeouts;
use super::worker::Worker;

/// Rounds over the ready connections before the worker's other tasks get their turn.
const ROUNDS: usize = 8;

/// A worker's HTTP/1.1 engine. Belongs to one thread.
pub struct Engine {
    core: RefCell<Core>,
    /// The engine's epoll, watched by tokio.
    ready: AsyncFd<OwnedFd>,
}

impl Engine {
    /// An engine without connections; must be called in a tokio runtime with IO. It serves only while [`Engine::run`]
    /// runs.
    pub fn new(worker: Rc<Worker>, config: Http1Config) -> io::Result<Rc<Self>> {
        let core = Core::new(worker, config)?;
        let epoll = core.epoll().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` that nobody else has stays the same open descriptor until it is dropped with `ready`.
        let ready = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Rc::new(Self { core: RefCell::new(core), ready }))
    }

    /// Accepts plain HTTP from `listener`.
    pub fn add_listener(&self, listener: TcpListener) -> io::Result<()> {
        self.core.borrow_mut().add_listener(listener)
    }

    /// Takes in the connections that wait in the queue of the listener of that address, then closes it.
    pub fn remove_listener(&self, address: SocketAddr) {
        self.core.borrow_mut().remove_listener(address);
    }

    /// Serves a connection whose TLS handshake is done; `session` may hold data that was already decrypted.
    pub fn accept_tls(
        &self,
        stream: TcpStream,
        session: rustls::ServerConnection,
        info: Rc<ConnectionInfo>,
    ) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let link = Link::accepted(stream.into(), Some(session.into()));
        self.core.borrow_mut().add_client(link, info, false);
        Ok(())
    }

    /// Serves until the future is dropped. Must run in the current-thread runtime of [`Engine::new`], with time.
    pub async fn run(self: Rc<Self>) {
        let mut clock = interval(TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Room for requests that wait may have come on another worker, which tells nobody.
            let has_waiting = !self.core.borrow().waiting.is_empty();
            tokio::select! {
                biased;
                _ = clock.tick() => self.core.borrow_mut().tick(),
                () = sleep(timeouts::ROOM), if has_waiting => self.core.borrow_mut().let_in(),
                guard = self.ready.readable() => {
                    let Ok(mut guard) = guard else {
                        tracing::error!("the HTTP/1 engine stops: its runtime is going away");
                        return;
                    };
                    if (0..ROUNDS).all(|_| self.core.borrow_mut().turn()) {
                        drop(guard);
                        tokio::task::yield_now().await;
                    } else {
                        guard.clear_ready();
                    }
                }
            }
        }
    }

    /// Begins to drain: takes in what waits in the listeners' queues and closes them; every connection ends with its next
    /// answer, and those that bring no request soon are closed.
    pub fn drain(&self) {
        let mut core = self.core.borrow_mut();
        core.drain();
    }

    /// Client connections that are open.
    pub fn connections(&self) -> usize {
        self.core.borrow().clients.len()
    }
}
