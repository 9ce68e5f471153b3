//! A network namespace for this process with the tables' addresses on `lo`, and real TCP connections between them, for the
//! socket look-up to find.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::OwnedFd,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ingress_common::{
    abi::{Ip4, Ip6},
    steer::Tuple,
};
use ingress_tests::packets::{CLIENT, CLIENT6, OTHERS_VIP, OTHERS_VIP6, VIP, VIP6};
use rustix::{
    net::{AddressFamily, SocketType, accept, bind, connect, listen, socket, sockopt},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Moves this process (still of one thread) into a network namespace of its own. It goes away with the process.
pub(crate) fn own_namespace() -> Result<()> {
    // SAFETY: only the network namespace is left; no file descriptors or memory are unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .context("cannot make a network namespace: run as root")?;
    ip(&["link", "set", "lo", "up"])?;
    for addr in [CLIENT, VIP, OTHERS_VIP] {
        ip(&["addr", "add", &format!("{}/32", Ipv4Addr::from(addr)), "dev", "lo"])?;
    }
    for addr in [CLIENT6, VIP6, OTHERS_VIP6] {
        ip(&["addr", "add", &format!("{addr}/128"), "dev", "lo", "nodad"])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status().context("cannot run ip")?;
    ensure!(status.success(), "ip {} failed", arguments.join(" "));
    Ok(())
}

/// Both ends of an established connection. Closing it leaves nothing behind, no time-wait socket either.
pub(crate) struct Connection {
    _ends: [OwnedFd; 2],
}

impl Connection {
    /// Connects the tuple's client to its VIP.
    pub(crate) fn open<A: Address>(tuple: &Tuple<A>) -> Result<Self> {
        let server = A::socket_addr(tuple.dst, tuple.dst_port.get());
        let client = A::socket_addr(tuple.src, tuple.src_port.get());
        let listener = bound_socket(&server)?;
        listen(&listener, 1)?;
        let near = bound_socket(&client)?;
        connect(&near, &server).context("connect")?;
        let far = accept(&listener)?;
        for end in [&near, &far] {
            sockopt::set_socket_linger(end, Some(Duration::ZERO))?;
        }
        Ok(Self { _ends: [far, near] })
    }
}

/// A TCP socket bound to `addr`, to connect or to listen.
pub(crate) fn bound_socket(addr: &SocketAddr) -> Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, addr).context("bind")?;
    Ok(socket)
}

/// An address that a socket can have.
pub(crate) trait Address: Copy {
    fn socket_addr(self, port: u16) -> SocketAddr;
}

impl Address for Ip4 {
    fn socket_addr(self, port: u16) -> SocketAddr {
        SocketAddrV4::new(Ipv4Addr::from(self), port).into()
    }
}

impl Address for Ip6 {
    fn socket_addr(self, port: u16) -> SocketAddr {
        SocketAddrV6::new(Ipv6Addr::from(self), port, 0, 0).into()
    }
}
