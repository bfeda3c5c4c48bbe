//! GTP-U version 1 headers (3GPP TS 29.281, 5) with optional fields and extension headers.
//!
//! Three pieces: the eight mandatory octets ([`View`], [`Repr`]); four more ([`Optional`]) when any of
//! the E, S and PN bits is set; then, when E is set, a list of extension headers, each one naming the
//! type of the next, which [`Payload::parse`] walks.

use xdpchain_abi::Be32;

use crate::{
    Octets,
    bytes::{put, put_u16, take, u16_at},
};

/// Octets of the mandatory part.
pub const LEN: usize = 8;
/// Octets that follow it when any of E, S and PN is set.
pub const OPTIONAL_LEN: usize = 4;
/// Extension headers that [`Payload::parse`] walks at most.
pub const MAX_EXTENSIONS: usize = 8;

/// Message types (TS 29.281, table 6.1-1).
pub mod message {
    /// Echo Request.
    pub const ECHO_REQUEST: u8 = 1;
    /// Echo Response.
    pub const ECHO_RESPONSE: u8 = 2;
    /// Error Indication.
    pub const ERROR_INDICATION: u8 = 26;
    /// Supported Extension Headers Notification.
    pub const SUPPORTED_EXTENSIONS: u8 = 31;
    /// End Marker.
    pub const END_MARKER: u8 = 254;
    /// A user's packet.
    pub const G_PDU: u8 = 255;
}

/// Extension header types (TS 29.281, figure 5.2.1-3). Bit 8 asks the receiver to understand the header.
pub mod extension {
    /// No more extension headers.
    pub const NONE: u8 = 0x00;
    /// Service Class Indicator.
    pub const SERVICE_CLASS: u8 = 0x20;
    /// UDP port of the message that an Error Indication is about.
    pub const UDP_PORT: u8 = 0x40;
    /// Long PDCP PDU number.
    pub const LONG_PDCP_NUMBER: u8 = 0x82;
    /// PDU Session Container (TS 38.415).
    pub const PDU_SESSION: u8 = 0x85;
    /// PDCP PDU number.
    pub const PDCP_NUMBER: u8 = 0xc0;
    /// The bit that makes comprehension required.
    pub const COMPREHENSION_REQUIRED: u8 = 0x80;

    /// Whether a G-PDU with a header of this type can be forwarded: it is understood here or need not be.
    #[inline(always)]
    pub const fn can_be_passed(kind: u8) -> bool {
        // PDCP numbers matter between base stations at handover; whoever decapsulates has no use for them.
        kind & COMPREHENSION_REQUIRED == 0 || matches!(kind, PDU_SESSION | PDCP_NUMBER | LONG_PDCP_NUMBER)
    }
}

/// Information elements (TS 29.281, 8).
pub mod element {
    /// Recovery: the type, then a restart counter that is always 0 here (TS 29.281, 8.2).
    pub const RECOVERY: [u8; 2] = [14, 0];
}

/// The mandatory part as it stands in the packet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; LEN]);

impl View<'_> {
    /// 1, unless it is another protocol.
    #[inline(always)]
    pub fn version(self) -> u8 {
        self.0[0] >> 5
    }

    /// Whether the PT bit is 0: GTP', the charging protocol.
    #[inline(always)]
    pub fn is_gtp_prime(self) -> bool {
        self.0[0] & 0x10 == 0
    }

    /// The E bit: extension headers follow.
    #[inline(always)]
    pub fn has_extensions(self) -> bool {
        self.0[0] & 0x04 != 0
    }

    /// The S bit: the sequence number counts.
    #[inline(always)]
    pub fn has_sequence(self) -> bool {
        self.0[0] & 0x02 != 0
    }

    /// The PN bit: the N-PDU number counts.
    #[inline(always)]
    pub fn has_npdu(self) -> bool {
        self.0[0] & 0x01 != 0
    }

    /// Whether [`Optional`] follows.
    #[inline(always)]
    pub fn has_optional(self) -> bool {
        self.0[0] & 0x07 != 0
    }

    /// One of [`message`].
    #[inline(always)]
    pub fn message_type(self) -> u8 {
        self.0[1]
    }

    /// Octets after the mandatory part: optional fields, extension headers and payload.
    #[inline(always)]
    pub fn len(self) -> u16 {
        u16_at(self.0, 2)
    }

    /// Whether nothing follows the mandatory part.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Tunnel endpoint identifier, the receiver's.
    #[inline(always)]
    pub fn teid(self) -> Be32 {
        Be32 { octets: take(self.0, 4) }
    }
}

/// The mandatory part's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repr {
    /// The E bit.
    pub extensions: bool,
    /// The S bit.
    pub sequence: bool,
    /// The PN bit.
    pub npdu: bool,
    /// One of [`message`].
    pub message_type: u8,
    /// Octets after the mandatory part.
    pub len: u16,
    /// Tunnel endpoint identifier, the receiver's.
    pub teid: Be32,
}

impl Repr {
    /// Reads the mandatory part. `None` when it is not GTP version 1, or is GTP'.
    #[inline(always)]
    pub fn parse(octets: &[u8; LEN]) -> Option<Self> {
        let view = View(octets);
        if view.version() != 1 || view.is_gtp_prime() {
            return None;
        }
        Some(Self {
            extensions: view.has_extensions(),
            sequence: view.has_sequence(),
            npdu: view.has_npdu(),
            message_type: view.message_type(),
            len: view.len(),
            teid: view.teid(),
        })
    }

