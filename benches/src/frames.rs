//! The packets that the data path is measured with, all of one session; the harness draws the session anew for each run.

use std::net::Ipv4Addr;

use xdpchain_abi::{Be32, DENSE_BITS, GTPU_PORT, Ipv6};
use xdpchain_tests::plan::{self, NODE_CLOUD, NODE_RAN, QFI, RAN, SERVER, abi, mac};
use xdpchain_wire::ethernet::{self, ethertype};
use xdpchain_wire::{gre, gtpu, ipv4, ipv6, protocol, udp};

/// TEID of session 0; as in harness.c and floor.c. Its lower bits are 0, so those of a session are the session's number.
pub const TEID_BASE: u32 = 1 << DENSE_BITS;
/// Inner IPv4 address of session 0, and octets 4 to 7 of its IPv6 prefix; as in harness.c. Ten million from here on, none of
/// them the node's own.
pub const ADDRESS_BASE: u32 = 0x0b00_0000;
/// Whom packets are for that the access list denies.
pub const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The key of tunnels that have one.
pub const KEY: Be32 = Be32::new(0x0102_0304);

/// What an uplink packet has behind the first eight octets of GTP-U.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gtp {
    /// Nothing.
    Plain,
    /// A sequence number.
    Sequence,
    /// A PDU Session Container.
    Container,
}

/// A frame, and where the harness puts what makes it a session's.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The whole frame.
    pub octets: Vec<u8>,
    /// Where the TEID is; 0 when there is none.
    pub teid_at: usize,
    /// Where the session's part of the inner address is; 0 when there is none.
    pub address_at: usize,
}

/// IPv6 prefix of a session, 64 bits.
pub fn prefix(session: u32) -> Ipv6 {
    let [a, b, c, d] = (ADDRESS_BASE + session).to_be_bytes();
    Ipv6 { octets: [0x20, 1, 0xd, 0xb8, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0] }
}

/// An uplink packet with `inside` octets of inner IPv4 packet.
pub fn uplink(gtp: Gtp, inside: usize) -> Frame {
    carried(gtp, &inner4(ADDRESS_BASE.into(), SERVER, inside), 12)
}

/// An uplink packet for an address that the access list denies.
pub fn denied(inside: usize) -> Frame {
    carried(Gtp::Plain, &inner4(ADDRESS_BASE.into(), DENIED, inside), 12)
}

/// An uplink packet with `inside` octets of inner IPv6 packet.
pub fn uplink6(inside: usize) -> Frame {
    let mut packet = vec![0; inside];
    let (mut source, mut destination) = (prefix(0), prefix(0));
    source.octets[15] = 1;
    destination.octets[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb9]);
    let header = ipv6::Repr {
        payload_len: (inside - ipv6::LEN) as u16,
        next_header: protocol::UDP,
        hop_limit: plan::TTL,
        source,
        destination,
        ..ipv6::Repr::default()
    };
    header.emit(packet.first_chunk_mut().expect("room for a header"));
    datagram(&mut packet[ipv6::LEN..]);
    carried(Gtp::Plain, &packet, 8 + 4)
}

/// A downlink packet with `inside` octets of inner IPv4 packet.
pub fn downlink(inside: usize) -> Frame {
    from_tunnel(None, inside)
}

/// The same out of a tunnel with [`KEY`].
pub fn downlink_keyed(inside: usize) -> Frame {
    from_tunnel(Some(KEY), inside)
}

fn from_tunnel(key: Option<Be32>, inside: usize) -> Frame {
    let inner = inner4(SERVER, ADDRESS_BASE.into(), inside);
    let gre = gre::Repr { protocol: ethertype::IPV4, key, ..gre::Repr::default() };
    let mut packet = vec![0; ipv4::LEN + gre::LEN + key.map_or(0, |key| key.octets.len())];
    let header = ipv4::Repr {
        total_len: (packet.len() + inside) as u16,
        dont_fragment: true,
        ttl: 64,
        protocol: protocol::GRE,
        source: abi(plan::gateway(1)),
        destination: abi(NODE_CLOUD),
        ..ipv4::Repr::default()
    };
    header.emit(packet.first_chunk_mut().expect("room for a header"));
    gre.emit(&mut packet[..], ipv4::LEN).expect("room for a header");
    let address_at = ethernet::LEN + packet.len() + 16;
    packet.extend(inner);
    let octets = plan::frame(mac(NODE_CLOUD), mac(plan::CLOUD), ethertype::IPV4, &packet);
    Frame { octets, teid_at: 0, address_at }
}

