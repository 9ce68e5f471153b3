//! Why the L4 front could not start: one variant per cause, one sentence that says what to do. Shown by `run`, which
//! then exits; nothing is left behind.

use std::io;
use std::path::PathBuf;

/// Why [`crate::l4::L4::start`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The binary carries no BPF object.
    #[error(
        "this binary was built without the BPF programs: build it with `cargo xtask build`, or run with `--l4 off`"
    )]
    NoPrograms,
    /// No interface was named.
    #[error("no interface to attach to: name the node's uplink with `--interface`, or run with `--l4 off`")]
    NoInterface,
    /// More interfaces than the program knows.
    #[error("{0} interfaces were named, {max} are possible", max = ingress_common::abi::MAX_UPLINKS)]
    TooManyInterfaces(usize),
    /// An interface is not there.
    #[error("there is no interface `{name}` (there are: {present}): correct `--interface`")]
    UnknownInterface {
        /// The missing one.
        name: String,
        /// Those that are there.
        present: String,
    },
    /// An interface has no Ethernet address.
    #[error("interface `{0}` is not an Ethernet interface: name the uplink by which clients' packets arrive")]
    NotEthernet(String),
    /// The kernel said EPERM or EACCES.
    #[error(
        "not allowed to {action}: the daemon needs the capabilities CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and \
         CAP_PERFMON (or root)"
    )]
    NotPermitted {
        /// What was tried.
        action: &'static str,
    },
    /// The kernel is older than what the program needs.
    #[error(
        "kernel {found} is too old for the XDP front: it needs {needed} or newer (or run with `--l4 off`)"
    )]
    KernelTooOld {
        /// As `uname -r` says it.
        found: String,
        /// First version that has all that is needed.
        needed: &'static str,
    },
    /// There is no BPF file system and none could be mounted.
    #[error(
        "no BPF file system at {path} and none could be mounted ({error}): mount one (`mount -t bpf bpffs \
         /sys/fs/bpf`) or name a directory in one with `--pin-path`"
    )]
    NoBpffs {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another program is on the interface.
    #[error(
        "interface `{interface}` already carries another XDP program (id {program}): find whose it is with `bpftool \
         prog show id {program}` and detach it (`ip link set dev {interface} xdp off`), or name another interface"
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// Id of the program that is there.
        program: u32,
    },
    /// The interface's driver cannot do it.
    #[error(
        "the driver of `{interface}` cannot run the program natively ({error}): use `--xdp-mode auto` or `generic`"
    )]
    NotNative {
        /// The interface.
        interface: String,
        /// What the kernel said.
        error: String,
    },
    /// The kernel's verifier refused the program.
    #[error("the kernel refused the XDP program; please report this with the kernel's version: {0}")]
    Rejected(String),
    /// The kernel's network configuration cannot be read.
    #[error("cannot read the node's network configuration: {0}")]
    Netlink(String),
    /// Anything else that the system refused.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: String,
    },
}

impl StartError {
    /// What `error`, which came up while we tried to `action`, means.
    pub(in crate::l4) fn from_aya(action: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        match errno(error) {
            Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) if !is_verdict(error) => {
                Self::NotPermitted { action }
            }
            _ if is_verdict(error) => Self::Rejected(chain(error)),
            _ => Self::System { action, error: chain(error) },
        }
    }
}

/// The system's error number somewhere in the chain of causes.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<rustix::io::Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
        }
        next = error.source();
    }
    None
}

/// Whether the verifier had a look and said no: it says why, mere lack of rights leaves its log empty.
fn is_verdict(error: &(dyn std::error::Error + 'static)) -> bool {
    use aya::EbpfError;
    use aya::programs::ProgramError;
    let program = match error.downcast_ref::<EbpfError>() {
        Some(EbpfError::ProgramError(program)) => Some(program),
        _ => error.downcast_ref::<ProgramError>(),
    };
    matches!(program, Some(ProgramError::LoadError { verifier_log, .. }) if !verifier_log.to_string().is_empty())
}

/// The whole chain of causes on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
