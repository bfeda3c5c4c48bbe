//! GTP-U in: rows G01 to G36.

use std::net::{Ipv4Addr, Ipv6Addr};

use xdpchain_abi::{
    FILTER_RULES, FilterKey, Ipv4, Ipv6, Reason, UplinkKey, UplinkSession, direction, endpoint_flags,
    peer_flags, session_flags, tags,
};
use xdpchain_wire::ethernet::{self, Link, ethertype};
use xdpchain_wire::gtpu::{self, extension, message};
use xdpchain_wire::{Octets as _, icmp, ipv4, ipv6, protocol, udp};

use super::inner::{Inner, correct, ecn_inside, quoted4, set_ecn, word};
use super::outer::{checksum, udp_checksum};
use crate::chain::{Return, Visit};
use crate::{Row, Verdict};

const PORT: u16 = xdpchain_abi::GTPU_PORT;
/// TTL and hop limit of answers.
const HOPS: u8 = 64;

/// What may stand between an outer IPv6 header and UDP.
const EXTENSIONS: [u8; 5] = [
    protocol::HOP_BY_HOP,
    protocol::ROUTING,
    protocol::FRAGMENT,
    protocol::AUTHENTICATION,
    protocol::DESTINATION_OPTIONS,
];

/// A datagram to the GTP-U port of an address of ours.
struct Datagram {
    /// Where the outer IP header begins, and the UDP header.
    network: usize,
    udp: usize,
    /// Octets of the frame up to the end of the datagram.
    end: usize,
    /// What sessions call our address and the sender's.
    local: Ipv4,
    peer: Ipv4,
    tos: u8,
    /// Any of [`endpoint_flags`].
    flags: u32,
    /// Whether its UDP checksum is right, or it has none.
    checksum_is_right: bool,
}

pub(super) fn run(visit: &mut Visit<'_>) -> Return {
    if visit.context.direction != direction::NONE {
        return visit.pass(Row::G32, "the packet has left a tunnel already: what is in it is its user's");
    }
    let Some(link) = Link::parse(&visit.frame[..]) else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within its Ethernet header");
    };
    match link.ethertype {
        ethertype::IPV4 => outer4(visit, link),
        ethertype::IPV6 => outer6(visit, link),
        other => visit.pass(Row::B11, format!("EtherType {other:#06x} is not looked into")),
    }
}

fn outer4(visit: &mut Visit<'_>, link: Link) -> Return {
    let network = link.network;
    let Some(header) = visit.frame[..].at::<{ ipv4::LEN }>(network).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the outer IPv4 header");
    };
    let ip = ipv4::View(&header);
    if ip.version() != 4 || ip.header_len() < ipv4::LEN {
        return visit.pass(Row::B11, "the outer header is none of IPv4");
    }
    let endpoint = visit.tables.endpoints.get(&ip.destination()).copied();
    let at = network + ip.header_len();
    if endpoint.is_some()
        && ip.protocol() == protocol::ICMP
        && !ip.is_fragment()
        && let Some(quoted) = quoted4(&visit.frame[network..])
        && quoted[9] == protocol::UDP
        && quoted[12..16] == ip.destination().octets
    {
        let upper = at + 8 + usize::from(quoted[0] & 0xf) * 4;
        if visit.frame.len() >= upper + udp::LEN && word(&visit.frame, upper + 2) == u32::from(PORT) {
            let why = "a router on the way says that GTP-U of ours is too big";
            return visit.punt(Row::B05, Reason::OuterPmtu, why);
        }
    }
    if ip.protocol() != protocol::UDP {
        return visit.pass(Row::G32, format!("protocol {} is not UDP", ip.protocol()));
    }
    if ip.is_fragment() {
        if endpoint.is_none() {
            return visit.pass(Row::G32, format!("{} is no endpoint of ours", v4(ip.destination())));
        }
        let row = if ip.fragment_offset() == 0 { Row::G18 } else { Row::G19 };
        return visit.punt(row, Reason::Fragment, "the outer packet is a fragment, whose ports are not read");
    }
    let Some(ports) = visit.frame[..].at::<{ udp::LEN }>(at).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the UDP header");
    };
    let ports = udp::View(&ports);
    if ports.destination_port() != PORT {
        return visit.pass(Row::G32, format!("port {} is not GTP-U's", ports.destination_port()));
    }
    let Some(endpoint) = endpoint else {
        return visit.pass(Row::G32, format!("{} is no endpoint of ours", v4(ip.destination())));
    };
    if ip.header_len() > ipv4::LEN {
        visit.note(
            Row::G17,
            format!("the outer header has {} octets of options", ip.header_len() - ipv4::LEN),
        );
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
    let len = usize::from(ports.len());
    if at + len != end || len < udp::LEN + gtpu::LEN {
        let why = format!(
            "the UDP length is {len}, where {} octets are left and a message has at least 16",
            end.saturating_sub(at)
        );
        return visit.drop(Row::G13, Reason::UdpLength, why);
    }
    if ports.checksum() == 0 {
        visit.note(Row::G14, "the sender computed no UDP checksum, which it need not");
    }
    let datagram = Datagram {
        network,
        udp: at,
        end,
        local: ip.destination(),
        peer: ip.source(),
        tos: ip.tos(),
        flags: endpoint.flags,
        checksum_is_right: ports.checksum() == 0 || is_right(&header[12..], &visit.frame[at..end]),
    };
    message(visit, link, &datagram)
}

