//! The daemon's sign of life: a thread writes the clock into the map `HEARTBEAT` ten times a second, as long as the
//! `engine` turns. When it stops, the program gives new flows to the other nodes. A thread, so that a runtime that is
//! busy translating a big cluster is not taken for a dead daemon.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::error;

use super::maps::Heartbeat;

/// Between two writes.
const INTERVAL: Duration = Duration::from_millis(100);
/// The program takes the node for dead after this (`Config::heartbeat_timeout_ns`): many intervals, since a busy
/// machine may not run the thread in time.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
/// An engine that did not turn for so long is stuck.
const ENGINE_STUCK_AFTER: Duration = Duration::from_secs(5);

/// Nanoseconds of the clock that `bpf_ktime_get_ns` reads.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Stamped by the engine at every turn.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(now())))
    }

    pub(crate) fn beat(&self) {
        self.0.store(now(), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        Duration::from_nanos(now().saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

/// The running thread. Dropping it writes a last value that says "dead".
#[derive(Debug)]
pub(crate) struct HeartbeatThread {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HeartbeatThread {
    pub(crate) fn start(map: Heartbeat, pulse: Pulse) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || run(map, &pulse, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl HeartbeatThread {
    /// Ends it right after a last sign of life: the next daemon goes on within the time-out.
    pub(crate) fn leave(mut self) {
        if let Some(stop) = &self.stop {
            // The thread ends only by this handle.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut map: Heartbeat, pulse: &Pulse, stopped: &mpsc::Receiver<()>) {
    let mut is_stuck = false;
    loop {
        let was_stuck = is_stuck;
        is_stuck = pulse.age() > ENGINE_STUCK_AFTER;
        if is_stuck && !was_stuck {
            error!("the L4 engine is stuck: new flows go to the other nodes");
        }
        if !is_stuck && let Err(error) = map.set(0, now(), 0) {
            error!(%error, "cannot write the heartbeat: new flows go to the other nodes");
        }
        match stopped.recv_timeout(INTERVAL) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                // 1 ns after boot: older than any timeout.
                let _ = map.set(0, 1, 0);
                return;
            }
            Ok(()) => {
                let _ = map.set(0, now(), 0);
                return;
            }
        }
    }
}
