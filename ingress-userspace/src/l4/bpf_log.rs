//! Brings what the XDP program logs (only when it was loaded with `--bpf-log`) into the daemon's log. Started by
//! `L4::start`. For debugging: it costs speed and can lose lines.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

/// Writes records of the program as events of `tracing`.
struct Tracing;

impl log::Log for Tracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        info!(target: "xdp", "{}", record.args());
    }

    fn flush(&self) {}
}

/// Reads the log until the daemon ends.
pub(crate) fn start(ebpf: &mut Ebpf) {
    let logger = match EbpfLogger::init_with_logger(ebpf, Tracing) {
        Ok(logger) => logger,
        Err(error) => return warn!(%error, "no log from the XDP program"),
    };
    let Ok(fd) = logger.as_fd().try_clone_to_owned() else {
        return warn!("cannot wait for the log of the XDP program");
    };
    // SAFETY: an `OwnedFd` keeps its descriptor open and always gives the same one.
    let Ok(fd) = (unsafe { AsyncFd::register(fd) }) else {
        return warn!("cannot wait for the log of the XDP program");
    };
    let mut logger = logger;
    tokio::spawn(async move {
        while let Ok(mut ready) = fd.readable().await {
            logger.flush();
            ready.clear_ready();
        }
    });
}
