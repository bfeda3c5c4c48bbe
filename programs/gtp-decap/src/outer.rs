//! The headers around a GTP-U message: Ethernet, up to two tags, IPv4, UDP.

use xdpchain_abi::{Be32, GTPU_PORT, Ipv4, Reason};
use xdpchain_kit::Packet;
use xdpchain_wire::{Octets as _, ethernet::ethertype, gtpu, ipv4, ipv6, protocol, udp};

use crate::{is_endpoint6, is_ours};

/// A UDP datagram to the GTP-U port of an address of ours.
pub(crate) struct Outer {
    /// Offset of the IPv4 header from the start of the frame.
    pub(crate) network: usize,
    /// Offset of the UDP header.
    pub(crate) transport: usize,
    /// Octets of the IPv4 packet as its header says; not compared with the frame yet.
    total_len: usize,
    /// TOS octet.
    pub(crate) tos: u8,
    /// Outer source, the peer.
    pub(crate) source: Ipv4,
    /// Outer destination.
    pub(crate) destination: Ipv4,
}

/// A GTP-U message that lies within its datagram.
pub(crate) struct Message {
    /// One of [`gtpu::message`].
    pub(crate) kind: u8,
    /// Tunnel endpoint identifier.
    pub(crate) teid: Be32,
    /// Offset of its header from the start of the frame.
    pub(crate) offset: usize,
    /// Where it ends by its own length, from the start of the frame.
    pub(crate) end: usize,
}

impl Outer {
    /// The datagram in `packet`; `Ok(None)` for every packet that is not for the GTP-U port, or to no address of ours.
    ///
    /// # Errors
    /// [`Reason::Truncated`], or [`Reason::Fragment`] for a part of a datagram to an address of ours: which port it is
    /// for is not asked even when it could be, so that all parts of a datagram go the same way.
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
        if view.version() != 4 || view.header_len() < ipv4::LEN || view.protocol() != protocol::UDP {
            return Ok(None);
        }
        let outer = Self {
            network: link.network,
            transport: packet.forget::<0x7f>(link.network + view.header_len()),
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

    /// No datagram over IPv6 is taken yet, but what hides its upper layer behind extension headers is told apart.
    ///
    /// # Errors
    /// [`Reason::Ipv6Extension`] for a packet with extension headers, a fragment among them, to an address of ours.
    #[inline(always)]
    fn parse_ipv6(packet: &Packet, network: usize) -> Result<Option<Self>, Reason> {
        let view = ipv6::View(packet.at(network).ok_or(Reason::Truncated)?);
        let extended = matches!(
            view.next_header(),
            protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::FRAGMENT
                | protocol::AUTHENTICATION
                | protocol::DESTINATION_OPTIONS
        );
        if extended && is_endpoint6(view.destination()) { Err(Reason::Ipv6Extension) } else { Ok(None) }
    }

    /// The GTP-U message in the datagram.
    ///
    /// # Errors
    /// Why it is none.
    #[inline(always)]
    pub(crate) fn message(&self, packet: &Packet) -> Result<Message, Reason> {
        if self.network + self.total_len > packet.len() {
            return Err(Reason::Truncated);
        }
        let udp_len = udp::View(packet.at(self.transport).ok_or(Reason::Truncated)?).len() as usize;
        if self.transport + udp_len != self.network + self.total_len || udp_len < udp::LEN + gtpu::LEN {
            return Err(Reason::UdpLength);
        }
        let offset = self.transport + udp::LEN;
        let view = gtpu::View(packet.at(offset).ok_or(Reason::Truncated)?);
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
        Ok(Message { kind: view.message_type(), teid: view.teid(), offset, end: offset + len })
    }
}
