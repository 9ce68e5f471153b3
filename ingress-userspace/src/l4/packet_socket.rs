//! Packet sockets: whole Ethernet frames out of a given interface, and those of one type that come in. Need `CAP_NET_RAW`.
//! Used by `announce` and `membership::link`.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// `struct sockaddr_ll` of `linux/if_packet.h`.
#[repr(C)]
struct LinkAddress {
    family: u16,
    /// Network byte order. Of no meaning for frames that are sent whole.
    protocol: u16,
    ifindex: i32,
    hatype: u16,
    pkttype: u8,
    halen: u8,
    addr: [u8; 8],
}

const _: () = assert!(size_of::<LinkAddress>() == 20, "the kernel's layout");

/// The socket.
#[derive(Debug)]
pub(crate) struct PacketSocket(Socket);

impl PacketSocket {
    /// One that only sends: without a protocol it receives nothing.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// One that receives what comes in by any interface in frames of this type, too.
    pub(crate) fn of_type(ethertype: u16) -> io::Result<Self> {
        let socket = Self::open()?;
        socket.0.bind(&address(0, ethertype))?;
        Ok(socket)
    }

    /// The next frame that waits, cut to the length of `buffer`.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    /// Sends `frame`, Ethernet header included, out of the interface with index `link`.
    pub(crate) fn send(&self, link: u32, frame: &[u8]) -> io::Result<()> {
        self.0.send_to(frame, &address(link, 0)).map(drop)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The interface with index `link` (0: any), for frames of this type.
pub(super) fn address(link: u32, ethertype: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `LinkAddress` has the layout of the platform's `sockaddr_ll` (asserted above for its size), is valid
    // for any bytes, and is smaller and no more aligned than the storage.
    let view = unsafe { storage.view_as::<LinkAddress>() };
    view.family = rustix::net::AddressFamily::PACKET.as_raw();
    view.protocol = ethertype.to_be();
    view.ifindex = link.cast_signed();
    // SAFETY: the first `size_of::<LinkAddress>()` bytes hold an initialised address of family AF_PACKET.
    unsafe { SockAddr::new(storage, size_of::<LinkAddress>() as u32) }
}