fn outer6(visit: &mut Visit<'_>, link: Link) -> Return {
    let network = link.network;
    let Some(header) = visit.frame[..].at::<{ ipv6::LEN }>(network).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the outer IPv6 header");
    };
    let ip = ipv6::View(&header);
    if ip.version() != 6 {
        return visit.pass(Row::B11, "the outer header is none of IPv6");
    }
    let endpoint = visit.tables.endpoints6.get(&ip.destination()).copied();
    let elsewhere = format!("{} is no endpoint of ours", v6(ip.destination()));
    let at = network + ipv6::LEN;
    if ip.next_header() != protocol::UDP {
        if endpoint.is_none() {
            return visit.pass(Row::G32, elsewhere);
        }
        if EXTENSIONS.contains(&ip.next_header()) {
            let why = "the outer IPv6 header is followed by an extension header, which is not walked";
            return visit.punt(Row::G20, Reason::Ipv6Extension, why);
        }
        if ip.next_header() == protocol::ICMPV6
            && let Some(quoted) = visit.frame.get(at + 8..at + 8 + ipv6::LEN + udp::LEN)
            && visit.frame[at] == icmp::v6::TOO_BIG
            && quoted[0] >> 4 == 6
            && quoted[6] == protocol::UDP
            && quoted[8..24] == ip.destination().octets
            && word(quoted, ipv6::LEN + 2) == u32::from(PORT)
        {
            let why = "a router on the way says that GTP-U of ours is too big";
            return visit.punt(Row::B05, Reason::OuterPmtu, why);
        }
        return visit.pass(Row::G32, format!("protocol {} is not UDP", ip.next_header()));
    }
    let Some(ports) = visit.frame[..].at::<{ udp::LEN }>(at).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the UDP header");
    };
    let ports = udp::View(&ports);
    if ports.destination_port() != PORT {
        return visit.pass(Row::G32, format!("port {} is not GTP-U's", ports.destination_port()));
    }
    let Some(endpoint) = endpoint else { return visit.pass(Row::G32, elsewhere) };
    let peer = visit.tables.peers6.get(&ip.source()).copied().unwrap_or_default();
    if ports.checksum() == 0 && peer.flags & peer_flags::ZERO_CHECKSUM == 0 {
        let why = format!("UDP over IPv6 without a checksum, which {} may not send", v6(ip.source()));
        return visit.drop(Row::G16, Reason::UdpChecksum, why);
    }
    let end = at + usize::from(ip.payload_len());
    if end > visit.frame.len() {
        let why = format!(
            "the outer packet says {} octets, the frame has {}",
            end - network,
            visit.frame.len() - network
        );
        return visit.drop(Row::B12, Reason::Truncated, why);
    }
    let len = usize::from(ports.len());
    if at + len != end || len < udp::LEN + gtpu::LEN {
        let why = format!("the UDP length is {len}, where {} octets are left and a message has 16", end - at);
        return visit.drop(Row::G13, Reason::UdpLength, why);
    }
    visit.note(Row::G34, "the outer header is IPv6");
    let datagram = Datagram {
        network,
        udp: at,
        end,
        local: endpoint.alias,
        peer: peer.alias,
        tos: ip.traffic_class(),
        flags: endpoint.flags,
        checksum_is_right: ports.checksum() == 0 || is_right(&header[8..], &visit.frame[at..end]),
    };
    message(visit, link, &datagram)
}

/// Whether the checksum of a UDP datagram between two addresses is right: row G15.
fn is_right(ends: &[u8], datagram: &[u8]) -> bool {
    let mut all = ends.to_vec();
    all.extend([0, protocol::UDP]);
    all.extend((datagram.len() as u16).to_be_bytes());
    all.extend(datagram);
    checksum(&all) == 0
}

