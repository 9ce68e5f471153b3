//! One connection to an endpoint. Made and used by the HTTP/1 engine's `dispatch` and `relay`.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::super::http1::link::Link;
use super::super::http1::slots::Id;
use super::super::http1::wheel::Timer;
use super::pool::PoolKey;
use super::transport::Transport;

/// A connection to an endpoint.
pub(in crate::l7) struct Upstream {
    pub(in crate::l7) link: Link,
    pub(in crate::l7) key: PoolKey,
    pub(in crate::l7) timer: Timer,
    /// The client that it serves; `None` in the pool.
    pub(in crate::l7) client: Option<Id>,
    /// The beginning of an answer's head that has not arrived as a whole.
    pub(in crate::l7) pending: Vec<u8>,
}

impl Upstream {
    /// Begins to connect; never waits. An error means that the endpoint cannot be reached at all.
    pub(in crate::l7) fn connect(
        address: SocketAddr,
        transport: Option<&Arc<Transport>>,
        client: Id,
    ) -> Result<Self, Errno> {
        let tls = transport.map(|transport| transport.session()).transpose();
        // A session is made of settings that were tried when they were compiled.
        let tls = tls.map_err(|_| Errno::INVAL)?.flatten();
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = rustix::net::socket_with(
            family,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        // A head and the body behind it are two sends; neither shall wait for an acknowledgement.
        sockopt::set_tcp_nodelay(&fd, true)?;
        match rustix::net::connect(&fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        Ok(Self {
            link: Link::connecting(fd, tls.map(Into::into)),
            key: (address, Transport::id(transport)),
            timer: Timer::default(),
            client: Some(client),
            pending: Vec::new(),
        })
    }
}
