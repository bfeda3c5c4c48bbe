//! The outer IP header: of the session's family, with its addresses, toward its next hop.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use xdpchain_abi::{Address6, DownlinkSession, Ipv4, Reason, peer_flags, session_flags};
use xdpchain_kit::{Inner, MAX_SUMMED, NextHop, Packet, Route, Route6, opaque, udp_sum};
use xdpchain_wire::{
    OctetsMut as _,
    ethernet::{self, ethertype},
    ipv4, ipv6, protocol,
};

use crate::TTL;

/// IPv6 addresses, ours and the peers', by the aliases that sessions call them.
#[btf_map(name = "addresses6")]
static ADDRESSES6: HashMap<Ipv4, Address6, 4096> = HashMap::new();

/// An outer IP header that is to be written, and where the packet goes.
pub(crate) struct Outer<'a> {
    /// Where the packet goes.
    pub(crate) next_hop: NextHop,
    /// Octets of the outer packet.
    total_len: u16,
    /// TOS octet or traffic class.
    tos: u8,
    /// Our address when it is IPv6; [`opaque`], as is the peer's.
    local: Option<&'a Address6>,
    /// The peer's address when it is IPv6.
    peer: Option<&'a Address6>,
}

impl<'a> Outer<'a> {
    /// The header in front of `overhead` octets and `inner`.
    ///
    /// # Errors
    /// Why the packet is not sent.
    #[inline(always)]
    pub(crate) fn new(
        packet: &Packet,
        inner: &Inner,
        session: &DownlinkSession,
        overhead: usize,
    ) -> Result<Self, Reason> {
        let tos = if session.flags & session_flags::FIXED_DSCP == 0 {
            inner.tos
        } else {
            session.dscp << 2 | inner.tos & 0b11
        };
        // Out of 0.0.0.0/8 are the aliases.
        if session.peer.octets[0] != 0 {
            let total_len = inner.outer_len(ipv4::LEN + overhead)?;
            let route = Route {
                source: session.local,
                destination: session.peer,
                protocol: protocol::UDP,
                tos,
                total_len,
            };
            return Ok(Self {
                next_hop: route.next_hop(packet)?,
                total_len,
                tos,
                local: opaque(None),
                peer: opaque(None),
            });
        }
        let total_len = inner.outer_len(ipv6::LEN + overhead)?;
        // SAFETY: nothing here changes the map, and what user space replaces meanwhile is an address all the same.
        let addresses = unsafe { (ADDRESSES6.get(session.local), ADDRESSES6.get(session.peer)) };
        let (Some(local), Some(peer)) = addresses else { return Err(Reason::NoRoute) };
        let route = Route6 {
            source: &local.address,
            destination: &peer.address,
            protocol: protocol::UDP,
            tos,
            total_len,
        };
        Ok(Self {
            next_hop: route.next_hop(packet)?,
            total_len,
            tos,
            local: opaque(Some(local)),
            peer: opaque(Some(peer)),
        })
    }

    /// Octets of the header.
    #[inline(always)]
    pub(crate) fn ip_len(&self) -> usize {
        if self.peer.is_some() { ipv6::LEN } else { ipv4::LEN }
    }

    /// Whether the packet neither fits the way out nor may be fragmented on it. No router fragments IPv6, and what is not
    /// summed in time for the outer checksum does not fit either.
    #[inline(always)]
    pub(crate) fn is_too_long(&self, packet: &Packet, inner: &Inner) -> bool {
        if self.peer.is_some() && self.total_len as usize > MAX_SUMMED {
            return true;
        }
        self.next_hop.is_too_long() && (self.peer.is_some() || !inner.may_be_fragmented(packet))
    }

    /// Writes the Ethernet and the IP header; with DF when `id` is 0.
    ///
    /// # Errors
    /// [`Reason::Headroom`] when the frame is shorter, which it is not.
    #[inline(always)]
    pub(crate) fn emit(&self, packet: &mut Packet, session: &DownlinkSession, id: u16) -> Result<(), Reason> {
        let (Some(local), Some(peer)) = (self.local, self.peer) else {
            packet.put_ethernet(&self.next_hop.addresses, ethertype::IPV4).ok_or(Reason::Headroom)?;
            let ip = ipv4::Repr {
                tos: self.tos,
                total_len: self.total_len,
                id,
                dont_fragment: id == 0,
                ttl: TTL,
                protocol: protocol::UDP,
                source: session.local,
                destination: session.peer,
                ..ipv4::Repr::default()
            };
            ip.emit(packet.at_mut(ethernet::LEN).ok_or(Reason::Headroom)?);
            return Ok(());
        };
        packet.put_ethernet(&self.next_hop.addresses, ethertype::IPV6).ok_or(Reason::Headroom)?;
        let ip = ipv6::Repr {
            traffic_class: self.tos,
            flow_label: 0,
            payload_len: self.total_len - ipv6::LEN as u16,
            next_header: protocol::UDP,
            hop_limit: TTL,
            source: local.address,
            destination: peer.address,
        };
        ip.emit(packet.at_mut(ethernet::LEN).ok_or(Reason::Headroom)?);
        Ok(())
    }

    /// Writes the checksum of the UDP datagram, which is finished but for it, when it is due.
    ///
    /// # Errors
    /// [`Reason::Headroom`] when the packet is not as long as it was made, which it is.
    #[inline(always)]
    pub(crate) fn sum(&self, packet: &mut Packet, transport: usize) -> Result<(), Reason> {
        let Some(peer) = self.peer else { return Ok(()) };
        if peer.flags & peer_flags::ZERO_CHECKSUM != 0 {
            return Ok(());
        }
        let end = ethernet::LEN + self.total_len as usize;
        let sum = udp_sum(packet, ethernet::LEN, transport, end).ok_or(Reason::Headroom)?;
        // A checksum that comes out as 0 is sent as its other form (RFC 768).
        let checksum = if sum == 0xffff { 0xffff } else { !sum };
        let field: &mut [u8; 2] = packet.at_mut(transport + 6).ok_or(Reason::Headroom)?;
        *field = checksum.to_be_bytes();
        Ok(())
    }
}
