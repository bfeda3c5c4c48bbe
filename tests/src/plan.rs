//! The plan of the test network: addresses, tunnels, sessions, and the numbered packets that travel.
//!
//! ```text
//!   ran  ran0 10.10.0.2 ---- 10.10.0.1 n3  node  n6 10.20.0.1 ---- 10.20.0.2 cloud0  cloud
//! ```
//! The cloud has one gateway address for each customer, 10.20.0.10 plus its number. Session `s` belongs to customer
//! `1 + s % 3`, and the three customers have the same inner addresses. `bpf/far_end.c` holds the same numbers.

use std::net::Ipv4Addr;

use xdpchain_abi::{
    Be32, Customer, DownlinkKey, DownlinkSession, GreIngress, GreKey, GreTunnel, Ipv4, Ipv6, NO_SESSION,
    UplinkKey, UplinkSession, UserAddress, session_flags,
};
use xdpchain_wire::checksum::Sum;
use xdpchain_wire::ethernet::ethertype;
use xdpchain_wire::{gre, gtpu, ipv4, ipv6, protocol, udp};

/// The radio side's address, the peer of every session.
pub const RAN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
/// The node's address on the radio side, where GTP-U comes to.
pub const NODE_RAN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// The node's address on the cloud's side, the near end of every GRE tunnel.
pub const NODE_CLOUD: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// The cloud's own address.
pub const CLOUD: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
/// Whom every inner packet is for.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Customers, numbered from 1.
pub const CUSTOMERS: u32 = 3;
/// QoS flow of the sessions with an odd number; the others have none.
pub const QFI: u8 = 9;
/// TTL and hop limit of an inner packet when it is sent.
pub const TTL: u8 = 64;

const MAGIC: u32 = 0x7864_6331;
const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const UPLINK_TEID: u32 = 0x1000;
const DOWNLINK_TEID: u32 = 0x8000_0000;
/// Octets of the innermost payload: magic, number, session, customer, and some that say nothing.
const PAYLOAD: usize = 32;

/// `address` as the maps have it.
pub const fn abi(address: Ipv4Addr) -> Ipv4 {
    Ipv4 { octets: address.octets() }
}

/// The link-layer address of the interface with `address`.
pub const fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [2, 0, a, b, c, d]
}

/// [`mac`] as `ip` takes it.
pub fn mac_text(address: Ipv4Addr) -> String {
    mac(address).map(|octet| format!("{octet:02x}")).join(":")
}

/// The far end of a customer's GRE tunnel.
pub const fn gateway(customer: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, 10 + customer as u8)
}

/// One subscriber's session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its number, from 0.
    pub number: u32,
}

impl Session {
    /// Whose it is.
    pub const fn customer(self) -> u32 {
        1 + self.number % CUSTOMERS
    }

    const fn subscriber(self) -> u32 {
        1 + self.number / CUSTOMERS
    }

    /// Inner IPv4 address: 172.16.0.0 and up.
    pub fn address(self) -> Ipv4 {
        Ipv4 { octets: (0xac10_0000 + self.subscriber()).to_be_bytes() }
    }

    /// Inner IPv6 prefix of 64 bits.
    pub fn prefix(self) -> Ipv6 {
        let [a, b, c, d] = self.subscriber().to_be_bytes();
        Ipv6 { octets: [0x20, 1, 0xd, 0xb8, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0] }
    }

    const fn has_qfi(self) -> bool {
        self.number % 2 == 1
    }

    /// Entry of `gtp-decap`'s sessions.
    pub fn uplink(self) -> (UplinkKey, UplinkSession) {
        let key = UplinkKey { local: abi(NODE_RAN), teid: Be32::new(UPLINK_TEID + self.number) };
        let session = UplinkSession {
            customer: self.customer(),
            session: self.number,
            peer: abi(RAN),
            inner4: self.address(),
            inner6: self.prefix(),
            inner6_len: 64,
            ..UplinkSession::default()
        };
        assert_ne!(session.session, NO_SESSION);
        (key, session)
    }