/// The GTP-U message of a datagram.
fn message(visit: &mut Visit<'_>, link: Link, datagram: &Datagram) -> Return {
    let at = datagram.udp + udp::LEN;
    let Some(header) = visit.frame[..].at::<{ gtpu::LEN }>(at).copied() else {
        return visit.drop(Row::B12, Reason::Truncated, "the frame ends within the GTP-U header");
    };
    let gtp = gtpu::View(&header);
    if gtp.version() != 1 {
        return visit.punt(Row::G09, Reason::GtpVersion, format!("GTP version {} is not 1", gtp.version()));
    }
    if gtp.is_gtp_prime() {
        return visit.punt(Row::G10, Reason::GtpPrime, "PT is 0: GTP', the charging protocol");
    }
    let end = at + gtpu::LEN + usize::from(gtp.len());
    if end > datagram.end {
        let why = format!(
            "the GTP length is {}, the datagram has room for {}",
            gtp.len(),
            datagram.end - at - gtpu::LEN
        );
        return visit.drop(Row::G11, Reason::GtpLength, why);
    }
    match gtp.message_type() {
        message::G_PDU => t_pdu(visit, link, datagram, gtp, end),
        message::ECHO_REQUEST if datagram.flags & endpoint_flags::NO_ECHO != 0 => {
            visit.punt(Row::G30, Reason::GtpSignalling, "the endpoint leaves Echo Requests to the kernel")
        }
        message::ECHO_REQUEST
            if datagram.flags & endpoint_flags::VERIFY_UDP_CHECKSUM != 0 && !datagram.checksum_is_right =>
        {
            visit.drop(Row::G15, Reason::UdpChecksum, "the UDP checksum is wrong")
        }
        message::ECHO_REQUEST => echo(visit, datagram, gtp, end),
        message::END_MARKER => visit.punt(Row::G28, Reason::EndMarker, "an End Marker"),
        message::ERROR_INDICATION => visit.punt(Row::G29, Reason::ErrorIndication, "an Error Indication"),
        other => {
            visit.punt(Row::G31, Reason::GtpSignalling, format!("message type {other} is the slow path's"))
        }
    }
}

/// A G-PDU whose message ends before `end`.
fn t_pdu(visit: &mut Visit<'_>, link: Link, datagram: &Datagram, gtp: gtpu::View<'_>, end: usize) -> Return {
    let teid = gtp.teid();
    if teid.value() == 0 {
        return visit.drop(Row::G26, Reason::TeidZero, "a G-PDU with TEID 0");
    }
    let key = UplinkKey { local: datagram.local, teid };
    let Some(session) = visit.tables.session(key) else {
        let why = format!("no session has TEID {:#x} at {}", teid.value(), v4(datagram.local));
        return visit.punt(Row::G24, Reason::UnknownTeid, why);
    };
    if session.flags & session_flags::VERIFY_UDP_CHECKSUM != 0 && !datagram.checksum_is_right {
        return visit.drop(Row::G15, Reason::UdpChecksum, "the UDP checksum is wrong");
    }
    let (payload, qfi) = match headers(visit, datagram, gtp, end) {
        Ok(found) => found,
        Err(returned) => return returned,
    };
    let mut moved = None;
    if session.peer != datagram.peer {
        let why =
            format!("the packet is from {}, the session's peer is {}", v4(datagram.peer), v4(session.peer));
        if session.flags & session_flags::STRICT_PEER != 0 {
            return visit.drop(Row::G27, Reason::PeerStrict, why);
        }
        moved = Some(why);
    }
    let inner = match Inner::parse(&visit.frame[payload..end]) {
        Ok(inner) => inner,
        Err(why) => return visit.drop(Row::G21, Reason::InnerMalformed, why),
    };
    if inner.is_for_link() {
        let why = "the inner IPv6 packet is from or to its link alone";
        return visit.punt(Row::G23, Reason::InnerLinkLocal, why);
    }
    if !is_of(&session, &inner) {
        let why = "the inner source is none of the session's addresses";
        return visit.drop(Row::G22, Reason::SpoofedSource, why);
    }
    if !may_go(visit, &session, &inner, payload) {
        let why = format!("no rule of filter {} lets it through", session.filter);
        return visit.drop(Row::G25, Reason::Filtered, why);
    }
    if inner.hops <= 1 {
        let why = format!("the inner packet has {} hops left", inner.hops);
        return visit.punt(Row::B01, Reason::TtlExpired, why);
    }
    let Some(ecn) = ecn_inside(datagram.tos, inner.tos) else {
        return visit.drop(Row::B06, Reason::Ecn, "congestion was met, which the inner packet cannot tell");
    };
    if let Some(why) = moved {
        visit.remark(Row::G27, Reason::PeerMoved, why);
    }
    let row = match (gtp.has_optional(), gtp.has_extensions()) {
        (false, _) => Row::G01,
        (true, false) => Row::G02,
        (true, true) if payload == datagram.udp + udp::LEN + gtpu::LEN + gtpu::OPTIONAL_LEN => Row::G03,
        (true, true) => Row::G04,
    };
    if !inner.is_ipv4 {
        visit.note(Row::G35, "an IPv6 packet is inside");
    }
    if payload + inner.len < visit.frame.len() {
        let octets = visit.frame.len() - payload - inner.len;
        visit.note(Row::G12, format!("{octets} octets behind the inner packet are cut off"));
    }
    let mut front = visit.frame[..12].to_vec();
    match session.tags {
        tags::KEEP => front.extend(&visit.frame[12..link.network - 2]),
        tags::SET => {
            front.extend(ethertype::VLAN.to_be_bytes());
            front.extend((session.vlan & 0x0fff).to_be_bytes());
        }
        _ => {}
    }
    if link.network > ethernet::LEN {
        visit.note(Row::G33, "the frame has VLAN tags, which the session's policy treats");
    }
    front.extend(inner.ethertype().to_be_bytes());
    visit.replace_front(payload, &front, inner.len);
    if ecn != inner.tos & 3 {
        set_ecn(&mut visit.frame[front.len()..], ecn);
        visit.note(Row::B06, format!("the inner ECN becomes {ecn}"));
    }
    visit.context.direction = direction::UPLINK;
    visit.context.customer = session.customer;
    visit.context.session = session.session;
    visit.context.inner_len = inner.len as u16;
    visit.context.outer_tos = datagram.tos;
    if let Some(qfi) = qfi {
        (visit.context.has_qfi, visit.context.qfi) = (1, qfi);
    }
    let why = format!(
        "TEID {:#x} at {} is session {} of customer {}: decapsulated, {} octets are inside",
        teid.value(),
        v4(datagram.local),
        session.session,
        session.customer,
        inner.len
    );
    visit.pass(row, why)
}

