//! Connections that wait in the queues of a listener when it closes: the kernel moves them to another listener of the same
//! address, if there is one, instead of resetting them. Called by `L7::drain`: a daemon that takes over listens there already.
//!
//! The kernel does so for `net.ipv4.tcp_migrate_req=1`, which is the whole node's, or for listeners that have a BPF program
//! of the right kind (Linux 5.14). Ours decides nothing: "take it", and the kernel spreads connections by their hash as ever.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};

/// `BPF_PROG_LOAD`, `BPF_PROG_TYPE_SK_REUSEPORT` and `BPF_SK_REUSEPORT_SELECT_OR_MIGRATE` of `linux/bpf.h`.
const PROG_LOAD: libc::c_int = 5;
const SK_REUSEPORT: u32 = 21;
const SELECT_OR_MIGRATE: u32 = 40;

/// `r0 = 1 (SK_PASS); exit`.
static PROGRAM: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
static LICENSE: &std::ffi::CStr = c"GPL";

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The program, ready to be attached.
pub(super) struct Migration(OwnedFd);

impl Migration {
    /// Loads it: needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub(super) fn load() -> io::Result<Self> {
        let mut attributes = LoadAttributes {
            kind: SK_REUSEPORT,
            instructions: PROGRAM.len() as u32,
            program: PROGRAM.as_ptr().addr() as u64,
            license: LICENSE.as_ptr().addr() as u64,
            attach_type: SELECT_OR_MIGRATE,
            ..LoadAttributes::default()
        };
        attributes.name[..11].copy_from_slice(b"xdp_migrate");
        // SAFETY: the kernel reads as many bytes of `attributes` as its size says, and what its pointers lead to, which lives for
        // ever; it writes nothing, since no log is asked for.
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>())
        };
        match i32::try_from(fd) {
            // SAFETY: a new descriptor, which nobody else has.
            Ok(fd @ 0..) => Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// For all listeners of this one's address, of whichever process.
    pub(super) fn attach(&self, listener: &TcpListener) -> io::Result<()> {
        let program: libc::c_int = self.0.as_fd().as_raw_fd();
        // SAFETY: the descriptors are open, and the kernel reads one `int`, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_EBPF,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::Migration;
    use crate::l7::listener;

    /// The handshake is done and nobody has accepted: the listener closes, and the other one of its address has the connection.
    /// That holds, too, for those of which the kernel has not told anybody yet, because the client is silent.
    #[test]
    fn what_waits_in_a_queue_moves_to_the_other_listener() {
        let program = match Migration::load() {
            Ok(program) => program,
            Err(error) => return println!("skipped: BPF programs need root: {error}"),
        };
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let old = listener::open(address.parse().unwrap(), 1).unwrap().remove(0);
            let address = old.local_addr().unwrap();
            let mut clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
            let new = listener::open(address, 1).unwrap().remove(0);
            for client in &mut clients[..10] {
                client.write_all(b"hello").unwrap();
            }
            program.attach(&old).unwrap();
            drop(old);
            for client in &mut clients[10..] {
                client.write_all(b"hello").unwrap();
            }
            new.set_nonblocking(false).unwrap();
            // `accept` keeps it, too.
            socket2::SockRef::from(&new).set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            for _ in 0..clients.len() {
                let (mut accepted, _) = new.accept().unwrap();
                accepted.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let mut buffer = [0; 5];
                accepted.read_exact(&mut buffer).unwrap();
                assert_eq!(&buffer, b"hello");
            }
        }
    }
}
