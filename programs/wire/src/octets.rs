//! Access to the octets of a packet, whatever holds it: an XDP buffer in the programs, a slice on the host.
//!
//! Every access is of a size known at compile time and is checked against the packet's end, so a
//! header is read whole or not at all. That is the form of check that the kernel's verifier follows.

/// Octets that can be read.
pub trait Octets {
    /// The `N` octets that begin at `offset`, or `None` when the packet ends before them.
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;
}

/// Octets that can be written.
pub trait OctetsMut: Octets {
    /// The `N` octets that begin at `offset`, to be changed, or `None` when the packet ends before them.
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;
}

impl Octets for [u8] {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }
}

impl OctetsMut for [u8] {
    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.get_mut(offset..)?.first_chunk_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_passes_the_end_is_refused_whole() {
        let packet: &[u8] = &[1, 2, 3, 4];
        assert_eq!(packet.at::<2>(2), Some(&[3, 4]));
        assert_eq!(packet.at::<2>(3), None);
        assert_eq!(packet.at::<0>(4), Some(&[]));
        assert_eq!(packet.at::<1>(usize::MAX), None);
    }

    #[test]
    fn what_is_written_through_a_window_is_in_the_packet() {
        let mut packet = [0u8; 4];
        *packet[..].at_mut(1).unwrap() = [7u8, 8];
        assert_eq!(packet, [0, 7, 8, 0]);
    }
}
