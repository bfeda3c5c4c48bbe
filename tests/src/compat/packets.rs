//! Packets for programs to judge: short and long, of the usual protocols, broken, and of chance.

use xdpchain_wire::checksum::Sum;

/// Source and destination, and the type that follows.
fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn ipv4(protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0; header];
    packet[0] = 0x40 | (header / 4) as u8;
    packet[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, protocol]);
    packet[12..20].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 7]);
    packet[20..header].fill(1);
    let sum = Sum::new().slice(&packet).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    for host in [1, 2] {
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    packet.extend(payload);
    packet
}

fn udp(port: u16, octets: usize) -> Vec<u8> {
    let mut datagram = 40_000u16.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend((8 + octets as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend((0..octets).map(|i| i as u8));
    datagram
}

fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut segment = 40_001u16.to_be_bytes().to_vec();
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// Octets that look like chance and are always the same (xorshift).
fn noise(mut seed: u32, octets: usize) -> Vec<u8> {
    let step = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed as u8
    };
    std::iter::repeat_with(step).take(octets).collect()
}

/// Every packet, with what it is.
pub fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let join = |parts: &[Vec<u8>]| parts.concat();
    let icmp = [8, 0, 0, 0, 0, 1, 0, 1].to_vec();
    let mut arp = ethernet(0x0806);
    arp.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 198, 51, 100, 7]);
    arp.resize(60, 0);
    let mut fragment = join(&[ethernet(0x0800), ipv4(17, 0, &[7; 24])]);
    fragment[20..22].copy_from_slice(&[0x20, 0x10]);
    let tagged = |tag: u16, inner: u16| [tag.to_be_bytes(), inner.to_be_bytes()].concat();
    let gre = [&[0u8, 0, 8, 0][..], &ipv4(17, 0, &udp(53, 20))].concat();
    let udp4 = join(&[ethernet(0x0800), ipv4(17, 0, &udp(53, 18))]);
    let tcp4 = join(&[ethernet(0x0800), ipv4(6, 0, &tcp(80, 2))]);
    let udp6 = join(&[ethernet(0x86dd), ipv6(17, &udp(443, 30))]);
    vec![
        ("shortest", ethernet(0)),
        ("all ones", vec![0xff; 64]),
        ("IPv4, UDP", udp4.clone()),
        ("IPv4, TCP SYN", tcp4.clone()),
        ("IPv4, TCP ACK", join(&[ethernet(0x0800), ipv4(6, 0, &tcp(443, 16))])),
        ("IPv4, ICMP echo", join(&[ethernet(0x0800), ipv4(1, 0, &icmp)])),
        ("IPv4, options", join(&[ethernet(0x0800), ipv4(17, 12, &udp(5000, 9))])),
        ("IPv4, a later fragment", fragment),
        ("IPv4, cut in its header", udp4[..25].to_vec()),
        ("IPv4, UDP of 1500 octets", join(&[ethernet(0x0800), ipv4(17, 0, &udp(2152, 1472))])),
        ("IPv4, GRE", join(&[ethernet(0x0800), ipv4(47, 0, &gre)])),
        ("IPv6, UDP", udp6.clone()),
        ("IPv6, TCP", join(&[ethernet(0x86dd), ipv6(6, &tcp(22, 2))])),
        ("IPv6, hop-by-hop options", {
            let options = [&[17u8, 0, 1, 4, 0, 0, 0, 0][..], &udp(53, 12)].concat();
            join(&[ethernet(0x86dd), ipv6(0, &options)])
        }),
        ("VLAN, IPv4", join(&[ethernet(0x8100), tagged(7, 0x0800), ipv4(17, 0, &udp(53, 18))])),
        ("two VLANs, IPv6", {
            join(&[ethernet(0x88a8), tagged(8, 0x8100), tagged(9, 0x86dd), ipv6(6, &tcp(80, 2))])
        }),
        ("ARP", arp),
        ("noise of 15 octets", noise(1, 15)),
        ("noise of 61 octets", noise(2, 61)),
        ("noise of 333 octets", noise(3, 333)),
        ("noise of 1200 octets", noise(4, 1200)),
        ("IPv4, UDP again", udp4.clone()),
        ("IPv4, TCP SYN again", tcp4),
        ("IPv6, UDP again", udp6),
        ("IPv4, UDP a third time", udp4),
        ("noise of 3000 octets", noise(5, 3000)),
        ("several buffers", noise(6, 9000)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_packets_have_the_same_name() {
        let mut names: Vec<_> = packets().iter().map(|p| p.0).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
