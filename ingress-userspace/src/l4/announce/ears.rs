//! Hears who else answers for our VIPs: ARP replies and neighbour advertisements on each uplink. Sockets with filters in the
//! kernel, so that no other traffic is looked at, and tasks that read no more than a few messages at a time: a flood of them
//! is lost in the sockets' buffers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read as _};
use std::net::IpAddr;
use std::time::Duration;

use ingress_common::abi::{Mac, Uplink};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::frame;
use crate::l4::conflict::Claim;
use crate::l4::packet_socket;

/// Reads who answers for which address out of a frame.
type Reader = fn(&[u8]) -> Option<(IpAddr, Mac)>;

/// Messages read at a time from one socket, and the pause after them.
const BATCH: usize = 32;
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that wait in a socket.
const BUFFER: usize = 32 * 1024;

/// `ETH_P_ARP`.
const ARP: u16 = 0x0806;
/// The kernel has no IPv6.
const AFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

// Classic BPF (`linux/filter.h`): load a byte or 16 bits from an absolute place, jump if equal, return.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALL: u32 = 0x4_0000;
/// `SKF_NET_OFF`: places counted from the IP header.
const NETWORK: u32 = 0xfff0_0000;

/// Replies only: requests come all the time, and about our VIPs the program has them already.
const ARP_REPLIES: [SockFilter; 4] = [
    SockFilter::new(LOAD_HALF, 0, 0, 20),
    SockFilter::new(JUMP_EQUAL, 0, 1, 2),
    SockFilter::new(RETURN, 0, 0, ALL),
    SockFilter::new(RETURN, 0, 0, 0),
];
/// Advertisements that no router has forwarded (hop limit 255).
const ADVERTISEMENTS: [SockFilter; 6] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 0),
    SockFilter::new(JUMP_EQUAL, 0, 3, 136),
    SockFilter::new(LOAD_BYTE, 0, 0, NETWORK + 7),
    SockFilter::new(JUMP_EQUAL, 0, 1, 255),
    SockFilter::new(RETURN, 0, 0, ALL),
    SockFilter::new(RETURN, 0, 0, 0),
];

/// All sockets. Their tasks end when it is dropped.
pub(crate) struct Ears {
    links: BTreeMap<(u32, Mac), JoinSet<()>>,
    owned: watch::Sender<BTreeSet<IpAddr>>,
    sender: mpsc::Sender<Claim>,
    inbox: mpsc::Receiver<Claim>,
}

impl Ears {
    pub(crate) fn new() -> Self {
        let (sender, inbox) = mpsc::channel(2 * BATCH);
        Self { links: BTreeMap::new(), owned: watch::channel(BTreeSet::new()).0, sender, inbox }
    }

    /// Listens on exactly these interfaces. Where that is not possible, it is said once, and the rest goes on.
    pub(crate) fn listen(&mut self, uplinks: &[(String, Uplink)]) {
        self.links.retain(|key, _| uplinks.iter().any(|(_, uplink)| *key == (uplink.ifindex, uplink.mac)));
        for (name, uplink) in uplinks {
            let key = (uplink.ifindex, uplink.mac);
            if self.links.contains_key(&key) {
                continue;
            }
            let mut tasks = JoinSet::new();
            let opened: [(_, Reader); 2] = [
                (arp_socket(uplink.ifindex), frame::claim_in_arp),
                (advertisement_socket(name), frame::claim_in_advertisement),
            ];
            for (socket, read) in opened {
                match socket {
                    Ok(socket) => {
                        let (owned, sender) = (self.owned.subscribe(), self.sender.clone());
                        tasks.spawn(hear(socket, read, *uplink, owned, sender));
                    }
                    // IPv6 may be off.
                    Err(error) if error.raw_os_error() == Some(AFNOSUPPORT) => {}
                    Err(error) => warn!(
                        interface = name, %error,
                        "cannot listen there for others that answer for our VIPs: conflicts are not noticed"
                    ),
                }
            }
            self.links.insert(key, tasks);
        }
    }

    /// Claims of these addresses are of interest.
    pub(crate) fn own(&self, vips: BTreeSet<IpAddr>) {
        self.owned.send_if_modified(|owned| {
            let is_new = *owned != vips;
            *owned = vips;
            is_new
        });
    }

    /// The next claim.
    pub(crate) async fn next(&mut self) -> Claim {
        match self.inbox.recv().await {
            Some(claim) => claim,
            // We hold a sender ourselves, so it never ends.
            None => std::future::pending().await,
        }
    }

    /// One more, if there is one already.
    pub(crate) fn another(&mut self) -> Option<Claim> {
        self.inbox.try_recv().ok()
    }
}

fn arp_socket(ifindex: u32) -> io::Result<Socket> {
    // Without a protocol it receives nothing until it is bound, with its filter in place.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.attach_filter(&ARP_REPLIES)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&packet_socket::address(ifindex, ARP))?;
    Ok(socket)
}

fn advertisement_socket(interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.attach_filter(&ADVERTISEMENTS)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn hear(
    socket: Socket,
    read: Reader,
    uplink: Uplink,
    owned: watch::Receiver<BTreeSet<IpAddr>>,
    sender: mpsc::Sender<Claim>,
) {
    // SAFETY: the `Socket` owns a valid descriptor, which nothing replaces or closes while it is in the `AsyncFd`.
    let socket = match unsafe { AsyncFd::register(socket) } {
        Ok(socket) => socket,
        Err(error) => return warn!(%error, "cannot wait for others that answer for our VIPs"),
    };
    let mut buffer = [0; 256];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        for _ in 0..BATCH {
            let len = match ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
                Ok(Ok(len)) => len,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(Err(error)) => {
                    // The link is down: said once, then there is silence until it is up again.
                    debug!(link = uplink.ifindex, %error, "listening for others that answer for our VIPs");
                    break;
                }
                Err(_would_block) => break,
            };
            let Some((vip, mac)) = read(&buffer[..len]) else { continue };
            if mac != uplink.mac && owned.borrow().contains(&vip) {
                // A full channel has enough to tell.
                let _ = sender.try_send(Claim { vip, mac, link: uplink.ifindex });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
