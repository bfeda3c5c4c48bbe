//! GRE headers (RFC 2784) with key and sequence number (RFC 2890).

use xdpchain_abi::Be32;

use crate::{
    Octets, OctetsMut,
    bytes::{put, put_u16, take, u16_at},
};

/// Octets of the header without optional fields.
pub const LEN: usize = 4;
/// Octets of the header with all of them.
pub const MAX_LEN: usize = 16;

/// The first four octets as they stand in the packet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; LEN]);

impl View<'_> {
    /// The C bit: a checksum and two reserved octets follow.
    #[inline(always)]
    pub fn has_checksum(self) -> bool {
        self.0[0] & 0x80 != 0
    }

    /// The K bit: a key follows.
    #[inline(always)]
    pub fn has_key(self) -> bool {
        self.0[0] & 0x20 != 0
    }

    /// The S bit: a sequence number follows.
    #[inline(always)]
    pub fn has_sequence(self) -> bool {
        self.0[0] & 0x10 != 0
    }

    /// Whether one of bits 1 to 5 is set that RFC 2890 gives no meaning: RFC 2784, 2.3 wants the packet discarded.
    #[inline(always)]
    pub fn has_reserved(self) -> bool {
        // Bit 0 is the most significant one: C R K S s and the first of Recur.
        self.0[0] & 0x4c != 0
    }

    /// 0; 1 is PPTP (RFC 2637).
    #[inline(always)]
    pub fn version(self) -> u8 {
        self.0[1] & 0x07
    }

    /// The EtherType of what follows; 0 in keepalives.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        u16_at(self.0, 2)
    }

    /// Octets of the header with the optional fields that its bits announce.
    #[inline(always)]
    pub fn header_len(self) -> usize {
        LEN + 4 * (self.has_checksum() as usize + self.has_key() as usize + self.has_sequence() as usize)
    }
}

/// A header's contents, optional fields included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// The EtherType of what follows.
    pub protocol: u16,
    /// Checksum over header and payload.
    pub checksum: Option<u16>,
    /// Key.
    pub key: Option<Be32>,
    /// Sequence number.
    pub sequence: Option<Be32>,
}

impl Repr {
    /// Reads the header at `offset`. `None` when the packet ends within it. Version and reserved bits are the caller's
    /// to judge, by [`View`].
    #[inline(always)]
    pub fn parse<O: Octets + ?Sized>(packet: &O, offset: usize) -> Option<Self> {
        let view = View(packet.at(offset)?);
        let mut repr = Self { protocol: view.protocol(), checksum: None, key: None, sequence: None };
        let mut next = offset + LEN;
        if view.has_checksum() {
            repr.checksum = Some(u16_at::<4>(packet.at(next)?, 0));
            next += 4;
        }
        if view.has_key() {
            repr.key = Some(Be32 { octets: take::<4, 4>(packet.at(next)?, 0) });
            next += 4;
        }
        if view.has_sequence() {
            repr.sequence = Some(Be32 { octets: take::<4, 4>(packet.at(next)?, 0) });
        }
        Some(repr)
    }

    /// Octets of the header with its optional fields.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        LEN + 4
            * (self.checksum.is_some() as usize
                + self.key.is_some() as usize
                + self.sequence.is_some() as usize)
    }

    /// Writes the header at `offset`, version 0 and reserved bits zero. `None` when the packet ends within it.
    #[inline(always)]
    pub fn emit<O: OctetsMut + ?Sized>(&self, packet: &mut O, offset: usize) -> Option<()> {
        let first: &mut [u8; LEN] = packet.at_mut(offset)?;
        let flags = (self.checksum.is_some() as u8) << 7
            | (self.key.is_some() as u8) << 5
            | (self.sequence.is_some() as u8) << 4;
        let [p, t] = self.protocol.to_be_bytes();
        put(first, 0, [flags, 0, p, t]);
        let mut next = offset + LEN;
        if let Some(checksum) = self.checksum {
            let field: &mut [u8; 4] = packet.at_mut(next)?;
            put_u16(field, 0, checksum);
            put_u16(field, 2, 0);
            next += 4;
        }
        if let Some(key) = self.key {
            put::<4, 4>(packet.at_mut(next)?, 0, key.octets);
            next += 4;
        }
        if let Some(sequence) = self.sequence {
            put::<4, 4>(packet.at_mut(next)?, 0, sequence.octets);
        }
        Some(())
    }
}
