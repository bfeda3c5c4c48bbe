//! GTP-U out: rows D01 to D04.

use xdpchain_abi::{
    DownlinkKey, DownlinkSession, Ipv4, Reason, UserAddress, direction, peer_flags, session_flags,
    tunnel_flags,
};
use xdpchain_wire::ethernet::{Link, ethertype};
use xdpchain_wire::gtpu::{self, extension, message};
use xdpchain_wire::{protocol, udp};

use super::gre_steer::{gre_header, gre_outer, refuse};
use super::inner::Inner;
use super::outer::{Ends, Header, Parcel, Way, entropy, outer_tos, room, send, way};
use super::too_big;
use crate::chain::{Return, Visit};
use crate::{Query, Route, Row, Verdict};

pub(super) fn run(visit: &mut Visit<'_>) -> Return {
    if visit.context.direction != direction::DOWNLINK {
        return visit.pass(Row::D01, "not on its way to the radio network");
    }
    let Some(link) = Link::parse(&visit.frame[..]) else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within its Ethernet header");
    };
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return visit.pass(Row::B11, format!("EtherType {:#06x} is not IP", link.ethertype));
    }
    let inner = match Inner::parse(&visit.frame[link.network..]) {
        Ok(inner) if inner.ethertype() == link.ethertype => inner,
        _ => return visit.drop(Row::B12, Reason::InnerMalformed, "the frame is not what its headers say"),
    };
    if inner.hops <= 1 {
        let why = format!("the inner packet has {} hops left", inner.hops);
        return visit.punt(Row::B01, Reason::TtlExpired, why);
    }
    let config = visit.tables.encap;
    if inner.is_for_group() {
        return refuse(visit, Row::B10, Reason::InnerMulticast, config.inner_multicast, "it is for a group");
    }
    // An IPv4 address, IPv4-mapped here; of an IPv6 one the upper half, as a session has a /64.
    let whole = inner.destination.octets;
    let address = if inner.is_ipv4 {
        UserAddress::v4(Ipv4 { octets: [whole[12], whole[13], whole[14], whole[15]] })
    } else {
        UserAddress::v6(inner.destination)
    };
    let customer = visit.context.customer;
    let Some(session) = visit.tables.downlink.get(&DownlinkKey { customer, address }).copied() else {
        let why = format!("customer {customer} has no session with the inner destination");
        return refuse(visit, Row::D02, Reason::NoSession, config.not_found, why);
    };
    visit.context.session = session.session;
    let hash = entropy(visit, link.network, &inner);
    // A dynamic port, so that it is nobody's.
    let port = 0xc000 | (hash & 0x3fff) as u16;
    let has_qfi = session.flags & session_flags::HAS_QFI != 0;
    let extra: &[u8] = match has_qfi {
        true => &[0, 0, 0, extension::PDU_SESSION, 1, 0, session.qfi & 0x3f, extension::NONE],
        false => &[],
    };
    let message_len = extra.len() + inner.len;
    let udp_len = udp::LEN + gtpu::LEN + message_len;
    let mut tunnel = port.to_be_bytes().to_vec();
    tunnel.extend(xdpchain_abi::GTPU_PORT.to_be_bytes());
    tunnel.extend((udp_len as u16).to_be_bytes());
    tunnel.extend([0, 0]);
    tunnel.extend([if has_qfi { 0x34 } else { 0x30 }, message::G_PDU]);
    tunnel.extend((message_len as u16).to_be_bytes());
    tunnel.extend(session.teid.octets);
    tunnel.extend(extra);
    let Some((ends, no_checksum)) = ends(visit, &session) else {
        let why = "the session's outer addresses are aliases of IPv6 addresses that nobody has";
        return visit.drop(Row::D04, Reason::NoRoute, why);
    };
    let header = Header {
        ends,
        protocol: protocol::UDP,
        tos: outer_tos(&inner, (session.flags & session_flags::FIXED_DSCP != 0).then_some(session.dscp)),
        ttl: 64,
        id: None,
    };
    visit.note(Row::B07, format!("TOS is {:#04x} inside and {:#04x} outside", inner.tos, header.tos));
    let why = format!(
        "session {} of customer {customer}: TEID {:#x} at the peer, source port {port} from its flow{}",
        session.session,
        session.teid.value(),
        if has_qfi { format!(", QFI {}", session.qfi & 0x3f) } else { String::new() }
    );
    visit.note(Row::D01, why);
    let outer_is_ipv4 = matches!(header.ends, Ends::V4 { .. });
    let parcel = Parcel {
        network: link.network,
        inner: &inner,
        header,
        tunnel: &tunnel,
        udp_sum: !no_checksum,
        mss_clamp: config.mss_clamp,
    };
    match way(visit, &parcel) {
        Way::Nowhere(returned) => returned,
        Way::Out(hop) => send(visit, parcel, &hop, false),
        // Routers fragment no outer IPv6 packet.
        Way::TooBig(hop) if inner.may_be_fragmented && outer_is_ipv4 => send(visit, parcel, &hop, true),
        Way::TooBig(hop) => {
            let mtu = room(&parcel, &hop);
            let why =
                format!("the inner packet has {} octets, {mtu} fit and it must not be fragmented", inner.len);
            match tell(visit, link, &inner, mtu) {
                Some(verdict) => {
                    visit.context.reason = Reason::TooBig as u16;
                    visit.remark(Row::B02, Reason::TooBig, format!("{why}: its sender is told by ICMP"));
                    Return { verdict, ends: false }
                }
                None => visit.drop(Row::B02, Reason::TooBig, format!("{why}; nobody is told")),
            }
        }
    }
}