/// Where the T-PDU begins, and the QFI of a PDU Session Container: rows G02 to G07.
fn headers(
    visit: &mut Visit<'_>,
    datagram: &Datagram,
    gtp: gtpu::View<'_>,
    end: usize,
) -> Result<(usize, Option<u8>), Return> {
    let mut at = datagram.udp + udp::LEN + gtpu::LEN;
    if !gtp.has_optional() {
        return Ok((at, None));
    }
    if at + gtpu::OPTIONAL_LEN > end {
        let why = "the GTP length ends within the optional fields";
        return Err(visit.drop(Row::G11, Reason::GtpLength, why));
    }
    let mut kind = visit.frame[at + 3];
    at += gtpu::OPTIONAL_LEN;
    let mut qfi = None;
    if !gtp.has_extensions() {
        return Ok((at, None));
    }
    for _ in 0..gtpu::MAX_EXTENSIONS {
        if kind == extension::NONE {
            return Ok((at, qfi));
        }
        if at + 4 > end {
            let why = format!("extension header {kind:#04x} is announced and does not fit the GTP length");
            return Err(visit.drop(Row::G05, Reason::BadExtension, why));
        }
        let len = usize::from(visit.frame[at]) * 4;
        if len == 0 || at + len > end {
            let why = format!("extension header {kind:#04x} has {len} octets, {} are left", end - at);
            return Err(visit.drop(Row::G05, Reason::BadExtension, why));
        }
        let known =
            [extension::PDU_SESSION, extension::PDCP_NUMBER, extension::LONG_PDCP_NUMBER].contains(&kind);
        if kind & extension::COMPREHENSION_REQUIRED != 0 && !known {
            let why = format!("extension header {kind:#04x} has to be understood and is not");
            return Err(visit.punt(Row::G07, Reason::ExtensionNotSupported, why));
        }
        if kind == extension::PDU_SESSION {
            qfi = Some(visit.frame[at + 2] & 0x3f);
        }
        let row = if known { Row::G04 } else { Row::G06 };
        visit.note(row, format!("extension header {kind:#04x}, {len} octets"));
        kind = visit.frame[at + len - 1];
        at += len;
    }
    if kind == extension::NONE {
        return Ok((at, qfi));
    }
    Err(visit.drop(Row::G05, Reason::BadExtension, "there are more than eight extension headers"))
}

