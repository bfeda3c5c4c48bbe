//! GRE out: rows R14 and R15, and what they share with GTP-U out.

use xdpchain_abi::{CUSTOMER_TUNNELS, GreTunnel, Reason, direction, refusal, tunnel_flags};
use xdpchain_wire::ethernet::{Link, ethertype};
use xdpchain_wire::protocol;

use super::inner::Inner;
use super::outer::{Ends, Header, Parcel, Way, entropy, fragment_id, outer_tos, room, send, way};
use super::too_big;
use crate::Row;
use crate::chain::{Return, Visit};

pub(super) fn run(visit: &mut Visit<'_>) -> Return {
    if visit.context.direction != direction::UPLINK {
        return visit.pass(Row::R14, "not on its way to the clouds");
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
    let config = visit.tables.steer;
    if inner.is_for_group() {
        return refuse(visit, Row::B10, Reason::InnerMulticast, config.inner_multicast, "it is for a group");
    }
    let Some((number, tunnel)) = tunnel_of(visit, link, &inner) else {
        let why = format!("customer {} has no tunnel", visit.context.customer);
        return refuse(visit, Row::R15, Reason::NoTunnel, config.not_found, why);
    };
    visit.context.tunnel = number;
    let dscp = (tunnel.flags & tunnel_flags::FIXED_DSCP != 0).then_some(tunnel.dscp);
    let gre = gre_header(&tunnel, inner.ethertype());
    let Some(mut header) = gre_outer(visit, &tunnel, outer_tos(&inner, dscp)) else {
        let why = "the tunnel's addresses are aliases of IPv6 addresses that nobody has";
        return visit.drop(Row::B09, Reason::NoRoute, why);
    };
    if tunnel.flags & tunnel_flags::ALLOW_FRAGMENTS != 0 {
        header.id = Some(fragment_id(&visit.frame[link.network..], link.network, &inner));
    }
    visit.note(Row::B07, format!("TOS is {:#04x} inside and {:#04x} outside", inner.tos, header.tos));
    visit.note(Row::R14, format!("into tunnel {number} of customer {}", visit.context.customer));
    let outer_is_ipv4 = matches!(header.ends, Ends::V4 { .. });
    let parcel = Parcel {
        network: link.network,
        inner: &inner,
        header,
        tunnel: &gre,
        udp_sum: false,
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
            let Some(answer) = too_big::answer(visit, link.network, &inner, mtu) else {
                return visit.drop(Row::B02, Reason::TooBig, format!("{why}; nobody is told"));
            };
            // In the other direction: what puts packets into sessions finds the sender's.
            visit.frame.truncate(12);
            visit.frame.extend(inner.ethertype().to_be_bytes());
            visit.frame.extend(&answer);
            visit.context.direction = direction::DOWNLINK;
            visit.context.tunnel = 0;
            visit.context.inner_len = answer.len() as u16;
            visit.context.reason = Reason::TooBig as u16;
            visit.remark(Row::B02, Reason::TooBig, format!("{why}: its sender is told by ICMP"));
            Return::PASS
        }
    }
}

/// The GRE header of a tunnel's packets.
pub(super) fn gre_header(tunnel: &GreTunnel, ethertype: u16) -> Vec<u8> {
    let has_key = tunnel.flags & tunnel_flags::HAS_KEY != 0;
    let mut header = vec![if has_key { 0x20 } else { 0 }, 0];
    header.extend(ethertype.to_be_bytes());
    if has_key {
        header.extend(tunnel.key.octets);
    }
    header
}

/// The outer IP header of a tunnel's packets. None when its addresses are aliases that stand for nothing.
pub(super) fn gre_outer(visit: &Visit<'_>, tunnel: &GreTunnel, tos: u8) -> Option<Header> {
    let ends = if tunnel.remote.octets[0] != 0 {
        Ends::V4 { source: tunnel.local, destination: tunnel.remote }
    } else {
        let local = visit.tables.addresses6.get(&tunnel.local)?;
        let remote = visit.tables.addresses6.get(&tunnel.remote)?;
        Ends::V6 { source: local.address, destination: remote.address }
    };
    let ttl = if tunnel.ttl == 0 { 64 } else { tunnel.ttl };
    Some(Header { ends, protocol: protocol::GRE, tos, ttl, id: None })
}

/// The tunnel that the packet's flow takes: row R15. Of several the one that scores highest with the flow, so that a
/// tunnel that goes away moves no flow but its own; how scores are made is nobody's promise, and that of the programs.
fn tunnel_of(visit: &mut Visit<'_>, link: Link, inner: &Inner) -> Option<(u32, GreTunnel)> {
    let customer = visit.tables.customers.get(&visit.context.customer).copied()?;
    let tunnels = &customer.tunnels[..(customer.count as usize).min(CUSTOMER_TUNNELS)];
    let hash = entropy(visit, link.network, inner);
    // Of two with the same score the first.
    let number = *tunnels.iter().rev().max_by_key(|tunnel| score(hash, **tunnel))?;
    if tunnels.len() > 1 {
        visit.note(Row::R15, format!("of {} tunnels the flow takes number {number}", tunnels.len()));
    }
    Some((number, visit.tables.tunnels.get(&number).copied()?))
}

/// How a tunnel scores with a flow: MurmurHash3's last steps over both.
fn score(hash: u32, tunnel: u32) -> u32 {
    let mut x = hash ^ tunnel.wrapping_mul(0x9e37_79b1);
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// Drops or punts, as the policy says.
pub(super) fn refuse(
    visit: &mut Visit<'_>,
    row: Row,
    reason: Reason,
    policy: u8,
    why: impl Into<String>,
) -> Return {
    if policy == refusal::PUNT { visit.punt(row, reason, why) } else { visit.drop(row, reason, why) }
}
