//! The IP packet inside a tunnel.

use xdpchain_abi::{Ipv4, Reason};
use xdpchain_wire::{Octets, OctetsMut, ethernet::ethertype, ipv4, ipv6};

/// An IP packet inside a tunnel, found whole: version, header length and total length agree with the octets there are.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Its offset from the start of the outer packet.
    pub offset: usize,
    /// [`ethertype::IPV4`] or [`ethertype::IPV6`].
    pub ethertype: u16,
    /// Octets of the packet, its header included.
    pub len: usize,
    /// TOS or traffic class octet.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether the destination is a group: multicast of either family, or the limited broadcast address.
    pub to_group: bool,
}

impl Inner {
    /// The packet that begins at `offset` and ends at or before `end`, both from the start of `packet`.
    ///
    /// # Errors
    /// [`Reason::InnerMalformed`] when it is neither IPv4 nor IPv6, its header is cut short, or it says it is longer.
    #[inline(always)]
    pub fn parse<O: Octets + ?Sized>(packet: &O, offset: usize, end: usize) -> Result<Self, Reason> {
        Self::find(packet, offset, end).ok_or(Reason::InnerMalformed)
    }

    #[inline(always)]
    fn find<O: Octets + ?Sized>(packet: &O, offset: usize, end: usize) -> Option<Self> {
        // No header of either version is shorter.
        let first: &[u8; ipv4::LEN] = packet.at(offset)?;
        let inner = match first[0] >> 4 {
            4 => {
                let view = ipv4::View(first);
                let (header, len) = (view.header_len(), view.total_len() as usize);
                if header < ipv4::LEN || len < header {
                    return None;
                }
                Self {
                    offset,
                    ethertype: ethertype::IPV4,
                    len,
                    tos: view.tos(),
                    ttl: view.ttl(),
                    to_group: is_group(view.destination()),
                }
            }
            6 => {
                let view = ipv6::View(packet.at(offset)?);
                Self {
                    offset,
                    ethertype: ethertype::IPV6,
                    len: ipv6::LEN + view.payload_len() as usize,
                    tos: view.traffic_class(),
                    ttl: view.hop_limit(),
                    to_group: view.destination().octets[0] == 0xff,
                }
            }
            _ => return None,
        };
        (offset + inner.len <= end).then_some(inner)
    }

    /// Whether routers may fragment the packet: IPv4 without DF.
    #[inline(always)]
    pub fn may_be_fragmented<O: Octets + ?Sized>(&self, packet: &O) -> bool {
        self.ethertype == ethertype::IPV4
            && packet.at(self.offset).is_some_and(|header| !ipv4::View(header).dont_fragment())
    }
}

/// Takes one hop off the IPv4 or IPv6 packet that begins at `offset`. `None` when it does not lie within the frame.
///
/// Its version is read again, although whoever parsed the packet knows it: as long as the program asks for what
/// differs by version, the verifier follows the versions apart.
#[inline(always)]
#[must_use]
pub fn decrement_ttl<O: OctetsMut + ?Sized>(packet: &mut O, offset: usize) -> Option<()> {
    if packet.at::<1>(offset)?[0] & 0x20 == 0 {
        ipv4::decrement_ttl(packet.at_mut(offset)?);
    } else {
        ipv6::decrement_hop_limit(packet.at_mut(offset)?);
    }
    Some(())
}

/// Whether `address` is multicast or the limited broadcast address.
#[inline(always)]
fn is_group(address: Ipv4) -> bool {
    let address = u32::from_be_bytes(address.octets);
    address >> 28 == 0xe || address == u32::MAX
}
