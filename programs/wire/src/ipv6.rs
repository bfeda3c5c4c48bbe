//! IPv6 headers and the walk over extension headers (RFC 8200).

use xdpchain_abi::Ipv6;

use crate::{
    Octets,
    bytes::{put, put_u16, put_u32, take, u16_at, u32_at},
    protocol,
};

/// Octets of the header without extension headers.
pub const LEN: usize = 40;
/// Octets of the longest packet that every link takes (RFC 8200, 5).
pub const MIN_MTU: usize = 1280;
/// Extension headers that [`UpperLayer::parse`] walks at most.
pub const MAX_EXTENSIONS: usize = 6;

/// A header as it stands in the packet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; LEN]);

impl View<'_> {
    /// 6, unless the packet lies.
    #[inline(always)]
    pub fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// The traffic class: DSCP in the upper six bits, ECN in the lower two.
    #[inline(always)]
    pub fn traffic_class(self) -> u8 {
        (u16_at(self.0, 0) >> 4) as u8
    }

    /// The flow label, 20 bits.
    #[inline(always)]
    pub fn flow_label(self) -> u32 {
        u32_at(self.0, 0) & 0x000f_ffff
    }

    /// Octets after this header, extension headers included.
    #[inline(always)]
    pub fn payload_len(self) -> u16 {
        u16_at(self.0, 4)
    }

    /// The protocol of what follows this header, one of [`crate::protocol`].
    #[inline(always)]
    pub fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hops left.
    #[inline(always)]
    pub fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Where the packet comes from.
    #[inline(always)]
    pub fn source(self) -> Ipv6 {
        Ipv6 { octets: take(self.0, 8) }
    }

    /// Where the packet goes.
    #[inline(always)]
    pub fn destination(self) -> Ipv6 {
        Ipv6 { octets: take(self.0, 24) }
    }
}

/// A header's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The flow label, 20 bits.
    pub flow_label: u32,
    /// Octets after this header.
    pub payload_len: u16,
    /// The protocol of what follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Where the packet comes from.
    pub source: Ipv6,
    /// Where the packet goes.
    pub destination: Ipv6,
}

impl Repr {
    /// Reads a header. `None` when its version is not 6.
    #[inline(always)]
    pub fn parse(octets: &[u8; LEN]) -> Option<Self> {
        let view = View(octets);
        if view.version() != 6 {
            return None;
        }
        Some(Self {
            traffic_class: view.traffic_class(),
            flow_label: view.flow_label(),
            payload_len: view.payload_len(),
            next_header: view.next_header(),
            hop_limit: view.hop_limit(),
            source: view.source(),
            destination: view.destination(),
        })
    }

    /// Writes the header.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; LEN]) {
        put_u32(octets, 0, 6 << 28 | (self.traffic_class as u32) << 20 | (self.flow_label & 0x000f_ffff));
        put_u16(octets, 4, self.payload_len);
        octets[6] = self.next_header;
        octets[7] = self.hop_limit;
        put(octets, 8, self.source.octets);
        put(octets, 24, self.destination.octets);
    }
}

/// Changes the traffic class.
#[inline(always)]
pub fn set_traffic_class(octets: &mut [u8; LEN], class: u8) {
    octets[0] = octets[0] & 0xf0 | class >> 4;
    octets[1] = octets[1] & 0x0f | class << 4;
}

/// Takes one hop off the hop limit, which must not be 0.
#[inline(always)]
pub fn decrement_hop_limit(octets: &mut [u8; LEN]) {
    octets[7] = octets[7].wrapping_sub(1);
}

/// Where the upper layer of an IPv6 packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// Its protocol, of a later fragment too.
    pub protocol: u8,
    /// Its offset from the start of the frame.
    pub offset: usize,
    /// Whether the packet is a part of one; then `offset` means something only for the first part.
    pub fragment: bool,
}

impl UpperLayer {
    /// Walks the extension headers from `offset`, where the first one of type `next_header` begins. `None` when the
    /// packet ends within them, when there are more than [`MAX_EXTENSIONS`], and for a later fragment of which the first
    /// one begins with an extension header: what is behind is not known then, and an access list must not take it for
    /// nothing.
    #[inline(always)]
    pub fn parse<O: Octets + ?Sized>(packet: &O, next_header: u8, offset: usize) -> Option<Self> {
        let mut upper = Self { protocol: next_header, offset, fragment: false };
        let mut walked = 0;
        while walked < MAX_EXTENSIONS {
            let len = match upper.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    let header: &[u8; 2] = packet.at(upper.offset)?;
                    upper.protocol = header[0];
                    (header[1] as usize + 1) * 8
                }
                protocol::AUTHENTICATION => {
                    // RFC 4302, 2.2: the one length in units of 4 octets.
                    let header: &[u8; 2] = packet.at(upper.offset)?;
                    upper.protocol = header[0];
                    (header[1] as usize + 2) * 4
                }
                protocol::FRAGMENT => {
                    let header: &[u8; 8] = packet.at(upper.offset)?;
                    upper.protocol = header[0];
                    // An atomic fragment (offset 0, no more to come) is a whole packet (RFC 6946).
                    let place = u16_at(header, 2);
                    if place & 0xfff9 != 0 {
                        upper.fragment = true;
                        if place & 0xfff8 != 0 {
                            break;
                        }
                    }
                    8
                }
                _ => return Some(upper),
            };
            upper.offset += len;
            walked += 1;
        }
        let goes_on = matches!(
            upper.protocol,
            protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::FRAGMENT
                | protocol::AUTHENTICATION
                | protocol::DESTINATION_OPTIONS
        );
        (!goes_on).then_some(upper)
    }
}
