//! Listening sockets: one per worker and address (`SO_REUSEPORT`), made by `L7` on the caller's thread so that errors
//! reach the caller, then handed to the workers. Also what shall listen where, from the VIPs of a snapshot.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::model::Vip;

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// Plain HTTP/1.1, or HTTP/2 with prior knowledge.
    Http,
    /// TLS, then what ALPN says.
    Https,
}

/// Where to listen and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The address and port.
    pub socket: SocketAddr,
    /// What is spoken there.
    pub proto: Proto,
}

/// Why we cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `EADDRINUSE`.
    #[error("cannot listen on {0}: another process uses this port; stop it or choose another port")]
    Taken(SocketAddr),
    /// `EACCES`, `EPERM`.
    #[error(
        "cannot listen on {0}: not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE, \
         addresses that are not on an interface need CAP_NET_ADMIN"
    )]
    Denied(SocketAddr),
    /// `EADDRNOTAVAIL`, `EAFNOSUPPORT`.
    #[error(
        "cannot listen on {0}: this host has no such address; check it, and whether IPv6 is switched off"
    )]
    NoSuchAddress(SocketAddr),
    /// Something else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, #[source] io::Error),
}

/// Connections that the kernel keeps until we accept them; it caps the number at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long the kernel waits for the client's first bytes before it hands us a silent connection.
const DEFER_ACCEPT: Duration = Duration::from_secs(5);

/// Opens `count` listeners on one address. Port 0 means the same free port for all of them.
pub fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners: Vec<TcpListener> = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count {
        let listener = open_one(address).map_err(|error| explain(address, error))?;
        if address.port() == 0 {
            address = listener.local_addr().map_err(|error| explain(address, error))?;
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn open_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Two daemons may share the port while one takes over from the other. Everybody else gets `EADDRINUSE`.
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    // A VIP may come to this node only later, or never; listening on it does no harm.
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    defer_accept(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// `TCP_DEFER_ACCEPT`: we are woken when there is a request to read, not before.
fn defer_accept(socket: &Socket) -> io::Result<()> {
    set_tcp_option(socket, libc::TCP_DEFER_ACCEPT, DEFER_ACCEPT.as_secs() as libc::c_int)
}

/// Headers of IP and TCP in front of a segment, without options (RFC 6691: the segment size does not count those).
const HEADERS4: u16 = 40;
const HEADERS6: u16 = 60;

/// Clients of new connections are told to send packets of at most `mtu` bytes, IP header included (`TCP_MAXSEG`); `None`: of
/// what the interface takes.
pub fn limit_packets(listener: &TcpListener, mtu: Option<u16>) -> io::Result<()> {
    let headers = if listener.local_addr()?.is_ipv4() { HEADERS4 } else { HEADERS6 };
    let size = mtu.map_or(0, |mtu| mtu.saturating_sub(headers));
    set_tcp_option(listener, libc::TCP_MAXSEG, size.into())
}

fn set_tcp_option(socket: &impl AsRawFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel reads one `int`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn explain(address: SocketAddr, error: io::Error) -> ListenError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(address),
        io::ErrorKind::PermissionDenied => ListenError::Denied(address),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => ListenError::NoSuchAddress(address),
        _ => ListenError::Other(address, error),
    }
}

/// Where the VIPs of a snapshot are to be listened on.
pub fn of_vips(vips: &[Vip]) -> BTreeSet<Address> {
    vips.iter()
        .flat_map(|vip| {
            let at = |proto| move |port: &u16| Address { socket: SocketAddr::new(vip.address, *port), proto };
            vip.http_ports.iter().map(at(Proto::Http)).chain(vip.https_ports.iter().map(at(Proto::Https)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, ObjectRef};

    #[test]
    fn listeners_of_one_address_share_its_port() {
        let listeners = open("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: BTreeSet<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert_eq!((listeners.len(), ports.len()), (3, 1));
        assert!(!ports.contains(&0));
    }

    #[test]
    fn a_taken_port_is_said_so() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let error = open(address, 1).unwrap_err();
        assert!(matches!(error, ListenError::Taken(taken) if taken == address), "{error}");
    }

    #[test]
    fn vips_listen_with_both_protocols() {
        let class = ObjectRef::new(Kind::IngressClass, "", "xdp");
        let mut vip = Vip::new("192.0.2.1".parse().unwrap(), class);
        (vip.http_ports, vip.https_ports) = (vec![80, 8080], vec![443]);
        let found: Vec<String> =
            of_vips(&[vip]).iter().map(|a| format!("{} {:?}", a.socket, a.proto)).collect();
        assert_eq!(found, ["192.0.2.1:80 Http", "192.0.2.1:443 Https", "192.0.2.1:8080 Http"]);
    }
}