/// Makes of the packet the answer that it was too big, in the tunnel that it came from. None when nobody is to be told.
fn tell(visit: &mut Visit<'_>, link: Link, inner: &Inner, mtu: usize) -> Option<Verdict> {
    let tunnel = visit.tables.tunnels.get(&visit.context.tunnel).copied()?;
    let answer = too_big::answer(visit, link.network, inner, mtu)?;
    let gre = gre_header(&tunnel, inner.ethertype());
    let dscp = (tunnel.flags & tunnel_flags::FIXED_DSCP != 0).then_some(tunnel.dscp);
    let about = Inner::parse(&answer).ok()?;
    let header = gre_outer(visit, &tunnel, outer_tos(&about, dscp))?;
    let (from, to) = header.ends.addresses();
    let query = Query {
        source: from,
        destination: to,
        tos: header.tos,
        total_len: header.len() + gre.len() + answer.len(),
    };
    let Route::Forward(hop) = visit.network.route(&query) else { return None };
    let (destination, source) = hop.addresses?;
    visit.frame = [&destination.0[..], &source.0, &header.ethertype().to_be_bytes()].concat();
    visit.frame.extend(header.octets(gre.len() + answer.len()));
    visit.frame.extend(&gre);
    visit.frame.extend(&answer);
    visit.context.direction = direction::UPLINK;
    visit.context.inner_len = answer.len() as u16;
    Some(if hop.back { Verdict::Tx } else { Verdict::Redirect })
}

/// The outer addresses, and whether UDP between them has no checksum. An address out of 0.0.0.0/8 is the alias of an IPv6 one.
fn ends(visit: &Visit<'_>, session: &DownlinkSession) -> Option<(Ends, bool)> {
    if session.peer.octets[0] != 0 {
        return Some((Ends::V4 { source: session.local, destination: session.peer }, true));
    }
    let local = visit.tables.addresses6.get(&session.local)?;
    let peer = visit.tables.addresses6.get(&session.peer)?;
    let ends = Ends::V6 { source: local.address, destination: peer.address };
    Some((ends, peer.flags & peer_flags::ZERO_CHECKSUM != 0))
}
