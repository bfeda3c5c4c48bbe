//! The outer IP header of an encapsulated packet: of either family, toward its next hop.

use xdpchain_abi::{Address6, Ipv4, Reason};
use xdpchain_wire::{
    OctetsMut as _,
    ethernet::{self, ethertype},
    ipv4, ipv6,
};

use crate::{Hop, Inner, NextHop, Packet, Route, opaque, route::is_alias};

/// What an outer IP header is made of.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Our address, or the alias of an IPv6 one.
    pub source: Ipv4,
    /// The far end's, of the same family.
    pub destination: Ipv4,
    /// IP protocol of what follows.
    pub protocol: u8,
    /// TOS octet or traffic class.
    pub tos: u8,
}

/// An outer IP header that is to be written, and where the packet goes.
pub struct Outer<'a> {
    /// Where the packet goes.
    pub next_hop: NextHop<'a>,
    ends: Ends,
    /// Octets of the outer packet.
    total_len: u16,
    /// Our address when it is IPv6; [`opaque`], as is the far end's.
    local: Option<&'a Address6>,
    /// The far end's address when it is IPv6.
    remote: Option<&'a Address6>,
}

impl<'a> Outer<'a> {
    /// The header in front of `len` octets. `address` finds what an alias stands for; `hop` and `ask` are as for
    /// [`Route::next_hop`].
    ///
    /// # Errors
    /// Why the packet is not sent.
    ///
    /// # Safety
    /// As for [`Route::next_hop`].
    #[inline(always)]
    pub unsafe fn new(
        packet: &Packet,
        ends: Ends,
        len: usize,
        address: impl Fn(Ipv4) -> Option<&'a Address6>,
        hop: *const Hop,
        ask: impl FnOnce(&Route) -> u64,
    ) -> Result<Self, Reason> {
        let Ends { source, destination, protocol, tos } = ends;
        let is_ipv6 = is_alias(destination);
        let total_len = packet.forget16(total_len(if is_ipv6 { ipv6::LEN } else { ipv4::LEN }, len)?);
        let (mut local, mut remote) = (None, None);
        if is_ipv6 {
            (local, remote) = (address(source), address(destination));
            if local.is_none() || remote.is_none() {
                return Err(Reason::NoRoute);
            }
        }
        let route = Route { source, destination, protocol, tos, total_len };
        // SAFETY: as the caller promises.
        let next_hop = unsafe { route.next_hop(packet, hop, ask) }?;
        Ok(Self { next_hop, ends, total_len, local: opaque(local), remote: opaque(remote) })
    }

    /// Octets of the header.
    #[inline(always)]
    pub fn ip_len(&self) -> usize {
        if self.remote.is_some() { ipv6::LEN } else { ipv4::LEN }
    }

    /// Octets of the outer packet.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        self.total_len as usize
    }

    /// The far end's address when it is IPv6.
    #[inline(always)]
    pub fn remote6(&self) -> Option<&'a Address6> {
        self.remote
    }

    /// Whether the packet neither fits the way out nor may be fragmented on it. No router fragments IPv6.
    #[inline(always)]
    pub fn is_too_long(&self, packet: &Packet, inner: &Inner) -> bool {
        self.next_hop.is_too_long() && (self.remote.is_some() || !inner.may_be_fragmented(packet))
    }

    /// Writes the Ethernet and the IP header; over IPv4 with DF when `id` is 0. `None` when the frame is shorter.
    #[inline(always)]
    #[must_use]
    pub fn emit(&self, packet: &mut Packet, ttl: u8, id: u16) -> Option<()> {
        let Ends { source, destination, protocol, tos } = self.ends;
        let (Some(local), Some(remote)) = (self.local, self.remote) else {
            packet.put_ethernet(&self.next_hop.addresses(), ethertype::IPV4)?;
            let ip = ipv4::Repr {
                tos,
                total_len: self.total_len,
                id,
                dont_fragment: id == 0,
                ttl,
                protocol,
                source,
                destination,
                ..ipv4::Repr::default()
            };
            ip.emit(packet.at_mut(ethernet::LEN)?);
            return Some(());
        };
        packet.put_ethernet(&self.next_hop.addresses(), ethertype::IPV6)?;
        let ip = ipv6::Repr {
            traffic_class: tos,
            flow_label: 0,
            payload_len: self.total_len - ipv6::LEN as u16,
            next_header: protocol,
            hop_limit: ttl,
            source: local.address,
            destination: remote.address,
        };
        ip.emit(packet.at_mut(ethernet::LEN)?);
        Some(())
    }
}

/// Octets of an IP packet that has `header` octets and `len` behind them.
///
/// # Errors
/// [`Reason::TooBig`] when IP cannot say so many. In generic mode a packet may be as long as that: the network stack joins the
/// segments of a TCP flow, also inside GRE, before the program sees them.
#[inline(always)]
fn total_len(header: usize, len: usize) -> Result<u16, Reason> {
    u16::try_from(header + len).map_err(|_| Reason::TooBig)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_outer_packet_does_not_wrap() {
        assert_eq!(total_len(20, 1480), Ok(1500));
        assert_eq!(total_len(20, 65_515), Ok(65_535));
        assert_eq!(total_len(20, 65_516), Err(Reason::TooBig));
    }
}
