//! The headers around a GTP-U message: Ethernet, up to two tags, IPv4 or IPv6, UDP.

use xdpchain_abi::{Be32, GTPU_PORT, Ipv4, Reason, peer_flags};
use xdpchain_kit::{Packet, udp_sum};
use xdpchain_wire::{Octets as _, ethernet::ethertype, gtpu, icmp, ipv4, ipv6, protocol, udp};

use crate::endpoints::{self, endpoint6, is_ours, peer6};

/// A UDP datagram to the GTP-U port of an address of ours.
pub(crate) struct Outer {
    /// Offset of the IP header from the start of the frame.
    pub(crate) network: usize,
    /// Offset of the UDP header.
    pub(crate) transport: usize,
    /// Octets of the IP packet as its header says; not compared with the frame yet.
    total_len: usize,
    /// TOS octet or traffic class.
    pub(crate) tos: u8,
    /// Outer source, the peer, or the alias of its IPv6 address.
    pub(crate) source: Ipv4,
    /// Outer destination, or the alias of the IPv6 one.
    pub(crate) destination: Ipv4,
}

/// A GTP-U message that lies within its datagram.
pub(crate) struct Message {
    /// One of [`gtpu::message`].
    pub(crate) kind: u8,
    /// Tunnel endpoint identifier.
    pub(crate) teid: Be32,
    /// Offset of its header from the start of the packet.
    pub(crate) offset: usize,
    /// Whether the header has more than its mandatory part.
    pub(crate) has_optional: bool,
    /// Where it ends by its own length, from the start of the packet.
    pub(crate) end: usize,
}

impl Outer {
    /// The datagram in `packet`; `Ok(None)` for every packet that is not for the GTP-U port, or to no address of ours.
    ///
    /// # Errors
    /// [`Reason::Truncated`]; [`Reason::UdpChecksum`] when there has to be one; and what is for the kernel:
    /// [`Reason::Fragment`] for a part of a datagram to an address of ours (which port it is for is not asked even when it
    /// could be, so that all parts of a datagram go the same way), [`Reason::Ipv6Extension`] and [`Reason::OuterPmtu`].
    #[inline(always)]
    pub(crate) fn parse(packet: &Packet) -> Result<Option<Self>, Reason> {
        let link = packet.link().ok_or(Reason::Truncated)?;
        if link.ethertype == ethertype::IPV6 {
            return Self::parse_ipv6(packet, link.network);
        }
        if link.ethertype != ethertype::IPV4 {
            return Ok(None);
        }
        let view = ipv4::View(packet.at(link.network).ok_or(Reason::Truncated)?);
        if view.version() != 4 || view.header_len() < ipv4::LEN {
            return Ok(None);
        }
        let transport = packet.forget::<0x7f>(link.network + view.header_len());
        if view.protocol() != protocol::UDP {
            return if is_about_ours(packet, view, transport) { Err(Reason::OuterPmtu) } else { Ok(None) };
        }
        let outer = Self {
            network: link.network,
            transport,
            total_len: view.total_len() as usize,
            tos: view.tos(),
            source: view.source(),
            destination: view.destination(),
        };
        if view.is_fragment() {
            return if is_ours(outer.destination) { Err(Reason::Fragment) } else { Ok(None) };
        }
        let udp = udp::View(packet.at(outer.transport).ok_or(Reason::Truncated)?);
        Ok((udp.destination_port() == GTPU_PORT && is_ours(outer.destination)).then_some(outer))
    }

    /// The datagram in the IPv6 packet that begins at `network`.
    #[inline(always)]
    fn parse_ipv6(packet: &Packet, network: usize) -> Result<Option<Self>, Reason> {
        let view = ipv6::View(packet.at(network).ok_or(Reason::Truncated)?);
        if view.version() != 6 {
            return Ok(None);
        }
        let transport = packet.forget::<0x7f>(network + ipv6::LEN);
        match view.next_header() {
            protocol::UDP => {}
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS => {
                let ours = endpoint6(packet, network).is_some();
                return if ours { Err(Reason::Ipv6Extension) } else { Ok(None) };
            }
            protocol::ICMPV6 if is_about_ours6(packet, network, transport) => return Err(Reason::OuterPmtu),
            _ => return Ok(None),
        }
        let mut outer = Self {
            network,
            transport,
            total_len: ipv6::LEN + view.payload_len() as usize,
            tos: view.traffic_class(),
            source: endpoints::UNKNOWN,
            destination: endpoints::UNKNOWN,
        };
        let udp = udp::View(packet.at(transport).ok_or(Reason::Truncated)?);
        let summed = udp.checksum() != 0;
        if udp.destination_port() != GTPU_PORT {
            return Ok(None);
        }
        let Some(endpoint) = endpoint6(packet, network) else { return Ok(None) };
        outer.destination = endpoint.alias;
        let mut may_be_zero = false;
        if let Some(peer) = peer6(packet, network) {
            outer.source = peer.alias;
            may_be_zero = peer.flags & peer_flags::ZERO_CHECKSUM != 0;
        }
        // RFC 8200, 8.1, and RFC 6936 for tunnels whose ends agree on it.
        if summed || may_be_zero { Ok(Some(outer)) } else { Err(Reason::UdpChecksum) }
    }