    /// Writes the mandatory part: version 1, PT 1, the spare bit 0.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; LEN]) {
        octets[0] = 0x30 | (self.extensions as u8) << 2 | (self.sequence as u8) << 1 | self.npdu as u8;
        octets[1] = self.message_type;
        put_u16(octets, 2, self.len);
        put(octets, 4, self.teid.octets);
    }
}

/// The four octets after the mandatory part when any of E, S and PN is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optional {
    /// Sequence number, to be evaluated only when S is set.
    pub sequence: u16,
    /// N-PDU number, to be evaluated only when PN is set.
    pub npdu: u8,
    /// Type of the first extension header, to be evaluated only when E is set.
    pub next_extension: u8,
}

impl Optional {
    /// Reads the fields.
    #[inline(always)]
    pub fn parse(octets: &[u8; OPTIONAL_LEN]) -> Self {
        Self { sequence: u16_at(octets, 0), npdu: octets[2], next_extension: octets[3] }
    }

    /// Writes the fields.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; OPTIONAL_LEN]) {
        put_u16(octets, 0, self.sequence);
        octets[2] = self.npdu;
        octets[3] = self.next_extension;
    }
}

/// A PDU Session Container of the shortest form, four octets (TS 38.415, 5.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PduSession {
    /// PDU type: 0 downlink, 1 uplink.
    pub pdu_type: u8,
    /// QoS flow identifier, 0 to 63.
    pub qfi: u8,
    /// Type of the next extension header.
    pub next_extension: u8,
}

impl PduSession {
    /// Octets of the header.
    pub const LEN: usize = 4;
    /// `pdu_type` toward the radio network.
    pub const DOWNLINK: u8 = 0;
    /// `pdu_type` from the radio network.
    pub const UPLINK: u8 = 1;

    /// Reads the header. `None` when it has another length.
    #[inline(always)]
    pub fn parse(octets: &[u8; Self::LEN]) -> Option<Self> {
        if octets[0] != 1 {
            return None;
        }
        Some(Self { pdu_type: octets[1] >> 4, qfi: octets[2] & 0x3f, next_extension: octets[3] })
    }

    /// Writes the header. Bits that do not fit their field are left out.
    #[inline(always)]
    pub fn emit(&self, octets: &mut [u8; Self::LEN]) {
        octets[0] = 1;
        octets[1] = self.pdu_type << 4;
        octets[2] = self.qfi & 0x3f;
        octets[3] = self.next_extension;
    }
}

/// Why the headers of a message cannot be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet ends before the message does.
    Truncated,
    /// The message is too short for the optional fields that its bits announce.
    Length,
    /// An extension header of length 0, one that passes the end of the message, or more than [`MAX_EXTENSIONS`].
    BadExtension,
    /// An extension header that must be understood and is not.
    NotSupported,
}

/// What a message carries after its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Where it begins, from the start of the frame; never after the end of the message.
    pub offset: usize,
    /// QoS flow identifier of a PDU Session Container, else [`Payload::NO_QFI`]. A number in either case: what is left unset
    /// in one of two cases, the kernel's verifier may find being copied.
    pub qfi: u8,
}

impl Payload {
    /// No QoS flow identifier; they have six bits.
    pub const NO_QFI: u8 = 0xff;

    /// Walks the headers of the message whose mandatory part, `view`, is at `offset` and whose last octet is before
    /// `end`, both from the start of the frame.
    #[inline(always)]
    pub fn parse<O: Octets + ?Sized>(
        packet: &O,
        view: View<'_>,
        offset: usize,
        end: usize,
    ) -> Result<Self, Error> {
        let mut payload = Self { offset: offset + LEN, qfi: Self::NO_QFI };
        if payload.offset > end {
            return Err(Error::Length);
        }
        if !view.has_optional() {
            return Ok(payload);
        }
        if payload.offset + OPTIONAL_LEN > end {
            return Err(Error::Length);
        }
        let optional = Optional::parse(packet.at(payload.offset).ok_or(Error::Truncated)?);
        payload.offset += OPTIONAL_LEN;
        if !view.has_extensions() {
            return Ok(payload);
        }
        let mut kind = optional.next_extension;
        let mut walked = 0;
        while walked < MAX_EXTENSIONS {
            if kind == extension::NONE {
                return Ok(payload);
            }
            // Every extension header is at least four octets: length, two of content, next type.
            if payload.offset + 4 > end {
                return Err(Error::BadExtension);
            }
            let first: &[u8; 4] = packet.at(payload.offset).ok_or(Error::Truncated)?;
            let len = first[0] as usize * 4;
            let next = payload.offset + len;
            if len == 0 || next > end {
                return Err(Error::BadExtension);
            }
            if !extension::can_be_passed(kind) {
                return Err(Error::NotSupported);
            }
            if kind == extension::PDU_SESSION {
                payload.qfi = first[2] & 0x3f;
            }
            let last: &[u8; 1] = packet.at(next - 1).ok_or(Error::Truncated)?;
            kind = last[0];
            payload.offset = next;
            walked += 1;
        }
        if kind == extension::NONE { Ok(payload) } else { Err(Error::BadExtension) }
    }
}
