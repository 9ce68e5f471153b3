//! The last step of an upgrade that changed the maps: the earlier daemon's program went on with its own maps while ours
//! were filled; now ours takes its place through the pinned link, between two packets. Made by `L4::start`, completed
//! by `engine` when everything is in place for the first time.

use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::Xdp;
use tracing::{error, info};

use super::attach::{Waiting, replace};
use super::{bpffs, xdp};

/// A program that waits to take over.
pub(crate) struct Takeover {
    ebpf: Ebpf,
    waiting: Vec<Waiting>,
    pin_path: PathBuf,
}

impl Takeover {
    /// `None` if nothing waits: then `ebpf` is not needed any more.
    pub(crate) fn new(ebpf: Ebpf, waiting: Vec<Waiting>, pin_path: PathBuf) -> Option<Self> {
        (!waiting.is_empty()).then_some(Self { ebpf, waiting, pin_path })
    }

    /// Replaces the program of every waiting link. What could not be done, if anything; a restart tries it again.
    pub(crate) fn complete(mut self) -> Result<(), String> {
        let program: &mut Xdp = xdp(&mut self.ebpf).map_err(|error| error.to_string())?;
        for Waiting { interface, link } in self.waiting {
            if !replace(program, link) {
                error!(interface, "the earlier version's program could not be replaced: restart the daemon");
                return Err(format!("`{interface}` still runs the earlier version's XDP program"));
            }
            info!(interface, "XDP program replaced through its pinned link, with new maps");
        }
        bpffs::end_rebuilding(&self.pin_path).map_err(|error| error.to_string())
    }
}
