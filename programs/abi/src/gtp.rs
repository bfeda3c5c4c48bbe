//! Keys and values of the GTP-U side: endpoints, uplink sessions, downlink sessions.

use crate::{Be32, Ipv4, Ipv6, sized};

/// UDP destination port of GTP-U (3GPP TS 29.281, 4.4.2).
pub const GTPU_PORT: u16 = 2152;

/// Key of `gtp-decap`'s `sessions`: where a T-PDU arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UplinkKey {
    /// Our address, the outer destination.
    pub local: Ipv4,
    /// Tunnel endpoint identifier that we gave out for it.
    pub teid: Be32,
}

/// Value of `gtp-decap`'s `sessions`: whose packets arrive there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UplinkSession {
    /// The customer, the name space of the inner addresses.
    pub customer: u32,
    /// The session's number, given out densely from 0; index of `stats`' session counters.
    pub session: u32,
    /// The gNB or SGW that sends; only compared.
    pub peer: Ipv4,
    /// Inner IPv4 address of the session, `0.0.0.0` when it has none.
    pub inner4: Ipv4,
    /// Inner IPv6 prefix of the session; bits beyond `inner6_len` are zero.
    pub inner6: Ipv6,
    /// Length of the prefix in bits, 1 to 128; 0 when the session has no IPv6.
    pub inner6_len: u8,
    /// Any of [`session_flags`].
    pub flags: u8,
    /// VLAN identifier, 0 to 4095, of the tag that the inner packet gets when `tags` is [`tags::SET`].
    pub vlan: u16,
    /// What becomes of the frame's VLAN tags, one of [`tags`].
    pub tags: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 3],
}

/// Values of [`UplinkSession::tags`].
pub mod tags {
    /// The frame with the inner packet has none.
    pub const DROP: u8 = 0;
    /// It has those of the frame with the outer packet.
    pub const KEEP: u8 = 1;
    /// It has one 802.1Q tag, [`vlan`](crate::UplinkSession::vlan), priority 0.
    pub const SET: u8 = 2;
}

/// Bits of [`UplinkSession::flags`] and [`DownlinkSession::flags`].
pub mod session_flags {
    /// Drop a packet whose outer source is not `peer` (else it is forwarded and counted).
    pub const STRICT_PEER: u8 = 1;
    /// Downlink: put a PDU Session Container with `qfi` in front.
    pub const HAS_QFI: u8 = 2;
}

/// Key of `gtp-encap`'s `sessions`: whom an inner packet is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DownlinkKey {
    /// The customer, the name space of `address`.
    pub customer: u32,
    /// Inner destination: an IPv4 address IPv4-mapped, or the upper 64 bits of an IPv6 address with the rest zero.
    pub address: Ipv6,
}

/// Value of `gtp-encap`'s `sessions`: the tunnel toward the radio network.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DownlinkSession {
    /// The session's number, as in [`UplinkSession::session`].
    pub session: u32,
    /// Tunnel endpoint identifier that the peer gave out.
    pub teid: Be32,
    /// Outer destination, the gNB or SGW.
    pub peer: Ipv4,
    /// Outer source, our address.
    pub local: Ipv4,
    /// QoS flow identifier, 0 to 63; used when `flags` has [`session_flags::HAS_QFI`].
    pub qfi: u8,
    /// Any of [`session_flags`].
    pub flags: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 2],
}

/// Value of `gtp-decap`'s `endpoints`, keyed by [`Ipv4`]: an address of ours that GTP-U packets come to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Any of [`endpoint_flags`].
    pub flags: u32,
}

/// Bits of [`Endpoint::flags`].
pub mod endpoint_flags {
    /// Leave Echo Requests to the kernel instead of answering them.
    pub const NO_ECHO: u32 = 1;
}

sized!(UplinkKey = 8, UplinkSession = 40, DownlinkKey = 20, DownlinkSession = 20, Endpoint = 4);
