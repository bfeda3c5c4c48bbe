//! Where IPv6 addresses belong.

use xdpchain_abi::Ipv6;

/// Whether an IPv6 address that begins with these two octets is within fe80::/10 (RFC 4291, 2.4).
#[inline(always)]
pub fn is_link_local(first: u8, second: u8) -> bool {
    first == 0xfe && second & 0xc0 == 0x80
}

/// Whether `address` is within a prefix of `len` bits, of which 0 stands for none.
#[inline(always)]
pub fn is_within6(address: Ipv6, prefix: Ipv6, len: u8) -> bool {
    let differs = u128::from_be_bytes(address.octets) ^ u128::from_be_bytes(prefix.octets);
    let (high, low) = ((differs >> 64) as u64, differs as u64);
    match len {
        1..=64 => high >> (64 - len) == 0,
        65..=128 => high == 0 && low >> (128 - len) == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_of_a_prefix_counts_its_bits() {
        let prefix = Ipv6 { octets: [0xa5; 16] };
        for len in 1..=128 {
            for bit in 0..128 {
                let mut address = prefix;
                address.octets[bit / 8] ^= 0x80 >> (bit % 8);
                assert_eq!(is_within6(address, prefix, len), bit >= usize::from(len), "bit {bit} of /{len}");
            }
            assert!(is_within6(prefix, prefix, len));
        }
        assert!(!is_within6(prefix, prefix, 0) && !is_within6(prefix, prefix, 129));
    }
}