    /// Whether the IP header is IPv6.
    #[inline(always)]
    pub(crate) fn is_ipv6(&self, packet: &Packet) -> bool {
        packet.at::<1>(self.network).is_some_and(|first| first[0] & 0x20 != 0)
    }

    /// The GTP-U message in the datagram.
    ///
    /// # Errors
    /// Why it is none.
    #[inline(always)]
    pub(crate) fn message(&self, packet: &Packet) -> Result<Message, Reason> {
        let whole = self.network + self.total_len <= packet.len();
        // Both headers at once. A packet that is as long as it says, and has not both, has too short a datagram.
        let Some(headers) = packet.at::<{ udp::LEN + gtpu::LEN }>(self.transport) else {
            return Err(if whole { Reason::UdpLength } else { Reason::Truncated });
        };
        if !whole {
            return Err(Reason::Truncated);
        }
        let udp_len = udp::View(headers.first_chunk().ok_or(Reason::Truncated)?).len() as usize;
        if self.transport + udp_len != self.network + self.total_len || udp_len < udp::LEN + gtpu::LEN {
            return Err(Reason::UdpLength);
        }
        let offset = self.transport + udp::LEN;
        let view = gtpu::View(headers.last_chunk().ok_or(Reason::Truncated)?);
        if view.version() != 1 {
            return Err(Reason::GtpVersion);
        }
        if view.is_gtp_prime() {
            return Err(Reason::GtpPrime);
        }
        let len = gtpu::LEN + view.len() as usize;
        if udp::LEN + len > udp_len {
            return Err(Reason::GtpLength);
        }
        Ok(Message {
            kind: view.message_type(),
            teid: view.teid(),
            offset,
            has_optional: view.has_optional(),
            end: offset + len,
        })
    }

    /// Verifies the checksum of the datagram, which lies within the packet, unless it has none.
    ///
    /// # Errors
    /// [`Reason::UdpChecksum`] when it is wrong, or the datagram too long to sum it.
    #[inline(always)]
    pub(crate) fn verify(&self, packet: &Packet) -> Result<(), Reason> {
        let checksum = udp::View(packet.at(self.transport).ok_or(Reason::Truncated)?).checksum();
        let end = self.network + self.total_len;
        if checksum == 0 || udp_sum(packet, self.network, self.transport, end) == Some(0xffff) {
            Ok(())
        } else {
            Err(Reason::UdpChecksum)
        }
    }
}

/// Whether the packet, whose IPv4 header is `outer` with ICMP at `message`, says that GTP-U of ours was too big (RFC 1191).
#[inline(always)]
fn is_about_ours(packet: &Packet, outer: ipv4::View<'_>, message: usize) -> bool {
    if outer.protocol() != protocol::ICMP || outer.is_fragment() {
        return false;
    }
    let destination = outer.destination();
    let Some(header) = packet.at(message) else { return false };
    if !icmp::View(header).is_fragmentation_needed() {
        return false;
    }
    let quote = message + icmp::LEN;
    let Some(about) = packet.at(quote) else { return false };
    let about = ipv4::View(about);
    let udp = packet.forget::<0xff>(quote + about.header_len());
    about.version() == 4
        && about.protocol() == protocol::UDP
        && about.source() == destination
        && is_to_gtpu(packet, udp)
        && is_ours(destination)
}

/// As [`is_about_ours`], of ICMPv6 (RFC 8201).
#[inline(always)]
fn is_about_ours6(packet: &Packet, network: usize, message: usize) -> bool {
    let Some(header) = packet.at(message) else { return false };
    if icmp::View(header).message_type() != icmp::v6::TOO_BIG {
        return false;
    }
    let quote = packet.forget::<0xff>(message + icmp::LEN);
    let Some(about) = packet.at::<{ ipv6::LEN }>(quote) else { return false };
    if ipv6::View(about).version() != 6 || ipv6::View(about).next_header() != protocol::UDP {
        return false;
    }
    is_to_gtpu(packet, quote + ipv6::LEN)
        && packet.same_address6(quote + 8, network + 24)
        && endpoint6(packet, network).is_some()
}

/// Whether the UDP header at `offset` has the GTP-U port for its destination.
#[inline(always)]
fn is_to_gtpu(packet: &Packet, offset: usize) -> bool {
    packet.at(offset).is_some_and(|header| udp::View(header).destination_port() == GTPU_PORT)
}
