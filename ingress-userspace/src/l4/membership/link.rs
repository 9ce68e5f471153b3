//! The second road of the datagrams: straight on the link, in Ethernet frames. Whatever swallows UDP between the nodes (a
//! firewall's rule, a full table of connections) does not touch what XDP hands over on the link. So a peer to which packets
//! can be handed is heard on the very road that they take, and nodes hold each other for dead only where they could
//! not forward to each other either. Driven by `thread`.
//!
//! Frames go to a peer only while nothing of it comes by UDP, or while it says the same of us; else the link carries none.
//! After the Ethernet header: `deaf(1) length(2, big-endian) datagram`; drivers pad short frames, hence the length.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ingress_common::abi::{Mac, Vlan};
use tracing::{debug, info, warn};

use super::wire::MAX_DATAGRAM;
use crate::l4::announce::tagged;
use crate::l4::packet_socket::PacketSocket;

/// IEEE Std 802, Local Experimental Ethertype 1.
const ETHERTYPE: u16 = 0x88b5;
/// Ethernet header.
const ETHERNET: usize = 14;
const HEADER: usize = ETHERNET + 3;
/// Longest frame that is of interest.
pub(super) const MAX_FRAME: usize = HEADER + MAX_DATAGRAM;
/// Without anything by UDP for so many intervals the link is tried: early enough for an answer before a peer is dead.
const DEAF_AFTER: u32 = 3;
/// A peer that hears nothing by UDP is answered on the link for this long.
const ANSWER_FOR: Duration = Duration::from_secs(1);
/// The operator hears of a peer that is heard on the link alone for this long.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// How frames get to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Road {
    /// Index of the interface.
    pub(crate) link: u32,
    /// Tags of the frames there.
    pub(crate) vlan: Vlan,
    /// Our hardware address there.
    pub(crate) from: Mac,
    /// The peer's.
    pub(crate) to: Mac,
}

/// The head of a frame that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    to: Mac,
    from: Mac,
    /// The sender hears nothing of us by UDP.
    is_deaf: bool,
}

/// Reads a frame; `None`: it is none of ours.
fn read(frame: &[u8]) -> Option<(Head, &[u8])> {
    let (head, rest) = frame.split_at_checked(HEADER)?;
    let mac = |at: usize| -> Option<Mac> { Some(Mac::new(head.get(at..at + 6)?.try_into().ok()?)) };
    let len = usize::from(u16::from_be_bytes([head[ETHERNET + 1], head[ETHERNET + 2]]));
    let is_ours = head[12..ETHERNET] == ETHERTYPE.to_be_bytes();
    let head = Head { to: mac(0)?, from: mac(6)?, is_deaf: head[ETHERNET] != 0 };
    is_ours.then_some((head, rest.get(..len)?))
}

/// A frame, its tags included; `None`: the datagram is too long.
fn write(road: &Road, is_deaf: bool, datagram: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(datagram.len()).ok()?;
    let mut frame = Vec::with_capacity(HEADER + 8 + datagram.len());
    frame.extend_from_slice(&road.to.octets());
    frame.extend_from_slice(&road.from.octets());
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    frame.push(is_deaf.into());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(datagram);
    Some(tagged(frame, road.vlan))
}

/// By which road a peer is heard.
#[derive(Debug)]
struct Heard {
    /// When it was declared, before anything came.
    by_udp: Instant,
    by_link: Option<Instant>,
    /// When it last said that it hears nothing of us by UDP.
    asked: Option<Instant>,
    /// It is heard on the link alone, and the operator knows.
    is_told: bool,
}

/// Roads to all peers on the link.
#[derive(Debug)]
pub(super) struct Links {
    socket: Option<PacketSocket>,
    roads: BTreeMap<String, Road>,
    heard: BTreeMap<String, Heard>,
    deaf_after: Duration,
    port: u16,
}

