//! IPv4 headers (RFC 791).

use xdpchain_abi::Ipv4;

use crate::{
    bytes::{put, put_u16, take, u16_at},
    checksum::{self, Sum},
};

/// Octets of the header without options.
pub const LEN: usize = 20;

/// A header as it stands in the packet, without its options.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; LEN]);

impl View<'_> {
    /// 4, unless the packet lies.
    #[inline(always)]
    pub fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Octets of the header with options; under [`LEN`] in a malformed packet, never over 60.
    #[inline(always)]
    pub fn header_len(self) -> usize {
        (self.0[0] & 0x0f) as usize * 4
    }

    /// The TOS octet: DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168).
    #[inline(always)]
    pub fn tos(self) -> u8 {
        self.0[1]
    }

    /// Octets of the packet, this header included.
    #[inline(always)]
    pub fn total_len(self) -> u16 {
        u16_at(self.0, 2)
    }

    /// Identification, meaningful for fragments (RFC 6864).
    #[inline(always)]
    pub fn id(self) -> u16 {
        u16_at(self.0, 4)
    }

    /// The DF bit.
    #[inline(always)]
    pub fn dont_fragment(self) -> bool {
        self.0[6] & 0x40 != 0
    }

    /// The MF bit.
    #[inline(always)]
    pub fn more_fragments(self) -> bool {
        self.0[6] & 0x20 != 0
    }

    /// Fragment offset in units of 8 octets.
    #[inline(always)]
    pub fn fragment_offset(self) -> u16 {
        u16_at(self.0, 6) & 0x1fff
    }

    /// Whether this is a part of a packet, the first or a later one.
    #[inline(always)]
    pub fn is_fragment(self) -> bool {
        u16_at(self.0, 6) & 0x3fff != 0
    }

    /// Time to live, in hops.
    #[inline(always)]
    pub fn ttl(self) -> u8 {
        self.0[8]
    }

    /// The protocol of what follows, one of [`crate::protocol`].
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        self.0[9]
    }

    /// The header checksum as it stands in the packet.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        u16_at(self.0, 10)
    }

    /// Where the packet comes from.
    #[inline(always)]
    pub fn source(self) -> Ipv4 {
        Ipv4 { octets: take(self.0, 12) }
    }

    /// Where the packet goes.
    #[inline(always)]
    pub fn destination(self) -> Ipv4 {
        Ipv4 { octets: take(self.0, 16) }
    }

    /// Whether the header checksum is right; asks only for headers without options.
    #[inline(always)]
    pub fn checksum_is_right(self) -> bool {
        Sum::new().array(self.0).folded() == 0xffff
    }
}

/// A header's contents, without options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets of the packet, this header included.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// The DF bit.
    pub dont_fragment: bool,
    /// The MF bit.
    pub more_fragments: bool,
    /// Fragment offset in units of 8 octets, 13 bits.
    pub fragment_offset: u16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// The protocol of what follows.
    pub protocol: u8,
    /// Where the packet comes from.
    pub source: Ipv4,
    /// Where the packet goes.
    pub destination: Ipv4,
}

impl Repr {
    /// Reads a header. `None` when its version is not 4 or its length under [`LEN`]; options are not looked at.
    #[inline(always)]
    pub fn parse(octets: &[u8; LEN]) -> Option<Self> {
        let view = View(octets);
        if view.version() != 4 || view.header_len() < LEN {
            return None;
        }
        Some(Self {
            tos: view.tos(),
            total_len: view.total_len(),
            id: view.id(),
            dont_fragment: view.dont_fragment(),
            more_fragments: view.more_fragments(),
            fragment_offset: view.fragment_offset(),
            ttl: view.ttl(),
            protocol: view.protocol(),
            source: view.source(),
            destination: view.destination(),
        })
    }

    /// Writes the header, its checksum included.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; LEN]) {
        let flags = (self.dont_fragment as u16) << 14 | (self.more_fragments as u16) << 13;
        let ([l, en], [i, d], [f, o]) = (
            self.total_len.to_be_bytes(),
            self.id.to_be_bytes(),
            (flags | (self.fragment_offset & 0x1fff)).to_be_bytes(),
        );
        // Summed from the words that are to be written: in a program, octets just written would be loaded from the packet again.
        let (first, second) = ([0x45, self.tos, l, en], [i, d, f, o]);
        let [c, s] = Sum::new()
            .array(&first)
            .array(&second)
            .array(&[self.ttl, self.protocol])
            .array(&self.source.octets)
            .array(&self.destination.octets)
            .checksum()
            .to_be_bytes();
        put(octets, 0, first);
        put(octets, 4, second);
        put(octets, 8, [self.ttl, self.protocol, c, s]);
        put(octets, 12, self.source.octets);
        put(octets, 16, self.destination.octets);
    }
}

/// Changes the TOS octet and corrects the checksum, also one of a header with options.
#[inline(always)]
pub fn set_tos(octets: &mut [u8; LEN], tos: u8) {
    let old = u16_at(octets, 0);
    let new = old & 0xff00 | tos as u16;
    octets[1] = tos;
    let checksum = checksum::update(u16_at(octets, 10), old, new);
    put_u16(octets, 10, checksum);
}

/// Takes one hop off the TTL and corrects the checksum, also one of a header with options. The TTL must not be 0.
#[inline(always)]
pub fn decrement_ttl(octets: &mut [u8; LEN]) {
    octets[8] = octets[8].wrapping_sub(1);
    let checksum = checksum::update_by_a_hop(u16_at(octets, 10));
    put_u16(octets, 10, checksum);
}
