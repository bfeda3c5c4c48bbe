//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Checksums are numbers in host order, as every other 16-bit field here. The sum is of octets as the machine has them in memory,
//! which makes no difference until it is told (RFC 1071, 2(B)), and saves turning each word.

use xdpchain_abi::{Ipv4, Ipv6};

use crate::bytes::take;

/// A ones' complement sum under way. Parts are added in any order, each starting at an even octet of the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Nothing added yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds one 16-bit number.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// Adds `octets`; their number must be even.
    #[inline(always)]
    #[must_use]
    pub const fn array<const N: usize>(self, octets: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2)) };
        let mut sum = self.0;
        let mut i = 0;
        while i + 4 <= N {
            sum += u32::from_ne_bytes(take(octets, i)) as u64;
            i += 4;
        }
        if i < N {
            sum += u16::from_ne_bytes(take(octets, i)) as u64;
        }
        Self(sum)
    }

    /// Adds `octets`; an odd last one counts as if a zero octet followed, so it must be the last part.
    #[must_use]
    pub fn slice(self, octets: &[u8]) -> Self {
        let (pairs, last) = octets.as_chunks::<2>();
        let sum = pairs.iter().fold(self, |sum, pair| sum.word(u16::from_be_bytes(*pair)));
        last.iter().fold(sum, |sum, octet| sum.word(u16::from_be_bytes([*octet, 0])))
    }

    /// Adds the pseudo-header of UDP and TCP over IPv4 (RFC 768, RFC 9293): `len` octets of `protocol`.
    #[inline(always)]
    #[must_use]
    pub const fn pseudo_ipv4(self, source: Ipv4, destination: Ipv4, protocol: u8, len: u16) -> Self {
        self.array(&source.octets).array(&destination.octets).word(protocol as u16).word(len)
    }

    /// Adds the pseudo-header of upper layers over IPv6 (RFC 8200, 8.1): `len` octets of `protocol`.
    #[inline(always)]
    #[must_use]
    pub const fn pseudo_ipv6(self, source: Ipv6, destination: Ipv6, protocol: u8, len: u32) -> Self {
        self.array(&source.octets)
            .array(&destination.octets)
            .word(protocol as u16)
            .word((len >> 16) as u16)
            .word(len as u16)
    }

    /// The sum in 16 bits, carries folded in. Over octets that include a right checksum it is `0xffff`.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        let mut sum = self.0;
        // A fixed number of folds instead of a loop, so that the verifier need not find its bound.
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the sum.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// `checksum` after one of the 16-bit numbers that it covers changed from `old` to `new` (RFC 1624, equation 3).
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum(0).word(!checksum).word(!old).word(new).checksum()
}

/// `checksum` after 0x0100 was taken off one of the 16-bit numbers that it covers, which was not less: what [`update`] makes of
/// it, in fewer instructions.
#[inline(always)]
#[must_use]
pub const fn update_by_a_hop(checksum: u16) -> u16 {
    let sum = checksum.to_be() as u32 + 0x0100u16.to_be() as u32;
    u16::from_be((sum + ((sum + 1) >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc_1071_example() {
        let sum = Sum::new().array(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn rfc_1624_example_where_equation_2_went_wrong() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_hop_less_is_an_update() {
        for checksum in 0..=u16::MAX {
            for old in [0x0100, 0x4011, 0xff06] {
                assert_eq!(update_by_a_hop(checksum), update(checksum, old, old - 0x0100), "{checksum:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_update_is_the_checksum_of_the_changed_octets(
            mut words in proptest::collection::vec(any::<u16>(), 1..40),
            i in any::<prop::sample::Index>(),
            new: u16,
        ) {
            // Zero everywhere has two representations of its checksum; real headers never are.
            words.push(0x4500);
            let sum = |words: &[u16]| words.iter().fold(Sum::new(), |sum, word| sum.word(*word)).checksum();
            let i = i.index(words.len() - 1);
            let before = sum(&words);
            let old = core::mem::replace(&mut words[i], new);
            prop_assert_eq!(update(before, old, new), sum(&words));
        }

        #[test]
        fn slices_and_arrays_sum_alike(octets: [u8; 32]) {
            prop_assert_eq!(Sum::new().slice(&octets).folded(), Sum::new().array(&octets).folded());
            prop_assert_eq!(Sum::new().slice(&octets[..31]).folded(), {
                let mut even = octets;
                even[31] = 0;
                Sum::new().array(&even).folded()
            });
        }
    }
}