impl Links {
    /// `interval`: between two heartbeats; `port`: of the UDP road.
    pub(super) fn new(interval: Duration, port: u16) -> Self {
        let (roads, heard) = (BTreeMap::new(), BTreeMap::new());
        Self { socket: None, roads, heard, deaf_after: interval * DEAF_AFTER, port }
    }

    /// Only these peers count.
    pub(super) fn declare<'a>(&mut self, now: Instant, peers: impl IntoIterator<Item = &'a String>) {
        let mut old = std::mem::take(&mut self.heard);
        for name in peers {
            let fresh = || Heard { by_udp: now, by_link: None, asked: None, is_told: false };
            self.heard.insert(name.clone(), old.remove(name).unwrap_or_else(fresh));
        }
    }

    /// Where the peers are now. Nothing is opened before there is one on the link.
    pub(super) fn set_roads(&mut self, roads: BTreeMap<String, Road>) {
        if self.socket.is_none() && !roads.is_empty() {
            match PacketSocket::of_type(ETHERTYPE) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => warn!(%error, "heartbeats go by UDP only, none on the link"),
            }
        }
        self.roads = roads;
    }

    /// To wait for.
    pub(super) fn socket(&self) -> Option<&impl AsFd> {
        self.socket.as_ref()
    }

    /// The next frame that waits; `Ok(None)`: not one of ours.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<(Head, &'b [u8])>> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        let len = socket.receive(buffer)?;
        Ok(read(&buffer[..len]))
    }

    /// A datagram of `peer` came by UDP.
    pub(super) fn heard_by_udp(&mut self, now: Instant, peer: &str) {
        if let Some(heard) = self.heard.get_mut(peer) {
            heard.by_udp = now;
        }
    }

    /// A datagram of `peer` came in a frame. `None`: the frame is not from its place. `Some(true)`: it waits for answers on the
    /// link, and got none so far.
    pub(super) fn heard_by_link(&mut self, now: Instant, peer: &str, head: Head) -> Option<bool> {
        self.roads.get(peer).filter(|road| road.from == head.to && road.to == head.from)?;
        let heard = self.heard.get_mut(peer)?;
        heard.by_link = Some(now);
        let was_answered = is_within(heard.asked, now, ANSWER_FOR);
        if head.is_deaf {
            heard.asked = Some(now);
        }
        Some(head.is_deaf && !was_answered)
    }

    /// Sends `datagram` to `peer` on the link too, if it is not known to hear us by UDP, or we not to hear it.
    pub(super) fn send(&self, now: Instant, peer: &str, datagram: &[u8]) {
        let Some(heard) = self.heard.get(peer) else { return };
        let is_deaf = now.saturating_duration_since(heard.by_udp) >= self.deaf_after;
        if !is_deaf && !is_within(heard.asked, now, ANSWER_FOR) {
            return;
        }
        let Some((socket, road)) = self.socket.as_ref().zip(self.roads.get(peer)) else { return };
        if let Some(frame) = write(road, is_deaf, datagram)
            && let Err(error) = socket.send(road.link, &frame)
        {
            debug!(peer, link = road.link, %error, "frame not sent");
        }
    }

    /// How many peers are heard on the link alone. Says so once of each.
    pub(super) fn alone(&mut self, now: Instant) -> usize {
        let port = self.port;
        let mut alone = 0;
        for (name, heard) in &mut self.heard {
            let lacks_udp = now.saturating_duration_since(heard.by_udp) >= TELL_AFTER;
            let is_alone = lacks_udp && is_within(heard.by_link, now, ANSWER_FOR);
            if is_alone && !heard.is_told {
                warn!(
                    node = name,
                    port,
                    "this node is heard on the link only, nothing of it comes by UDP: let that port in from the other nodes"
                );
            }
            if heard.is_told && !lacks_udp {
                info!(node = name, port, "this node is heard by UDP again");
            }
            heard.is_told = is_alone || heard.is_told && lacks_udp;
            alone += usize::from(is_alone);
        }
        alone
    }
}

fn is_within(at: Option<Instant>, now: Instant, time: Duration) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < time)
}

#[cfg(test)]
mod tests;
