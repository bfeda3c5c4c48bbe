//! Explicit congestion notification through tunnels (RFC 6040).

use xdpchain_abi::Reason;
use xdpchain_wire::{OctetsMut, ipv4, ipv6};

/// Both bits, and so the mark: congestion experienced.
const CE: u8 = 0b11;

/// What becomes of the inner bits (RFC 6040, 4.2), two bits for each pair of outer and inner bits, the lowest for 0 and 0. A
/// number instead of branches, each of which the verifier would follow apart.
const MARKS: u32 = {
    // By outer bits: none, ECT(1), ECT(0), CE. The inner bits are the shift: none, ECT(1), ECT(0), CE.
    let unchanged = 0b11_10_01_00;
    let stronger = 0b11_01_01_00;
    let marked = 0b11_11_11_00;
    unchanged | stronger << 8 | unchanged << 16 | marked << 24
};

/// The TOS octet of a packet that leaves a tunnel, of its own and that of the outer header (RFC 6040, 4.2).
///
/// # Errors
/// [`Reason::Ecn`]: congestion was marked outside, and inside there is no room to tell it to somebody who would listen, so
/// that the loss has to.
#[inline(always)]
pub fn decapsulated_tos(outer: u8, inner: u8) -> Result<u8, Reason> {
    let pair = (outer & CE) << 2 | inner & CE;
    if pair == CE << 2 {
        return Err(Reason::Ecn);
    }
    Ok(inner & !CE | (MARKS >> (pair * 2)) as u8 & CE)
}

/// Whether a packet surely leaves its tunnel as it is: the bits outside are none, or those inside. It may in other cases, which are rare.
#[inline(always)]
pub fn is_same_ecn(outer: u8, inner: u8) -> bool {
    outer & CE == 0 || (outer ^ inner) & CE == 0
}

/// Gives the IPv4 or IPv6 packet that begins at `offset` another TOS octet or traffic class. `None` when it does not lie
/// within the frame.
#[inline(always)]
#[must_use]
pub fn set_tos<O: OctetsMut + ?Sized>(packet: &mut O, offset: usize, tos: u8) -> Option<()> {
    if packet.at::<1>(offset)?[0] & 0x20 == 0 {
        ipv4::set_tos(packet.at_mut(offset)?, tos);
    } else {
        ipv6::set_traffic_class(packet.at_mut(offset)?, tos);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_as_in_figure_4_of_rfc_6040() {
        // Rows: inner Not-ECT, ECT(0), ECT(1), CE. Columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let figure = [
            (0b00, [Some(0b00), Some(0b00), Some(0b00), None]),
            (0b10, [Some(0b10), Some(0b10), Some(0b01), Some(0b11)]),
            (0b01, [Some(0b01), Some(0b01), Some(0b01), Some(0b11)]),
            (0b11, [Some(0b11), Some(0b11), Some(0b11), Some(0b11)]),
        ];
        for (inner, row) in figure {
            for (outer, result) in [0b00, 0b10, 0b01, 0b11].into_iter().zip(row) {
                // The DSCP is the inner one, whatever the outer one is.
                let found = decapsulated_tos(0x28 | outer, 0xb8 | inner);
                assert_eq!(found, result.map(|ecn| 0xb8 | ecn).ok_or(Reason::Ecn), "{outer} over {inner}");
                if is_same_ecn(0x28 | outer, 0xb8 | inner) {
                    assert_eq!(result, Some(inner), "{outer} over {inner}");
                }
            }
        }
    }
}
