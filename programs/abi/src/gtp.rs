//! Keys and values of the GTP-U side: endpoints, peers, uplink sessions and their filters, downlink sessions.
//!
//! Sessions name an outer IPv6 address by an alias of four octets, out of 0.0.0.0/8, which no IPv4 packet is sent to or
//! from (RFC 6890, 2.2.2): so a session is as small with IPv6 outside as with IPv4. User space gives the aliases out. What
//! arrives is looked up by address (`endpoints6`, `peers6` of `gtp-decap`), what leaves by alias (`addresses6` of `gtp-encap`). GRE
//! tunnels do the same.

use crate::{Be32, Ipv4, Ipv6, UserAddress, sized};

/// UDP destination port of GTP-U (3GPP TS 29.281, 4.4.2).
pub const GTPU_PORT: u16 = 2152;

/// Key of `gtp-decap`'s `sessions`: where a T-PDU arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UplinkKey {
    /// Our address, the outer destination, or the alias of an IPv6 one.
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
    /// The gNB or SGW that sends, or the alias of its IPv6 address; only compared.
    pub peer: Ipv4,
    /// Inner IPv4 address of the session, `0.0.0.0` when it has none.
    pub inner4: Ipv4,
    /// Length of the prefix in bits, 1 to 128; 0 when the session has no IPv6.
    pub inner6_len: u8,
    /// Any of [`session_flags`].
    pub flags: u8,
    /// VLAN identifier, 0 to 4095, of the tag that the inner packet gets when `tags` is [`tags::SET`].
    pub vlan: u16,
    /// What becomes of the frame's VLAN tags, one of [`tags`].
    pub tags: u8,
    /// Padding, zero.
    pub reserved: [u8; 1],
    /// The filter that inner packets have to pass, [`FilterKey::filter`]; 0 for none.
    pub filter: u16,
    /// Inner IPv6 prefix of the session; bits beyond `inner6_len` are zero. Last, so that what packets of IPv4 ask for is one piece,
    /// which is more often in one cache line.
    pub inner6: Ipv6,
}

/// Bits of a TEID, the lower ones, that are its place in `sessions_dense`.
pub const DENSE_BITS: u32 = 24;

/// Value of `gtp-decap`'s `sessions_dense`, an array by the lower [`DENSE_BITS`] bits of the TEID: key and value of `sessions` in
/// one. Found before `sessions` is asked; all zero where there is no session.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DenseSession {
    /// As [`UplinkKey::local`].
    pub local: Ipv4,
    /// As [`UplinkKey::teid`]: all of its bits.
    pub teid: Be32,
    /// As [`UplinkSession::customer`].
    pub customer: u32,
    /// As [`UplinkSession::session`].
    pub session: u32,
    /// As [`UplinkSession::peer`].
    pub peer: Ipv4,
    /// As [`UplinkSession::inner4`].
    pub inner4: Ipv4,
    /// As [`UplinkSession::inner6_len`].
    pub inner6_len: u8,
    /// As [`UplinkSession::flags`].
    pub flags: u8,
    /// As [`UplinkSession::vlan`].
    pub vlan: u16,
    /// As [`UplinkSession::tags`].
    pub tags: u8,
    /// Padding, zero.
    pub reserved: [u8; 1],
    /// As [`UplinkSession::filter`].
    pub filter: u16,
    /// As [`UplinkSession::inner6`].
    pub inner6: Ipv6,
}

impl DenseSession {
    /// Where a session with this TEID is.
    #[inline(always)]
    pub const fn index(teid: Be32) -> u32 {
        teid.value() & ((1 << DENSE_BITS) - 1)
    }

    /// What is its key in `sessions`, and what its value.
    pub const fn split(self) -> (UplinkKey, UplinkSession) {
        let Self { local, teid, customer, session, peer, inner4, inner6, .. } = self;
        let Self { inner6_len, flags, vlan, tags, reserved, filter, .. } = self;
        let value = UplinkSession {
            customer,
            session,
            peer,
            inner4,
            inner6,
            inner6_len,
            flags,
            vlan,
            tags,
            reserved,
            filter,
        };
        (UplinkKey { local, teid }, value)
    }
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
    /// Uplink: verify the UDP checksum of the session's packets, if they have one, instead of leaving that to the NIC.
    pub const VERIFY_UDP_CHECKSUM: u8 = 4;
    /// Downlink: the outer DSCP is `dscp` (else the inner one).
    pub const FIXED_DSCP: u8 = 8;
}