    /// Entries of `gtp-encap`'s sessions: one for each family.
    pub fn downlink(self) -> [(DownlinkKey, DownlinkSession); 2] {
        let session = DownlinkSession {
            session: self.number,
            teid: Be32::new(DOWNLINK_TEID | self.number),
            peer: abi(RAN),
            local: abi(NODE_RAN),
            qfi: if self.has_qfi() { QFI } else { 0 },
            flags: if self.has_qfi() { session_flags::HAS_QFI } else { 0 },
            ..DownlinkSession::default()
        };
        [UserAddress::v4(self.address()), UserAddress::v6(self.prefix())]
            .map(|address| (DownlinkKey { customer: self.customer(), address }, session))
    }

    /// The inner IP packet number `number`: UDP from the subscriber to the server, every fourth one over IPv6.
    pub fn inner(self, number: u32) -> Vec<u8> {
        let mut datagram = vec![0; udp::LEN + PAYLOAD];
        let words = [MAGIC, number, self.number, self.customer()];
        for (to, word) in datagram[udp::LEN..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        let length = datagram.len() as u16;
        let mut header = udp::Repr {
            source_port: 40_000 + (self.number % 1000) as u16,
            destination_port: 7,
            len: length,
            checksum: 0,
        };
        let over6 = number % 4 == 3;
        let mut source6 = self.prefix();
        source6.octets[15] = 1;
        let destination6 = Ipv6 { octets: SERVER6 };
        let pseudo = if over6 {
            Sum::new().pseudo_ipv6(source6, destination6, protocol::UDP, length.into())
        } else {
            Sum::new().pseudo_ipv4(self.address(), abi(SERVER), protocol::UDP, length)
        };
        emit(&mut datagram, |octets| header.emit(octets));
        header.checksum = match !pseudo.slice(&datagram).folded() {
            0 => 0xffff,
            sum => sum,
        };
        emit(&mut datagram, |octets| header.emit(octets));

        let mut packet = if over6 { vec![0; ipv6::LEN] } else { vec![0; ipv4::LEN] };
        if over6 {
            let header = ipv6::Repr {
                payload_len: length,
                next_header: protocol::UDP,
                hop_limit: TTL,
                source: source6,
                destination: destination6,
                ..ipv6::Repr::default()
            };
            emit(&mut packet, |octets| header.emit(octets));
        } else {
            let header = ipv4::Repr {
                total_len: ipv4::LEN as u16 + length,
                id: number as u16,
                ttl: TTL,
                protocol: protocol::UDP,
                source: self.address(),
                destination: abi(SERVER),
                ..ipv4::Repr::default()
            };
            emit(&mut packet, |octets| header.emit(octets));
        }
        packet.extend(datagram);
        packet
    }

    /// The GTP-U message that carries inner packet `number`: what a UDP socket of the radio side sends. Sessions with a
    /// QoS flow have a PDU Session Container.
    pub fn gtpu(self, number: u32) -> Vec<u8> {
        let inner = self.inner(number);
        let extra = if self.has_qfi() { gtpu::OPTIONAL_LEN + gtpu::PduSession::LEN } else { 0 };
        let header = gtpu::Repr {
            extensions: self.has_qfi(),
            message_type: gtpu::message::G_PDU,
            len: (extra + inner.len()) as u16,
            teid: self.uplink().0.teid,
            ..gtpu::Repr::default()
        };
        let mut message = vec![0; gtpu::LEN];
        emit(&mut message, |octets| header.emit(octets));
        if self.has_qfi() {
            let mut optional = [0; gtpu::OPTIONAL_LEN];
            gtpu::Optional { next_extension: gtpu::extension::PDU_SESSION, ..Default::default() }
                .emit(&mut optional);
            message.extend(optional);
            let mut container = [0; gtpu::PduSession::LEN];
            gtpu::PduSession { pdu_type: gtpu::PduSession::UPLINK, qfi: QFI, next_extension: 0 }
                .emit(&mut container);
            message.extend(container);
        }
        message.extend(inner);
        message
    }

    /// The IP packet in which the node sends inner packet `number` on to the customer's gateway: one hop less to live,
    /// in plain GRE.
    pub fn gre(self, number: u32) -> Vec<u8> {
        let mut inner = self.inner(number);
        let ethertype = if inner[0] >> 4 == 4 {
            ipv4::decrement_ttl(inner.first_chunk_mut().expect("a header"));
            ethertype::IPV4
        } else {
            ipv6::decrement_hop_limit(inner.first_chunk_mut().expect("a header"));
            ethertype::IPV6
        };
        let header = ipv4::Repr {
            total_len: (ipv4::LEN + gre::LEN + inner.len()) as u16,
            dont_fragment: true,
            ttl: 64,
            protocol: protocol::GRE,
            source: abi(NODE_CLOUD),
            destination: abi(gateway(self.customer())),
            ..ipv4::Repr::default()
        };
        let mut packet = vec![0; ipv4::LEN + gre::LEN];
        emit(&mut packet, |octets| header.emit(octets));
        let written =
            gre::Repr { protocol: ethertype, ..gre::Repr::default() }.emit(&mut packet[..], ipv4::LEN);
        written.expect("there is room for the header");
        packet.extend(inner);
        packet
    }
}

/// An Ethernet frame.
pub fn frame(destination: [u8; 6], source: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &ethertype.to_be_bytes(), packet].concat()
}

