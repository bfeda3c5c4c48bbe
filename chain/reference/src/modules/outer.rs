//! Outer headers that are written, and the step out of the machine.

use xdpchain_abi::{Ipv4, Ipv6, Reason};
use xdpchain_wire::ethernet::ethertype;
use xdpchain_wire::{flow, ipv4, ipv6, protocol, tcp};

use crate::chain::{Return, Visit};
use crate::{Hop, Query, Route, Row, Verdict};

use super::inner::{Inner, correct, take_hop, word};

/// A ones' complement checksum, octet pair by octet pair.
pub(crate) fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u64 =
        octets.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// The addresses of an outer packet.
#[derive(Clone, Copy)]
pub(super) enum Ends {
    V4 { source: Ipv4, destination: Ipv4 },
    V6 { source: Ipv6, destination: Ipv6 },
}

/// An outer IP header.
pub(super) struct Header {
    pub(super) ends: Ends,
    pub(super) protocol: u8,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// Identification of an IPv4 packet that may be fragmented; none sets DF.
    pub(super) id: Option<u16>,
}

impl Ends {
    /// Both, IPv4 as IPv4-mapped.
    pub(super) fn addresses(self) -> (Ipv6, Ipv6) {
        match self {
            Self::V4 { source, destination } => (Ipv6::mapped(source), Ipv6::mapped(destination)),
            Self::V6 { source, destination } => (source, destination),
        }
    }
}

impl Header {
    /// Octets of the header.
    pub(super) fn len(&self) -> usize {
        match self.ends {
            Ends::V4 { .. } => ipv4::LEN,
            Ends::V6 { .. } => ipv6::LEN,
        }
    }

    /// The header in front of `payload` octets.
    pub(super) fn octets(&self, payload: usize) -> Vec<u8> {
        match self.ends {
            Ends::V4 { source, destination } => {
                let mut octets = vec![0x45, self.tos];
                octets.extend(((ipv4::LEN + payload) as u16).to_be_bytes());
                octets.extend(self.id.unwrap_or(0).to_be_bytes());
                octets.extend(if self.id.is_none() { [0x40, 0] } else { [0, 0] });
                octets.extend([self.ttl, self.protocol, 0, 0]);
                octets.extend(source.octets);
                octets.extend(destination.octets);
                let sum = checksum(&octets);
                octets[10..12].copy_from_slice(&sum.to_be_bytes());
                octets
            }
            Ends::V6 { source, destination } => {
                let mut octets = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
                octets.extend((payload as u16).to_be_bytes());
                octets.extend([self.protocol, self.ttl]);
                octets.extend(source.octets);
                octets.extend(destination.octets);
                octets
            }
        }
    }

    pub(super) fn ethertype(&self) -> u16 {
        match self.ends {
            Ends::V4 { .. } => ethertype::IPV4,
            Ends::V6 { .. } => ethertype::IPV6,
        }
    }
}

/// The UDP checksum of a datagram, whose own checksum is 0, between two IPv6 addresses (RFC 8200, 8.1).
pub(super) fn udp_checksum(source: Ipv6, destination: Ipv6, datagram: &[u8]) -> u16 {
    let mut all = [source.octets, destination.octets].concat();
    all.extend((datagram.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, 17]);
    all.extend(datagram);
    match checksum(&all) {
        0 => 0xffff,
        sum => sum,
    }
}

/// An inner packet, ready for its outer headers.
pub(super) struct Parcel<'a> {
    /// Where the inner packet begins.
    pub(super) network: usize,
    pub(super) inner: &'a Inner,
    pub(super) header: Header,
    /// What stands between the outer IP header and the inner packet.
    pub(super) tunnel: &'a [u8],
    /// Whether `tunnel` begins with a UDP header whose checksum is to be computed.
    pub(super) udp_sum: bool,
    /// [`xdpchain_abi::EncapConfig::mss_clamp`].
    pub(super) mss_clamp: u16,
}