/// Key of `gtp-encap`'s `sessions`: whom an inner packet is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DownlinkKey {
    /// The customer, the name space of `address`.
    pub customer: u32,
    /// Inner destination.
    pub address: UserAddress,
}

/// Value of `gtp-encap`'s `sessions`: the tunnel toward the radio network.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DownlinkSession {
    /// The session's number, as in [`UplinkSession::session`].
    pub session: u32,
    /// Tunnel endpoint identifier that the peer gave out.
    pub teid: Be32,
    /// Outer destination, the gNB or SGW, or the alias of its IPv6 address.
    pub peer: Ipv4,
    /// Outer source, our address, of the same family.
    pub local: Ipv4,
    /// QoS flow identifier, 0 to 63; used when `flags` has [`session_flags::HAS_QFI`].
    pub qfi: u8,
    /// Any of [`session_flags`].
    pub flags: u8,
    /// Outer DSCP, 0 to 63, when `flags` has [`session_flags::FIXED_DSCP`].
    pub dscp: u8,
    /// Padding, zero.
    pub reserved: [u8; 1],
}

/// Key of `gtp-decap`'s `filters`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FilterKey {
    /// The filter's number, from 1.
    pub filter: u16,
    /// The rule's number within the filter, from 0 without gaps, below [`FILTER_RULES`].
    pub rule: u16,
}

/// Rules that one filter can have at most.
pub const FILTER_RULES: u16 = 4;

/// Value of `gtp-decap`'s `filters`: what a session may send. A packet passes a filter when one of its rules allows it, so
/// nothing passes a filter without rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterRule {
    /// Inner destination prefix; IPv4 is IPv4-mapped.
    pub dst: Ipv6,
    /// Lowest and highest destination port of TCP, UDP and SCTP, both inclusive; 0 and 0 for any, also of packets without
    /// ports: of other protocols, fragments, and IPv6 with extension headers.
    pub dst_port: [u16; 2],
    /// Length of `dst` in bits of the IPv6 address (an IPv4 /24 is 120); 0 matches every address of both families.
    pub dst_len: u8,
    /// IP protocol number, as it stands in the inner header; 0 for any.
    pub protocol: u8,
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

/// Value of `gtp-decap`'s `endpoints6`, keyed by [`Ipv6`]: an IPv6 address of ours that GTP-U packets come to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint6 {
    /// Any of [`endpoint_flags`].
    pub flags: u32,
    /// What [`UplinkKey::local`] calls it.
    pub alias: Ipv4,
}

/// Bits of [`Endpoint::flags`] and [`Endpoint6::flags`].
pub mod endpoint_flags {
    /// Leave Echo Requests to the kernel instead of answering them.
    pub const NO_ECHO: u32 = 1;
    /// Verify the UDP checksum of Echo Requests, if they have one. Of packets for a session the session says that.
    pub const VERIFY_UDP_CHECKSUM: u32 = 2;
}

/// Value of `gtp-decap`'s `peers6`, keyed by [`Ipv6`]: a gNB or SGW that sends from an IPv6 address. Of `gre-decap`'s `addresses6`:
/// an address of ours or of a far end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer6 {
    /// What [`UplinkSession::peer`] calls it, or [`GreKey`](crate::GreKey).
    pub alias: Ipv4,
    /// Any of [`peer_flags`], of a peer that sends GTP-U.
    pub flags: u32,
}

/// Value of `addresses6` of `gtp-encap` and of `gre-steer`, keyed by the alias ([`Ipv4`]): an IPv6 address, ours or a far end's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address6 {
    /// The address.
    pub address: Ipv6,
    /// Any of [`peer_flags`], of a peer that takes GTP-U.
    pub flags: u32,
}

/// Bits of [`Peer6::flags`] and [`Address6::flags`].
pub mod peer_flags {
    /// UDP over IPv6 without checksum (RFC 6936) is accepted from the peer, or sent to it.
    pub const ZERO_CHECKSUM: u32 = 1;
}

sized!(
    UplinkKey = 8,
    UplinkSession = 40,
    DenseSession = 48,
    DownlinkKey = 12,
    DownlinkSession = 20,
    FilterKey = 4,
    FilterRule = 24
);
sized!(Endpoint = 4, Endpoint6 = 8, Peer6 = 8, Address6 = 20);
