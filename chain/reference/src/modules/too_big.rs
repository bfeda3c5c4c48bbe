//! The answer to a packet that is too big: row B02.

use xdpchain_wire::{icmp, ipv4, ipv6, protocol};

use super::inner::{Inner, word};
use super::outer::checksum;
use crate::chain::Visit;

/// Octets of the packet that are quoted: so the answer fits every way.
const QUOTED: usize = 512;
/// TOS and traffic class: internetwork control (RFC 1812, 4.3.2.5).
const TOS: u8 = 0xc0;
const HOPS: u8 = 64;

/// The ICMP message about the inner packet at `network`, of which `mtu` octets would have fitted. Its source is whom the
/// packet was for. None when nobody is to be told: about ICMP errors, later fragments and packets of no single host
/// (RFC 1122, 3.2.2; RFC 4443, 2.4), and when the sender was told just before.
pub(super) fn answer(visit: &Visit<'_>, network: usize, inner: &Inner, mtu: usize) -> Option<Vec<u8>> {
    let octets = &visit.frame[network..network + inner.len];
    if visit.told || octets.len() < QUOTED {
        return None;
    }
    if inner.is_ipv4 {
        let source = &octets[12..16];
        let kind = octets.get(usize::from(octets[0] & 0xf) * 4).copied();
        let later = word(octets, 6) & 0x1fff != 0;
        let error = octets[9] == protocol::ICMP && kind.is_none_or(is_error);
        if later || error || matches!(source[0], 0 | 127 | 224..) {
            return None;
        }
        Some(answer4(octets, mtu))
    } else {
        let source = &octets[8..24];
        let error = octets[6] == protocol::ICMPV6 && octets.get(ipv6::LEN).is_none_or(|kind| *kind < 128);
        if error || source[0] == 0xff || source.iter().all(|octet| *octet == 0) {
            return None;
        }
        Some(answer6(octets, mtu.max(1280)))
    }
}

/// Whether an ICMP message is about another packet (RFC 1122, 3.2.2): what is unknown is taken for that.
fn is_error(kind: u8) -> bool {
    // Echo, router advertisement and solicitation, timestamp, information, address mask.
    ![0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(&kind)
}

fn answer4(octets: &[u8], mtu: usize) -> Vec<u8> {
    let mut message = vec![icmp::v4::UNREACHABLE, icmp::v4::FRAGMENTATION_NEEDED, 0, 0, 0, 0];
    message.extend((mtu as u16).to_be_bytes());
    message.extend(&octets[..QUOTED]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let len = (ipv4::LEN + message.len()) as u16;
    let mut answer = vec![0x45, TOS];
    answer.extend(len.to_be_bytes());
    answer.extend([0, 0, 0x40, 0, HOPS, protocol::ICMP, 0, 0]);
    answer.extend(&octets[16..20]);
    answer.extend(&octets[12..16]);
    let sum = checksum(&answer);
    answer[10..12].copy_from_slice(&sum.to_be_bytes());
    answer.extend(message);
    answer
}

fn answer6(octets: &[u8], mtu: usize) -> Vec<u8> {
    let mut message = vec![icmp::v6::TOO_BIG, 0, 0, 0];
    message.extend((mtu as u32).to_be_bytes());
    message.extend(&octets[..QUOTED]);
    let mut covered = [&octets[24..40], &octets[8..24]].concat();
    covered.extend((message.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol::ICMPV6]);
    covered.extend(&message);
    let sum = checksum(&covered);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut answer = vec![0x60 | TOS >> 4, TOS << 4, 0, 0];
    answer.extend((message.len() as u16).to_be_bytes());
    answer.extend([protocol::ICMPV6, HOPS]);
    answer.extend(&octets[24..40]);
    answer.extend(&octets[8..24]);
    answer.extend(message);
    answer
}