/// Lets `write` fill the `N` octets that `packet` begins with.
fn emit<const N: usize>(packet: &mut [u8], write: impl FnOnce(&mut [u8; N])) {
    write(packet.first_chunk_mut().expect("the caller made room for the header"));
}

/// Entry of `gre-decap`'s tunnels for a customer's tunnel, whose number is the customer's.
pub fn ingress(customer: u32) -> (GreKey, GreIngress) {
    let key = GreKey { remote: abi(gateway(customer)), local: abi(NODE_CLOUD) };
    (key, GreIngress { customer, tunnel: customer, ..GreIngress::default() })
}

/// Entry of `gre-steer`'s tunnels for a customer's tunnel.
pub fn tunnel(customer: u32) -> (u32, GreTunnel) {
    (customer, GreTunnel { local: abi(NODE_CLOUD), remote: abi(gateway(customer)), ..GreTunnel::default() })
}

/// Entry of `gre-steer`'s customers.
pub fn customer(customer: u32) -> (u32, Customer) {
    (customer, Customer { tunnels: [customer, 0, 0, 0], count: 1 })
}

/// The node's chains.yaml: the whole data path on both interfaces, for `sessions` sessions.
pub fn chains_yaml(sessions: u32) -> String {
    let size = sessions.max(1) * 2;
    format!(
        "\
version: 1
modules:
  gtp-decap: {{ object: \"builtin:gtp-decap\", maps: {{ sessions: {{ max_entries: {size} }} }} }}
  gre-decap: {{ object: \"builtin:gre-decap\" }}
  acl: {{ object: \"builtin:acl\" }}
  gre-steer: {{ object: \"builtin:gre-steer\" }}
  gtp-encap:
    object: \"builtin:gtp-encap\"
    maps: {{ sessions: {{ max_entries: {size} }} }}
    imports: {{ tunnels: gre-steer/tunnels }}
  stats: {{ object: \"builtin:stats\", maps: {{ sessions: {{ max_entries: {size} }} }} }}
chains:
  edge:
    interfaces: [n3, n6]
    slots:
      - gtp-decap
      - gre-decap
      - acl
      - gre-steer
      - gtp-encap
      - stats: {{ at: exit }}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customers_have_the_same_addresses_and_no_two_sessions_the_same_key() {
        let sessions: Vec<_> = (0..999).map(|number| Session { number }).collect();
        for three in sessions.chunks(3) {
            assert!(three.iter().all(|s| s.address() == three[0].address()));
            assert_eq!(three.iter().map(|s| s.customer()).collect::<Vec<_>>(), [1, 2, 3]);
        }
        let keys: std::collections::HashSet<_> =
            sessions.iter().flat_map(|s| s.downlink()).map(|e| e.0).collect();
        assert_eq!(keys.len(), 2 * sessions.len());
    }

    #[test]
    fn inner_packets_have_right_lengths_and_checksums() {
        let session = Session { number: 7 };
        let four = session.inner(0);
        let header = ipv4::View(four.first_chunk().expect("a header"));
        assert!(header.checksum_is_right());
        assert_eq!(usize::from(header.total_len()), four.len());
        let six = session.inner(3);
        let header = ipv6::View(six.first_chunk().expect("a header"));
        assert_eq!(usize::from(header.payload_len()) + ipv6::LEN, six.len());
        let datagram = &six[ipv6::LEN..];
        let sum = Sum::new().pseudo_ipv6(header.source(), header.destination(), 17, datagram.len() as u32);
        assert_eq!(sum.slice(datagram).folded(), 0xffff);
    }
}
