//! Ethernet II headers and the tags of IEEE 802.1Q and 802.1ad.

use crate::{
    Octets,
    bytes::{put, put_u16, take, u16_at},
};

/// Octets of the header without tags.
pub const LEN: usize = 14;
/// Octets that one tag adds.
pub const TAG_LEN: usize = 4;
/// Tags that [`Link::parse`] looks under.
pub const MAX_TAGS: usize = 2;

/// EtherTypes.
pub mod ethertype {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
    /// A customer tag, IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// Internet Protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// A service tag, IEEE 802.1ad.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// A link-layer address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 6]);

impl Address {
    /// Whether the group bit is set: multicast or broadcast.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

/// A header as it stands in the packet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; LEN]);

impl View<'_> {
    /// Where the frame goes.
    #[inline(always)]
    pub fn destination(self) -> Address {
        Address(take(self.0, 0))
    }

    /// Where the frame comes from.
    #[inline(always)]
    pub fn source(self) -> Address {
        Address(take(self.0, 6))
    }

    /// The type of what follows, a tag's when the frame is tagged.
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        u16_at(self.0, 12)
    }
}

/// A header's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// Where the frame goes.
    pub destination: Address,
    /// Where the frame comes from.
    pub source: Address,
    /// The type of what follows.
    pub ethertype: u16,
}

impl Repr {
    /// Reads a header.
    #[inline(always)]
    pub fn parse(octets: &[u8; LEN]) -> Self {
        let view = View(octets);
        Self { destination: view.destination(), source: view.source(), ethertype: view.ethertype() }
    }

    /// Writes the header.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; LEN]) {
        put(octets, 0, self.destination.0);
        put(octets, 6, self.source.0);
        put_u16(octets, 12, self.ethertype);
    }
}

/// A tag: the four octets after a [`ethertype::VLAN`] or [`ethertype::SERVICE_VLAN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Priority code point, 0 to 7.
    pub priority: u8,
    /// Drop eligible indicator.
    pub drop_eligible: bool,
    /// VLAN identifier, 0 to 4095.
    pub vlan: u16,
    /// The type of what follows the tag.
    pub ethertype: u16,
}

impl Tag {
    /// Reads a tag.
    #[inline(always)]
    pub fn parse(octets: &[u8; TAG_LEN]) -> Self {
        let control = u16_at(octets, 0);
        Self {
            priority: (control >> 13) as u8,
            drop_eligible: control & 0x1000 != 0,
            vlan: control & 0x0fff,
            ethertype: u16_at(octets, 2),
        }
    }

    /// Writes the tag. Bits that do not fit their field are left out.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; TAG_LEN]) {
        let control = (self.priority as u16) << 13 | (self.drop_eligible as u16) << 12 | (self.vlan & 0x0fff);
        put_u16(octets, 0, control);
        put_u16(octets, 2, self.ethertype);
    }
}

/// Where the network layer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its EtherType; a tag's when there are more than [`MAX_TAGS`] of them.
    pub ethertype: u16,
    /// Its offset from the start of the frame.
    pub network: usize,
}

impl Link {
    /// Looks under up to [`MAX_TAGS`] tags. `None` when the frame ends before its headers do.
    #[inline(always)]
    pub fn parse<O: Octets + ?Sized>(packet: &O) -> Option<Self> {
        let mut link = Self { ethertype: View(packet.at(0)?).ethertype(), network: LEN };
        let mut tags = 0;
        while tags < MAX_TAGS && matches!(link.ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN) {
            link.ethertype = u16_at::<TAG_LEN>(packet.at(link.network)?, 2);
            link.network += TAG_LEN;
            tags += 1;
        }
        Some(link)
    }
}