/// A packet to somebody else: not GTP-U, not GRE.
pub fn not_ours(len: usize) -> Frame {
    let packet = inner4(RAN, SERVER, len);
    Frame {
        octets: plan::frame(mac(NODE_RAN), mac(RAN), ethertype::IPV4, &packet),
        teid_at: 0,
        address_at: 0,
    }
}

/// `frame` with a VLAN tag.
pub fn tagged(frame: &Frame) -> Frame {
    let mut octets = frame.octets.clone();
    let tag = [ethertype::VLAN.to_be_bytes(), 5u16.to_be_bytes()].concat();
    octets.splice(12..12, tag);
    let moved = |at: usize| if at == 0 { 0 } else { at + ethernet::TAG_LEN };
    Frame { octets, teid_at: moved(frame.teid_at), address_at: moved(frame.address_at) }
}

/// `inner` in GTP-U from the radio side, with the session's part of the address `address_at` octets into it.
fn carried(gtp: Gtp, inner: &[u8], address_at: usize) -> Frame {
    let mut message = vec![0; gtpu::LEN];
    let extra = match gtp {
        Gtp::Plain => 0,
        Gtp::Sequence => gtpu::OPTIONAL_LEN,
        Gtp::Container => gtpu::OPTIONAL_LEN + gtpu::PduSession::LEN,
    };
    let header = gtpu::Repr {
        extensions: gtp == Gtp::Container,
        sequence: gtp == Gtp::Sequence,
        message_type: gtpu::message::G_PDU,
        len: (extra + inner.len()) as u16,
        teid: Be32::new(TEID_BASE),
        ..gtpu::Repr::default()
    };
    header.emit(message.first_chunk_mut().expect("room for a header"));
    if gtp != Gtp::Plain {
        let mut optional = [0; gtpu::OPTIONAL_LEN];
        let next_extension = if gtp == Gtp::Container { gtpu::extension::PDU_SESSION } else { 0 };
        gtpu::Optional { sequence: 7, next_extension, ..Default::default() }.emit(&mut optional);
        message.extend(optional);
    }
    if gtp == Gtp::Container {
        let mut container = [0; gtpu::PduSession::LEN];
        gtpu::PduSession { pdu_type: gtpu::PduSession::UPLINK, qfi: QFI, next_extension: 0 }
            .emit(&mut container);
        message.extend(container);
    }
    let inner_at = ethernet::LEN + ipv4::LEN + udp::LEN + message.len();
    message.extend(inner);
    let mut packet = vec![0; ipv4::LEN + udp::LEN];
    let header = ipv4::Repr {
        total_len: (packet.len() + message.len()) as u16,
        ttl: 64,
        protocol: protocol::UDP,
        source: abi(RAN),
        destination: abi(NODE_RAN),
        ..ipv4::Repr::default()
    };
    header.emit(packet.first_chunk_mut().expect("room for a header"));
    let header = udp::Repr {
        source_port: GTPU_PORT,
        destination_port: GTPU_PORT,
        len: (udp::LEN + message.len()) as u16,
        checksum: 0,
    };
    header.emit(packet[ipv4::LEN..].first_chunk_mut().expect("room for a header"));
    packet.extend(message);
    let octets = plan::frame(mac(NODE_RAN), mac(RAN), ethertype::IPV4, &packet);
    Frame { octets, teid_at: ethernet::LEN + ipv4::LEN + udp::LEN + 4, address_at: inner_at + address_at }
}

/// An IPv4 packet of `len` octets, UDP.
fn inner4(source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    let header = ipv4::Repr {
        total_len: len as u16,
        ttl: plan::TTL,
        protocol: protocol::UDP,
        source: abi(source),
        destination: abi(destination),
        ..ipv4::Repr::default()
    };
    header.emit(packet.first_chunk_mut().expect("room for a header"));
    datagram(&mut packet[ipv4::LEN..]);
    packet
}

/// Fills in a UDP header without a checksum.
fn datagram(octets: &mut [u8]) {
    let header =
        udp::Repr { source_port: 40_000, destination_port: 7, len: octets.len() as u16, checksum: 0 };
    header.emit(octets.first_chunk_mut().expect("room for a header"));
}