impl Parcel<'_> {
    /// Octets in front of the inner packet, without the frame's header.
    fn overhead(&self) -> usize {
        self.header.len() + self.tunnel.len()
    }
}

/// Where a parcel goes: what is known of the way out, and whether it is too big for that. Rows B09 and others.
pub(super) enum Way {
    Out(Hop),
    TooBig(Hop),
    Nowhere(Return),
}

/// Asks for the way.
pub(super) fn way(visit: &mut Visit<'_>, parcel: &Parcel<'_>) -> Way {
    let (source, destination) = parcel.header.ends.addresses();
    let total_len = parcel.overhead() + parcel.inner.len;
    match visit.network.route(&Query { source, destination, tos: parcel.header.tos, total_len }) {
        Route::Forward(hop) => Way::Out(hop),
        Route::TooBig(hop) => Way::TooBig(hop),
        Route::Unreachable => {
            let why = "the route to the far end says unreachable, prohibited or blackhole";
            Way::Nowhere(visit.drop(Row::B09, Reason::NoRoute, why))
        }
        Route::NotForwarded => {
            let why = "the kernel forwards nothing to the far end: no route, or an address of its own";
            Way::Nowhere(visit.drop(Row::B09, Reason::NotForwarded, why))
        }
    }
}

/// What would have fitted, said of a packet that is too big: the way out's octets without what is put in front.
pub(super) fn room(parcel: &Parcel<'_>, hop: &Hop) -> usize {
    hop.mtu.map_or(parcel.inner.len.saturating_sub(1), |mtu| mtu.saturating_sub(parcel.overhead()))
}

/// Puts the outer headers in front, and sends it. One that is too big is the kernel's to fragment.
pub(super) fn send(visit: &mut Visit<'_>, mut parcel: Parcel<'_>, hop: &Hop, too_big: bool) -> Return {
    let inner = parcel.inner;
    let mut front = visit.frame[..12].to_vec();
    if let Some((destination, source)) = hop.addresses.filter(|_| !too_big) {
        front[..6].copy_from_slice(&destination.0);
        front[6..].copy_from_slice(&source.0);
    }
    if too_big && inner.is_ipv4 {
        parcel.header.id = Some(fragment_id(&visit.frame[parcel.network..], parcel.network, inner));
    }
    let total_len = parcel.overhead() + inner.len;
    front.extend(parcel.header.ethertype().to_be_bytes());
    front.extend(parcel.header.octets(parcel.tunnel.len() + inner.len));
    front.extend(parcel.tunnel);
    if !visit.replace_front(parcel.network, &front, inner.len) {
        let why = format!(
            "{} octets are needed in front of the packet, there are {}",
            front.len() - parcel.network,
            visit.headroom
        );
        return visit.drop(Row::B08, Reason::Headroom, why);
    }
    if let Some(mss) = clamp(&mut visit.frame[front.len()..], inner, &parcel, hop) {
        visit.note(Row::B04, format!("the MSS is lowered to {mss}"));
    }
    take_hop(&mut visit.frame[front.len()..]);
    visit.note(Row::B01, format!("the inner packet had {} hops left and has one less", inner.hops));
    if parcel.udp_sum {
        let (source, destination) = parcel.header.ends.addresses();
        let at = front.len() - parcel.tunnel.len();
        let sum = udp_checksum(source, destination, &visit.frame[at..]);
        visit.frame[at + 6..][..2].copy_from_slice(&sum.to_be_bytes());
        visit.note(Row::D04, "UDP over IPv6 gets a checksum");
    }
    if too_big {
        let mtu = hop.mtu.map_or("less".to_owned(), |mtu| mtu.to_string());
        let why = format!(
            "the outer packet has {total_len} octets, the way out takes {mtu}: it is fragmented there"
        );
        return visit.punt(Row::B03, Reason::NeedsFragmentation, why);
    }
    if hop.addresses.is_none() {
        let why =
            "the next hop's link-layer address is not known: the kernel asks for it and sends the packet";
        return visit.punt(Row::B09, Reason::NoNeighbour, why);
    }
    Return { verdict: if hop.back { Verdict::Tx } else { Verdict::Redirect }, ends: false }
}

