//! What of a packet rules are compared with.
//!
//! As [`xdpchain_wire::flow::Flow`] says, read in another way: what is known of extension headers goes through scratch memory at once,
//! so that the verifier has one way from there on and not one for each order of headers.

use xdpchain_abi::{
    Ipv4, PacketContext,
    acl_tables::{fact, fixed, word},
    direction,
};
use xdpchain_kit::Packet;
use xdpchain_wire::{
    Octets as _,
    ethernet::{Link, ethertype},
    ipv4, ipv6, protocol,
};

use crate::scratch::{Scratch, load, store};

/// IPv4-mapped addresses begin with 64 zeros and this.
const MAPPED: u64 = 0xffff << 32;
/// A fragment, which has no ports that all of its parts show; not a fact of the key.
const FRAGMENT: u32 = 1 << 8;
/// Where an upper layer that has ports begins at most.
const MAX_UPPER: usize = 0x3fff;

/// Writes the key of the IP packet behind `link`. `None` when it ends within its headers, has more extension headers than
/// are walked, or is a later fragment whose upper layer only the first one tells.
#[inline(always)]
pub(crate) fn parse(
    packet: &Packet,
    link: Link,
    context: &PacketContext,
    scratch: &mut Scratch,
) -> Option<()> {
    let claimed = if context.direction != direction::NONE { fact::CLAIMED as u32 } else { 0 };
    let upper = if link.ethertype == ethertype::IPV4 {
        parse_ipv4(packet, link.network, claimed, scratch)?
    } else {
        parse_ipv6(packet, link.network, claimed, scratch)?
    };
    // Headers that say they end behind the frame: what is behind them is not there to be judged.
    let offset = upper.offset as usize;
    if offset > packet.len() {
        return None;
    }
    // One number to the verifier, whatever way it came by.
    let mut facts = packet.forget::<{ 2 * FRAGMENT as usize - 1 }>(upper.facts as usize) as u32;
    let mut ports = 0;
    let has_ports = matches!(upper.protocol as u8, protocol::TCP | protocol::UDP | protocol::SCTP);
    if has_ports && facts & FRAGMENT == 0 {
        if offset > MAX_UPPER {
            return None;
        }
        let octets: &[u8; 4] = packet.at(packet.forget::<MAX_UPPER>(offset))?;
        ports = u32::from_be_bytes(*octets);
        facts |= fact::PORTS as u32;
    }
    store(&mut scratch.key[word::PORTS], ports as u64);
    let facts = (facts & !FRAGMENT) as u64;
    let fixed = fixed(context.customer, upper.protocol as u8, context.direction, facts);
    store(&mut scratch.key[word::FIXED], fixed);
    Some(())
}

/// What is behind the IP headers.
struct Upper {
    offset: u32,
    protocol: u32,
    /// Bits of [`fact`], and [`FRAGMENT`].
    facts: u32,
}

#[inline(always)]
fn parse_ipv4(packet: &Packet, offset: usize, claimed: u32, scratch: &mut Scratch) -> Option<Upper> {
    let header: &[u8; ipv4::LEN] = packet.at(offset)?;
    let view = ipv4::View(header);
    if view.version() != 4 || view.header_len() < ipv4::LEN {
        return None;
    }
    let mut facts = claimed | fact::IPV4 as u32;
    if view.is_fragment() {
        facts |= FRAGMENT;
    }
    store_addresses4(view, scratch);
    Some(Upper { offset: (offset + view.header_len()) as u32, protocol: view.protocol() as u32, facts })
}

/// The lower half of an IPv4-mapped address.
#[inline(always)]
pub(crate) fn mapped(address: Ipv4) -> u64 {
    MAPPED | u32::from_be_bytes(address.octets) as u64
}

#[inline(always)]
fn parse_ipv6(packet: &Packet, offset: usize, claimed: u32, scratch: &mut Scratch) -> Option<Upper> {
    let header: &[u8; ipv6::LEN] = packet.at(offset)?;
    let view = ipv6::View(header);
    if view.version() != 6 {
        return None;
    }
    store(&mut scratch.protocol, view.next_header() as u32);
    store(&mut scratch.offset, (offset + ipv6::LEN) as u32);
    store(&mut scratch.facts, claimed);
    store_addresses6(view, scratch);
    for _ in 0..ipv6::MAX_EXTENSIONS {
        let protocol = load(&scratch.protocol);
        if !is_extension(protocol) {
            break;
        }
        let offset = load(&scratch.offset);
        // No extension header is shorter.
        let header: &[u8; 8] = packet.at(offset as usize)?;
        store(&mut scratch.protocol, header[0] as u32);
        if protocol == protocol::FRAGMENT as u32 {
            // An atomic fragment (offset 0, no more to come) is a whole packet (RFC 6946).
            let place = u16::from_be_bytes([header[2], header[3]]);
            if place & 0xfff9 != 0 {
                let facts = load(&scratch.facts) | FRAGMENT;
                store(&mut scratch.facts, facts);
            }
            if place & 0xfff8 != 0 {
                break;
            }
            store(&mut scratch.offset, offset + 8);
        } else {
            // RFC 4302, 2.2: the one length in units of 4 octets.
            let octets = match protocol == protocol::AUTHENTICATION as u32 {
                true => (header[1] as u32 + 2) * 4,
                false => (header[1] as u32 + 1) * 8,
            };
            store(&mut scratch.offset, offset + octets);
        }
    }
    let (offset, protocol, facts) = (load(&scratch.offset), load(&scratch.protocol), load(&scratch.facts));
    (!is_extension(protocol)).then_some(Upper { offset, protocol, facts })
}

/// Writes the addresses of an IPv4 packet.
#[inline(always)]
pub(crate) fn store_addresses4(ip: ipv4::View<'_>, scratch: &mut Scratch) {
    store(&mut scratch.key[word::SRC], 0);
    store(&mut scratch.key[word::SRC_LOW], mapped(ip.source()));
    store(&mut scratch.key[word::DST], 0);
    store(&mut scratch.key[word::DST_LOW], mapped(ip.destination()));
}

/// Writes the addresses of an IPv6 packet.
#[inline(always)]
pub(crate) fn store_addresses6(ip: ipv6::View<'_>, scratch: &mut Scratch) {
    store(&mut scratch.key[word::SRC], half(ip, 8));
    store(&mut scratch.key[word::SRC_LOW], half(ip, 16));
    store(&mut scratch.key[word::DST], half(ip, 24));
    store(&mut scratch.key[word::DST_LOW], half(ip, 32));
}

/// The half of an address at octet `at` of an IPv6 header.
#[inline(always)]
pub(crate) fn half(ip: ipv6::View<'_>, at: usize) -> u64 {
    let mut octets = [0; 8];
    octets.copy_from_slice(&ip.0[at..at + 8]);
    u64::from_be_bytes(octets)
}

/// Whether an extension header of this number is walked over.
#[inline(always)]
fn is_extension(protocol: u32) -> bool {
    const ALL: u64 = 1 << protocol::HOP_BY_HOP
        | 1 << protocol::ROUTING
        | 1 << protocol::FRAGMENT
        | 1 << protocol::AUTHENTICATION
        | 1 << protocol::DESTINATION_OPTIONS;
    protocol < 64 && ALL >> protocol & 1 != 0
}
