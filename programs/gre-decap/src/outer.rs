//! The headers around GRE: Ethernet, up to two tags, IPv4 or IPv6.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{GreKey, Ipv4, Ipv6, Peer6, Reason};
use xdpchain_kit::Packet;
use xdpchain_wire::{Octets as _, ethernet::ethertype, gre, icmp, ipv4, ipv6, protocol};

use crate::tunnels;

/// IPv6 addresses, ours and those of far ends, with the aliases that tunnels call them.
#[btf_map(name = "addresses6")]
static ADDRESSES6: HashMap<Ipv6, Peer6, 4096> = HashMap::new();

/// What a far end is called that has no alias: an address that no tunnel has.
const UNKNOWN: Ipv4 = Ipv4 { octets: [0xff; 4] };

/// A packet with GRE.
pub(crate) struct Outer {
    /// Offset of the IP header from the start of the frame.
    pub(crate) network: usize,
    /// Offset of the GRE header.
    pub(crate) header: usize,
    /// Where the packet ends.
    pub(crate) end: usize,
    /// TOS octet or traffic class.
    pub(crate) tos: u8,
    /// Its addresses, or their aliases.
    pub(crate) key: GreKey,
}

impl Outer {
    /// The outer headers of `packet`; `Ok(None)` for a packet without GRE, and for one over IPv6 to no address of ours.
    ///
    /// # Errors
    /// Why the packet is dropped, or for the kernel.
    #[inline(always)]
    pub(crate) fn parse(packet: &Packet) -> Result<Option<Self>, Reason> {
        let link = packet.link().ok_or(Reason::Truncated)?;
        if link.ethertype == ethertype::IPV6 {
            return Self::parse_ipv6(packet, link.network);
        }
        if link.ethertype != ethertype::IPV4 {
            return Ok(None);
        }
        let outer = ipv4::View(packet.at(link.network).ok_or(Reason::Truncated)?);
        // A header that contradicts itself is for the kernel to count.
        if outer.version() != 4 || outer.header_len() < ipv4::LEN {
            return Ok(None);
        }
        if outer.protocol() != protocol::GRE {
            return if is_about_ours(packet, outer, link.network) {
                Err(Reason::OuterPmtu)
            } else {
                Ok(None)
            };
        }
        if outer.is_fragment() {
            return Err(Reason::Fragment);
        }
        let outer = Self {
            network: link.network,
            header: packet.forget::<0x7f>(link.network + outer.header_len()),
            end: link.network + outer.total_len() as usize,
            tos: outer.tos(),
            key: GreKey { remote: outer.source(), local: outer.destination() },
        };
        outer.whole(packet)
    }

    /// The headers of the IPv6 packet that begins at `network`.
    #[inline(always)]
    fn parse_ipv6(packet: &Packet, network: usize) -> Result<Option<Self>, Reason> {
        let view = ipv6::View(packet.at(network).ok_or(Reason::Truncated)?);
        if view.version() != 6 {
            return Ok(None);
        }
        let header = packet.forget::<0x7f>(network + ipv6::LEN);
        match view.next_header() {
            protocol::GRE => {}
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS => {
                let ours = alias(packet, network + 24).is_some();
                return if ours { Err(Reason::Ipv6Extension) } else { Ok(None) };
            }
            protocol::ICMPV6 if is_about_ours6(packet, network, header) => return Err(Reason::OuterPmtu),
            _ => return Ok(None),
        }
        let (tos, end) = (view.traffic_class(), network + ipv6::LEN + view.payload_len() as usize);
        let Some(local) = alias(packet, network + 24) else { return Ok(None) };
        let remote = alias(packet, network + 8).unwrap_or(UNKNOWN);
        Self { network, header, end, tos, key: GreKey { remote, local } }.whole(packet)
    }

    /// The headers of a packet that is there as far as it says.
    #[inline(always)]
    fn whole(self, packet: &Packet) -> Result<Option<Self>, Reason> {
        let whole = self.end <= packet.len() && self.header + gre::LEN <= self.end;
        if whole { Ok(Some(self)) } else { Err(Reason::Truncated) }
    }

    /// Whether the inner IPv6 packet at `inner` is for one of the outer addresses.
    #[inline(always)]
    pub(crate) fn is_loop6(&self, packet: &Packet, inner: usize) -> bool {
        // Over IPv4 what stands there is something else.
        packet.at::<1>(self.network).is_some_and(|first| first[0] & 0x20 != 0)
            && (packet.same_address6(inner + 24, self.network + 8)
                || packet.same_address6(inner + 24, self.network + 24))
    }
}

/// The alias of the IPv6 address at `offset`.
#[inline(always)]
fn alias(packet: &Packet, offset: usize) -> Option<Ipv4> {
    // SAFETY: the value is copied at once.
    unsafe { ADDRESSES6.get(packet.address6(offset)?) }.map(|found| found.alias)
}

/// Whether the packet, whose header at `network` is `outer`, says that a packet of one of our tunnels was too big (RFC 1191).
#[inline(always)]
fn is_about_ours(packet: &Packet, outer: ipv4::View<'_>, network: usize) -> bool {
    if outer.protocol() != protocol::ICMP || outer.is_fragment() {
        return false;
    }
    let local = outer.destination();
    let header = packet.forget::<0x7f>(network + outer.header_len());
    let Some(message) = packet.at(header) else { return false };
    if !icmp::View(message).is_fragmentation_needed() {
        return false;
    }
    let Some(about) = packet.at(header + icmp::LEN) else { return false };
    let about = ipv4::View(about);
    let key = GreKey { remote: about.destination(), local: about.source() };
    about.version() == 4
        && about.protocol() == protocol::GRE
        && key.local == local
        && tunnels::find(&key).is_some()
}

/// As [`is_about_ours`], of ICMPv6 at `message` (RFC 8201).
#[inline(always)]
fn is_about_ours6(packet: &Packet, network: usize, message: usize) -> bool {
    let Some(header) = packet.at(message) else { return false };
    if icmp::View(header).message_type() != icmp::v6::TOO_BIG {
        return false;
    }
    let quote = packet.forget::<0xff>(message + icmp::LEN);
    let Some(about) = packet.at(quote) else { return false };
    let about = ipv6::View(about);
    if about.version() != 6
        || about.next_header() != protocol::GRE
        || !packet.same_address6(quote + 8, network + 24)
    {
        return false;
    }
    let (Some(local), Some(remote)) = (alias(packet, network + 24), alias(packet, quote + 24)) else {
        return false;
    };
    tunnels::find(&GreKey { remote, local }).is_some()
}
