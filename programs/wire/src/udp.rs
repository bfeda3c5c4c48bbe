//! UDP headers (RFC 768).

use crate::bytes::{put_u16, u16_at};

/// Octets of the header.
pub const LEN: usize = 8;

/// A header as it stands in the packet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; LEN]);

impl View<'_> {
    /// Source port.
    #[inline(always)]
    pub fn source_port(self) -> u16 {
        u16_at(self.0, 0)
    }

    /// Destination port.
    #[inline(always)]
    pub fn destination_port(self) -> u16 {
        u16_at(self.0, 2)
    }

    /// Octets of the datagram, this header included.
    #[inline(always)]
    pub fn len(self) -> u16 {
        u16_at(self.0, 4)
    }

    /// Whether the length is 0, which over IPv4 no datagram has.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The checksum, 0 when the sender computed none.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        u16_at(self.0, 6)
    }
}

/// A header's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Octets of the datagram, this header included.
    pub len: u16,
    /// The checksum, 0 for none.
    pub checksum: u16,
}

impl Repr {
    /// Reads a header.
    #[inline(always)]
    pub fn parse(octets: &[u8; LEN]) -> Self {
        let view = View(octets);
        Self {
            source_port: view.source_port(),
            destination_port: view.destination_port(),
            len: view.len(),
            checksum: view.checksum(),
        }
    }

    /// Writes the header.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; LEN]) {
        put_u16(octets, 0, self.source_port);
        put_u16(octets, 2, self.destination_port);
        put_u16(octets, 4, self.len);
        put_u16(octets, 6, self.checksum);
    }
}
