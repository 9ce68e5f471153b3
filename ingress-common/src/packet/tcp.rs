//! TCP header (RFC 9293).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::abi::{Be16, Be32};

/// IANA protocol number of TCP.
pub const PROTO: u8 = 6;

/// TCP header without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct TcpHdr {
    /// Source port.
    pub src: Be16,
    /// Destination port.
    pub dst: Be16,
    /// Sequence number.
    pub seq: Be32,
    /// Acknowledgement number.
    pub ack: Be32,
    /// Header length in 32-bit words, in the upper four bits.
    pub offset: u8,
    /// See [`TcpFlags`].
    pub flags: TcpFlags,
    /// Window.
    pub window: Be16,
    /// Checksum.
    pub checksum: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

/// The beginning of a TCP header: what the quote in an ICMP error has of it at least.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct Ports {
    /// Source port.
    pub src: Be16,
    /// Destination port.
    pub dst: Be16,
}

impl TcpHdr {
    /// Header length in bytes with options; less than 20 in a broken packet.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.offset >> 4) * 4
    }
}

/// The control bits of a segment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Acknowledgement field is valid.
    pub const ACK: u8 = 0x10;

    const CONTROL: u8 = Self::FIN | Self::SYN | Self::RST | Self::ACK;

    /// Whether this bit is set.
    #[inline(always)]
    pub const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// What no TCP sends (RFC 9293): no control bit at all, or SYN together with FIN or RST. Scanners do.
    #[inline(always)]
    pub const fn is_impossible(self) -> bool {
        let control = self.0 & Self::CONTROL;
        control == 0 || control & Self::SYN != 0 && control & (Self::FIN | Self::RST) != 0
    }

    /// A client wants a new connection: SYN, and none of ACK, RST, FIN.
    #[inline(always)]
    pub const fn is_new_flow(self) -> bool {
        self.0 & Self::CONTROL == Self::SYN
    }

    /// May be the last packet of a handshake: ACK, and none of SYN, RST, FIN.
    #[inline(always)]
    pub const fn is_plain_ack(self) -> bool {
        self.0 & Self::CONTROL == Self::ACK
    }
}
