//! GRE in: rows R01 to R13.

use std::net::{Ipv4Addr, Ipv6Addr};

use xdpchain_abi::{GreKey, Inside6, Ipv4, Ipv6, NO_SESSION, Reason, direction, tunnel_flags};
use xdpchain_wire::ethernet::{self, Link, ethertype};
use xdpchain_wire::{Octets as _, gre, icmp, ipv4, ipv6, protocol};

use super::inner::{Inner, ecn_inside, quoted4, set_ecn};
use super::outer::checksum;
use crate::Row;
use crate::chain::{Return, Visit};

pub(super) fn run(visit: &mut Visit<'_>) -> Return {
    if visit.context.direction != direction::NONE {
        return visit.pass(Row::R12, "the packet has left a tunnel already: what is in it is its user's");
    }
    let Some(link) = Link::parse(&visit.frame[..]) else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within its Ethernet header");
    };
    if link.ethertype == ethertype::IPV6 {
        return over_ipv6(visit, link);
    }
    if link.ethertype != ethertype::IPV4 {
        return visit.pass(Row::B11, format!("EtherType {:#06x} is not looked into", link.ethertype));
    }
    let network = link.network;
    let Some(header) = visit.frame[..].at::<{ ipv4::LEN }>(network).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the outer IPv4 header");
    };
    let ip = ipv4::View(&header);
    if ip.version() != 4 || ip.header_len() < ipv4::LEN {
        return visit.pass(Row::B11, "the outer header is none of IPv4");
    }
    if ip.protocol() == protocol::ICMP
        && !ip.is_fragment()
        && let Some(quoted) = quoted4(&visit.frame[network..])
        && quoted[9] == protocol::GRE
    {
        let ends = GreKey { remote: Ipv4 { octets: quoted_at(&quoted, 16) }, local: ip.destination() };
        if quoted_at(&quoted, 12) == ends.local.octets && visit.tables.ingress.contains_key(&ends) {
            let why = format!("a router on the way to {} says that GRE of ours is too big", v4(ends.remote));
            return visit.punt(Row::B05, Reason::OuterPmtu, why);
        }
    }
    if ip.protocol() != protocol::GRE {
        return visit.pass(Row::B11, format!("protocol {} is not GRE", ip.protocol()));
    }
    if ip.is_fragment() {
        return visit.punt(Row::R13, Reason::Fragment, "the outer packet is a fragment");
    }
    let end = network + usize::from(ip.total_len());
    if end > visit.frame.len() {
        let why = format!(
            "the outer packet says {} octets, the frame has {}",
            ip.total_len(),
            visit.frame.len() - network
        );
        return visit.drop(Row::B12, Reason::Truncated, why);
    }
    let outer = Outer {
        at: network + ip.header_len(),
        end,
        tos: ip.tos(),
        key: GreKey { remote: ip.source(), local: ip.destination() },
        ends6: None,
    };
    tunnelled(visit, link, &outer)
}

/// What the outer headers say.
struct Outer {
    /// Where GRE begins, and where the packet ends.
    at: usize,
    end: usize,
    tos: u8,
    key: GreKey,
    /// Source and destination when they are IPv6.
    ends6: Option<(Ipv6, Ipv6)>,
}

