//! ICMP headers (RFC 792). ICMPv6 (RFC 4443) has the same eight octets, other types, and a
//! pseudo-header in its checksum; see [`v6`].

use crate::bytes::{put, put_u16, take, u16_at};

/// Octets of the header.
pub const LEN: usize = 8;

/// Message types of ICMP for IPv4.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: fragmentation needed and DF set; the last 16 bits of `rest` are the MTU (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;

    /// Whether a message of this type asks or answers something, and so is none about another packet (RFC 1122, 3.2.2).
    #[inline(always)]
    pub const fn is_query(kind: u8) -> bool {
        matches!(kind, ECHO_REPLY | ECHO_REQUEST | 9 | 10 | 13..=18)
    }
}

/// Message types of ICMPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big; `rest` is the MTU.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// A header as it stands in the packet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; LEN]);

impl View<'_> {
    /// Message type, of [`v4`] or [`v6`].
    #[inline(always)]
    pub fn message_type(self) -> u8 {
        self.0[0]
    }

    /// Code within the type.
    #[inline(always)]
    pub fn code(self) -> u8 {
        self.0[1]
    }

    /// The checksum as it stands in the packet.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        u16_at(self.0, 2)
    }

    /// Whether it is ICMP's fragmentation needed (RFC 1191).
    #[inline(always)]
    pub fn is_fragmentation_needed(self) -> bool {
        self.message_type() == v4::UNREACHABLE && self.code() == v4::FRAGMENTATION_NEEDED
    }

    /// The four octets whose meaning the type decides.
    #[inline(always)]
    pub fn rest(self) -> [u8; 4] {
        take(self.0, 4)
    }
}

/// A header's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// Message type, of [`v4`] or [`v6`].
    pub message_type: u8,
    /// Code within the type.
    pub code: u8,
    /// The checksum.
    pub checksum: u16,
    /// The four octets whose meaning the type decides.
    pub rest: [u8; 4],
}

impl Repr {
    /// Reads a header.
    #[inline(always)]
    pub fn parse(octets: &[u8; LEN]) -> Self {
        let view = View(octets);
        Self {
            message_type: view.message_type(),
            code: view.code(),
            checksum: view.checksum(),
            rest: view.rest(),
        }
    }

    /// Writes the header.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; LEN]) {
        octets[0] = self.message_type;
        octets[1] = self.code;
        put_u16(octets, 2, self.checksum);
        put(octets, 4, self.rest);
    }
}
