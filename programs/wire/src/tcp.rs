//! TCP headers (RFC 9293).

use crate::{
    Octets,
    bytes::{put_u16, put_u32, u16_at, u32_at},
};

/// Octets of the header without options.
pub const LEN: usize = 20;

/// Control bits, as [`View::flags`] has them.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// A header as it stands in the packet, without its options.
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

    /// Sequence number.
    #[inline(always)]
    pub fn sequence(self) -> u32 {
        u32_at(self.0, 4)
    }

    /// Acknowledgment number.
    #[inline(always)]
    pub fn acknowledgment(self) -> u32 {
        u32_at(self.0, 8)
    }

    /// Octets of the header with options; under [`LEN`] in a malformed packet, never over 60.
    #[inline(always)]
    pub fn header_len(self) -> usize {
        (self.0[12] >> 4) as usize * 4
    }

    /// Any of [`flags`].
    #[inline(always)]
    pub fn flags(self) -> u8 {
        self.0[13]
    }

    /// Receive window, unscaled.
    #[inline(always)]
    pub fn window(self) -> u16 {
        u16_at(self.0, 14)
    }

    /// The checksum as it stands in the packet.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        u16_at(self.0, 16)
    }

    /// The urgent pointer.
    #[inline(always)]
    pub fn urgent(self) -> u16 {
        u16_at(self.0, 18)
    }
}

/// A header's contents, without options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Octets of the header with the options that follow it: 20 to 60, a multiple of 4.
    pub header_len: u8,
    /// Any of [`flags`].
    pub flags: u8,
    /// Receive window, unscaled.
    pub window: u16,
    /// The checksum.
    pub checksum: u16,
    /// The urgent pointer.
    pub urgent: u16,
}

impl Repr {
    /// Reads a header. `None` when its length is under [`LEN`]; options are not looked at.
    #[inline(always)]
    pub fn parse(octets: &[u8; LEN]) -> Option<Self> {
        let view = View(octets);
        if view.header_len() < LEN {
            return None;
        }
        Some(Self {
            source_port: view.source_port(),
            destination_port: view.destination_port(),
            sequence: view.sequence(),
            acknowledgment: view.acknowledgment(),
            header_len: view.header_len() as u8,
            flags: view.flags(),
            window: view.window(),
            checksum: view.checksum(),
            urgent: view.urgent(),
        })
    }

    /// Writes the header.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; LEN]) {
        put_u16(octets, 0, self.source_port);
        put_u16(octets, 2, self.destination_port);
        put_u32(octets, 4, self.sequence);
        put_u32(octets, 8, self.acknowledgment);
        octets[12] = (self.header_len / 4) << 4;
        octets[13] = self.flags;
        put_u16(octets, 14, self.window);
        put_u16(octets, 16, self.checksum);
        put_u16(octets, 18, self.urgent);
    }
}

/// One step over the options of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another option begins at this offset, or the options end there.
    Next(usize),
    /// The maximum segment size stands at this offset, in two octets.
    Mss(usize),
    /// There are no more options, or what follows is none.
    End,
}

impl Step {
    /// Looks at the option at `at`. The header ends at `end`; both are offsets from the start of the frame.
    #[inline(always)]
    pub fn over<O: Octets + ?Sized>(packet: &O, at: usize, end: usize) -> Self {
        Self::find(packet, at, end).unwrap_or(Self::End)
    }

    #[inline(always)]
    fn find<O: Octets + ?Sized>(packet: &O, at: usize, end: usize) -> Option<Self> {
        if at >= end {
            return None;
        }
        match packet.at::<1>(at)?[0] {
            option::END => None,
            option::NOTHING => Some(Self::Next(at + 1)),
            kind => {
                let len = packet.at::<1>(at + 1)?[0] as usize;
                if len < 2 || at + len > end {
                    return None;
                }
                Some(if kind == option::MSS && len == 4 { Self::Mss(at + 2) } else { Self::Next(at + len) })
            }
        }
    }
}

/// Kinds of options.
pub mod option {
    /// No more options.
    pub const END: u8 = 0;
    /// An octet without meaning.
    pub const NOTHING: u8 = 1;
    /// Maximum segment size.
    pub const MSS: u8 = 2;
}