/// As [`run`], of an IPv6 packet.
fn over_ipv6(visit: &mut Visit<'_>, link: Link) -> Return {
    let network = link.network;
    let Some(header) = visit.frame[..].at::<{ ipv6::LEN }>(network).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the outer IPv6 header");
    };
    let ip = ipv6::View(&header);
    if ip.version() != 6 {
        return visit.pass(Row::B11, "the outer header is none of IPv6");
    }
    let alias = |address: Ipv6| visit.tables.ends6.get(&address).map(|end| end.alias);
    let local = alias(ip.destination());
    let extended = matches!(
        ip.next_header(),
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    );
    if extended && local.is_some() {
        return visit.punt(Row::R13, Reason::Ipv6Extension, "the outer packet has extension headers");
    }
    let at = network + ipv6::LEN;
    if ip.next_header() == protocol::ICMPV6
        && visit.frame.get(at) == Some(&icmp::v6::TOO_BIG)
        && let Some(quoted) = visit.frame[..].at::<{ ipv6::LEN }>(at + icmp::LEN)
        && let about = ipv6::View(quoted)
        && (about.version(), about.next_header(), about.source()) == (6, protocol::GRE, ip.destination())
        && let (Some(local), Some(remote)) = (local, alias(about.destination()))
        && visit.tables.ingress.contains_key(&GreKey { remote, local })
    {
        return visit.punt(Row::B05, Reason::OuterPmtu, "a router says that GRE of ours is too big");
    }
    let Some(local) = local.filter(|_| ip.next_header() == protocol::GRE) else {
        return visit.pass(Row::B11, "no GRE to an IPv6 address of ours");
    };
    // No tunnel has a far end that nobody told of.
    let remote = alias(ip.source()).unwrap_or(Ipv4 { octets: [0xff; 4] });
    let end = at + usize::from(ip.payload_len());
    if end > visit.frame.len() {
        return visit.drop(Row::B12, Reason::Truncated, "the outer packet is longer than the frame");
    }
    let ends6 = Some((ip.source(), ip.destination()));
    let outer = Outer { at, end, tos: ip.traffic_class(), key: GreKey { remote, local }, ends6 };
    tunnelled(visit, link, &outer)
}