/// Whether the inner source is the session's: row G22.
fn is_of(session: &UplinkSession, inner: &Inner) -> bool {
    if inner.is_ipv4 {
        session.inner4.octets != [0; 4] && inner.source == Ipv6::mapped(session.inner4)
    } else {
        let bits = u32::from(session.inner6_len.min(128));
        let differ = u128::from_be_bytes(inner.source.octets) ^ u128::from_be_bytes(session.inner6.octets);
        bits != 0 && differ.checked_shr(128 - bits).unwrap_or(0) == 0
    }
}

/// Whether the session's filter lets the inner packet at `payload` through: row G25.
fn may_go(visit: &Visit<'_>, session: &UplinkSession, inner: &Inner, payload: usize) -> bool {
    if session.filter == 0 {
        return true;
    }
    let octets = &visit.frame[payload..payload + inner.len];
    let (next, upper, fragment) = match inner.is_ipv4 {
        true => (octets[9], usize::from(octets[0] & 0xf) * 4, word(octets, 6) & 0x3fff != 0),
        false => (octets[6], ipv6::LEN, false),
    };
    let has_port = [protocol::TCP, protocol::UDP, protocol::SCTP].contains(&next)
        && !fragment
        && octets.len() >= upper + 4;
    let port = has_port.then(|| word(octets, upper + 2) as u16);
    let rules = (0..FILTER_RULES)
        .map_while(|rule| visit.tables.filters.get(&FilterKey { filter: session.filter, rule }));
    rules.into_iter().any(|rule| {
        let differ = u128::from_be_bytes(inner.destination.octets) ^ u128::from_be_bytes(rule.dst.octets);
        let len = u32::from(rule.dst_len.min(128));
        let to = len == 0 || differ >> (128 - len) == 0;
        let by = rule.protocol == 0 || rule.protocol == next;
        let at = rule.dst_port == [0, 0]
            || port.is_some_and(|p| (rule.dst_port[0]..=rule.dst_port[1]).contains(&p));
        to && by && at
    })
}

/// The answer to an Echo Request: row G30.
fn echo(visit: &mut Visit<'_>, datagram: &Datagram, gtp: gtpu::View<'_>, end: usize) -> Return {
    let at = datagram.udp + udp::LEN + gtpu::LEN;
    if gtp.has_optional() && at + gtpu::OPTIONAL_LEN > end {
        visit.note(Row::G30, "an Echo Request");
        return visit.drop(Row::G11, Reason::GtpLength, "the GTP length ends within the optional fields");
    }
    let sequence = match gtp.has_sequence() {
        true => [visit.frame[at], visit.frame[at + 1]],
        false => [0; 2],
    };
    let mut answer = visit.frame[..datagram.udp + udp::LEN].to_vec();
    let swap = |octets: &mut [u8], at: usize, n: usize| {
        let (a, b) = octets[at..at + 2 * n].split_at_mut(n);
        a.swap_with_slice(b);
    };
    swap(&mut answer, 0, 6);
    let network = datagram.network;
    let message = [&[0x32, message::ECHO_RESPONSE, 0, 6, 0, 0, 0, 0][..], &sequence, &[0, 0, 14, 0]].concat();
    let len = udp::LEN + message.len();
    swap(&mut answer, datagram.udp, 2);
    put(&mut answer, datagram.udp + 4, len as u16);
    put(&mut answer, datagram.udp + 6, 0);
    if answer[network] >> 4 == 4 {
        swap(&mut answer, network + 12, 4);
        // A checksum that was wrong stays so: nobody has looked at it.
        for (at, new) in [
            (network + 2, (datagram.udp - network + len) as u16),
            (network + 8, u16::from_be_bytes([HOPS, protocol::UDP])),
        ] {
            let old = word(&answer, at);
            put(&mut answer, at, new);
            correct(&mut answer, network + 10, old, u32::from(new));
        }
    } else {
        swap(&mut answer, network + 8, 16);
        answer[network + 7] = HOPS;
        put(&mut answer, network + 4, len as u16);
        let address = |at: usize| Ipv6 { octets: std::array::from_fn(|i| answer[network + at + i]) };
        let (source, destination) = (address(8), address(24));
        let sum = udp_checksum(source, destination, &[&answer[datagram.udp..], &message].concat());
        put(&mut answer, datagram.udp + 6, sum);
    }
    answer.extend(message);
    visit.frame = answer;
    visit.note(Row::G30, "an Echo Request is answered where it came from, with its sequence number");
    Return { verdict: Verdict::Tx, ends: false }
}

fn put(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn v4(address: Ipv4) -> Ipv4Addr {
    address.octets.into()
}

fn v6(address: Ipv6) -> Ipv6Addr {
    address.octets.into()
}