/// A number that both directions of the inner packet's flow share, 0 where the flow cannot be told. Which one is nobody's
/// promise; that of the programs is taken.
pub(super) fn entropy(visit: &Visit<'_>, network: usize, inner: &Inner) -> u32 {
    let end = network + inner.len;
    flow::symmetric_hash(&visit.frame[..end], inner.ethertype(), network).unwrap_or(0)
}

/// The identification of an outer packet around the IPv4 packet `octets`, which may be fragmented: not 0, and another for
/// the next one of the flow (RFC 6864, 5.3). The inner packet's, moved by what its flow is.
pub(super) fn fragment_id(octets: &[u8], _network: usize, inner: &Inner) -> u16 {
    let hash = flow::symmetric_hash(&octets[..inner.len], inner.ethertype(), 0).unwrap_or(0);
    (word(octets, 4) as u16).wrapping_add(hash as u16).max(1)
}

/// Lowers the MSS of a SYN to what fits: row B04. None when nothing is to be lowered.
fn clamp(octets: &mut [u8], inner: &Inner, parcel: &Parcel<'_>, hop: &Hop) -> Option<u16> {
    let (next, at, fragment) = match inner.is_ipv4 {
        true => (octets[9], usize::from(octets[0] & 0xf) * 4, word(octets, 6) & 0x3fff != 0),
        false => (octets[6], ipv6::LEN, false),
    };
    if parcel.mss_clamp == 0 || next != protocol::TCP || fragment || octets.len() < at + tcp::LEN {
        return None;
    }
    if octets[at + 13] & tcp::flags::SYN == 0 {
        return None;
    }
    let known = hop.addresses.and(hop.mtu).map(|mtu| mtu.saturating_sub(parcel.overhead()));
    let most = known.unwrap_or(usize::MAX).min(usize::from(parcel.mss_clamp));
    let headers = tcp::LEN + if inner.is_ipv4 { ipv4::LEN } else { ipv6::LEN };
    let limit = most.checked_sub(headers)? as u32;
    let end = (at + usize::from(octets[at + 12] >> 4) * 4).min(octets.len());
    let mut option = at + tcp::LEN;
    while option + 1 < end {
        let len = match octets[option] {
            0 => return None,
            1 => 1,
            _ => usize::from(octets[option + 1]),
        };
        if octets[option] != 1 && (len < 2 || option + len > end) {
            return None;
        }
        if octets[option] == 2 && len == 4 {
            if word(octets, option + 2) <= limit {
                return None;
            }
            // The words that the checksum is over begin at even octets of the segment; behind its end there are zeros.
            let pair = |octets: &[u8], i: usize| match octets.get(i + 1) {
                Some(_) => word(octets, i),
                None => u32::from(octets[i]) << 8,
            };
            let first = at + (option + 2 - at) / 2 * 2;
            let covered: Vec<(usize, u32)> =
                (first..option + 4).step_by(2).map(|i| (i, pair(octets, i))).collect();
            octets[option + 2..option + 4].copy_from_slice(&(limit as u16).to_be_bytes());
            for (i, old) in covered {
                let new = pair(octets, i);
                correct(octets, at + 16, old, new);
            }
            return Some(limit as u16);
        }
        option += len;
    }
    None
}

/// The outer TOS octet: ECN as inside, DSCP as inside unless it is fixed: row B07.
pub(super) fn outer_tos(inner: &Inner, dscp: Option<u8>) -> u8 {
    dscp.map_or(inner.tos, |dscp| dscp << 2 | inner.tos & 3)
}