/// A GRE packet that is there as far as it says.
fn tunnelled(visit: &mut Visit<'_>, link: Link, outer: &Outer) -> Return {
    let Outer { at, end, tos, key, ends6 } = *outer;
    if at + gre::LEN > end {
        return visit.drop(Row::B12, Reason::Truncated, "the outer packet ends within the GRE header");
    }
    let Some(first) = visit.frame[..].at::<{ gre::LEN }>(at).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the GRE header");
    };
    let view = gre::View(&first);
    let Some(tunnel) = visit.tables.ingress.get(&key).copied() else {
        let why = format!("no tunnel is from {} to {}", v4(key.remote), v4(key.local));
        return visit.punt(Row::R12, Reason::GreUnknownTunnel, why);
    };
    if view.version() != 0 {
        return visit.punt(Row::R07, Reason::GreVersion, format!("GRE version {}", view.version()));
    }
    if view.has_reserved() {
        return visit.drop(
            Row::R05,
            Reason::GreFlags,
            format!("flag bits {:#04x} have no meaning", first[0]),
        );
    }
    let inside = at + view.header_len();
    if inside > end {
        let why = "the outer packet ends within the optional GRE fields";
        return visit.drop(Row::B12, Reason::Truncated, why);
    }
    if view.has_checksum() {
        if tunnel.flags & tunnel_flags::VERIFY_CHECKSUM == 0 {
            let why = "there is a checksum, which the tunnel does not verify";
            return visit.drop(Row::R02, Reason::GreFlags, why);
        }
        if checksum(&visit.frame[at..end]) != 0 {
            return visit.drop(Row::R02, Reason::GreFlags, "the GRE checksum is wrong");
        }
        visit.note(Row::R02, "the GRE checksum is right");
    }
    let sent = view.has_key().then(|| {
        let key_at = at + gre::LEN + 4 * usize::from(view.has_checksum());
        [0, 1, 2, 3].map(|i| visit.frame[key_at + i])
    });
    let due = (tunnel.flags & tunnel_flags::HAS_KEY != 0).then_some(tunnel.key.octets);
    if sent != due {
        return visit.punt(Row::R03, Reason::GreKey, "the key is not the tunnel's");
    }
    if sent.is_some() {
        visit.note(Row::R03, "the key is the tunnel's");
    }
    if view.has_sequence() {
        visit.note(Row::R04, "there is a sequence number, which is not evaluated");
    }
    match view.protocol() {
        0 => return visit.punt(Row::R08, Reason::GreKeepalive, "protocol 0: a keepalive"),
        ethertype::IPV4 | ethertype::IPV6 => {}
        other => {
            return visit.punt(Row::R09, Reason::GreProtocol, format!("protocol {other:#06x} is not IP"));
        }
    }
    let inner = match Inner::parse(&visit.frame[inside..end]) {
        Ok(inner) if inner.ethertype() == view.protocol() => inner,
        Ok(_) => {
            let why = "the GRE header and the inner packet disagree about its version";
            return visit.drop(Row::G21, Reason::InnerMalformed, why);
        }
        Err(why) => return visit.drop(Row::G21, Reason::InnerMalformed, why),
    };
    if let Some(destination) = inner.destination4() {
        if within(destination, tunnel.inside, tunnel.inside_len) {
            let why = format!("{} is inside the tunnel itself, where BGP lives", v4(destination));
            return visit.punt(Row::R10, Reason::GreControl, why);
        }
        if destination == key.local || destination == key.remote {
            let why = format!("{} is an end of the tunnel that it came by", v4(destination));
            return visit.drop(Row::R11, Reason::GreLoop, why);
        }
    }
    if let Some(octets) = visit.frame[..].at::<{ ipv6::LEN }>(inside).filter(|_| !inner.is_ipv4) {
        let destination = Ipv6Addr::from(ipv6::View(octets).destination().octets);
        let own =
            visit.tables.inside6.get(&tunnel.tunnel).filter(|_| tunnel.flags & tunnel_flags::INSIDE6 != 0);
        if destination.is_unicast_link_local() || own.is_some_and(|own| within6(destination, own)) {
            let why = format!("{destination} is inside the tunnel itself, where BGP lives");
            return visit.punt(Row::R10, Reason::GreControl, why);
        }
    }
    if let (Some((source, destination)), Some(octets)) =
        (ends6, visit.frame[..].at::<{ ipv6::LEN }>(inside).filter(|_| !inner.is_ipv4))
        && [source, destination].contains(&ipv6::View(octets).destination())
    {
        return visit.drop(Row::R11, Reason::GreLoop, "it is for an end of the tunnel that it came by");
    }
    if inner.hops <= 1 {
        let why = format!("the inner packet has {} hops left", inner.hops);
        return visit.punt(Row::B01, Reason::TtlExpired, why);
    }
    let Some(ecn) = ecn_inside(tos, inner.tos) else {
        return visit.drop(Row::B06, Reason::Ecn, "congestion was met, which the inner packet cannot tell");
    };
    if link.network > ethernet::LEN {
        visit.note(Row::R01, "the frame's VLAN tags go with the outer headers");
    }
    let mut front = visit.frame[..12].to_vec();
    front.extend(inner.ethertype().to_be_bytes());
    visit.replace_front(inside, &front, inner.len);
    if ecn != inner.tos & 3 {
        set_ecn(&mut visit.frame[front.len()..], ecn);
        visit.note(Row::B06, format!("the inner ECN becomes {ecn}"));
    }
    visit.context.direction = direction::DOWNLINK;
    visit.context.customer = tunnel.customer;
    visit.context.session = NO_SESSION;
    visit.context.tunnel = tunnel.tunnel;
    visit.context.inner_len = inner.len as u16;
    visit.context.outer_tos = tos;
    let why = format!(
        "from {} to {} is tunnel {} of customer {}: decapsulated, {} octets are inside",
        v4(key.remote),
        v4(key.local),
        tunnel.tunnel,
        tunnel.customer,
        inner.len
    );
    visit.pass(Row::R01, why)
}

fn quoted_at(quoted: &[u8; ipv4::LEN], at: usize) -> [u8; 4] {
    [0, 1, 2, 3].map(|i| quoted[at + i])
}

fn within(address: Ipv4, prefix: Ipv4, len: u8) -> bool {
    let differ = u32::from_be_bytes(address.octets) ^ u32::from_be_bytes(prefix.octets);
    len != 0 && differ >> (32 - u32::from(len.min(32))) == 0
}

fn within6(address: Ipv6Addr, inside: &Inside6) -> bool {
    let differ = address.to_bits() ^ u128::from_be_bytes(inside.prefix.octets);
    (1..=128).contains(&inside.len) && differ.leading_zeros() >= u32::from(inside.len)
}

fn v4(address: Ipv4) -> Ipv4Addr {
    address.octets.into()
}
