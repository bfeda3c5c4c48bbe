//! Why a packet was not forwarded.

/// Name of the per-CPU array of `u64` counters, indexed by [`Reason`], in which a module counts what it did not forward.
pub const REASON_MAP: &str = "xdpchain_reason";

/// Entries of a reason map: every [`Reason`] is smaller.
pub const REASONS: u32 = 64;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $value:literal, $text:literal, $fate:ident;)+) => {
        /// Why a packet was not forwarded: it was dropped, or handed ("punted") to the kernel.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])+ $name = $value,)+
        }

        impl Reason {
            /// Every reason, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable name in output, fixtures and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What happened to the packet.
            #[inline(always)]
            pub const fn fate(self) -> Fate {
                match self { $(Self::$name => Fate::$fate),+ }
            }
        }
    };
}

/// What a [`Reason`] did to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS` to the kernel, past every later slot, as the packet came to the module; with [`Reason::NoNeighbour`] and
    /// [`Reason::NeedsFragmentation`] as it is to be sent.
    Punt,
    /// Forwarded all the same; the reason is a remark.
    Noted,
}

reasons! {
    /// The frame is shorter than its own headers say; to an access list also more IPv6 extension headers than it walks.
    Truncated = 1, "truncated", Drop;
    /// An extension header of length 0, or one that runs past the GTP length or the packet.
    BadExtension = 2, "bad_extension", Drop;
    /// The GTP length is larger than the UDP payload allows.
    GtpLength = 3, "gtp_length", Drop;
    /// The UDP length disagrees with the IP total length, or is under 16.
    UdpLength = 4, "udp_length", Drop;
    /// The UDP checksum is wrong, or is 0 where it must not be.
    UdpChecksum = 5, "udp_checksum", Drop;
    /// The inner packet is neither IPv4 nor IPv6, or its header is cut short, or it is longer than the T-PDU.
    InnerMalformed = 6, "inner_malformed", Drop;
    /// The inner source is none of the session's addresses.
    SpoofedSource = 7, "spoofed_source", Drop;
    /// A known TEID, but a packet outside its filter.
    Filtered = 8, "filtered", Drop;
    /// A G-PDU with TEID 0.
    TeidZero = 9, "teid_zero", Drop;
    /// The outer source is not the session's peer, and the session is strict about it.
    PeerStrict = 10, "peer_strict", Drop;
    /// Reserved GRE flag bits, or a checksum that is not accepted.
    GreFlags = 11, "gre_flags", Drop;
    /// The inner destination is the tunnel's own endpoint.
    GreLoop = 12, "gre_loop", Drop;
    /// No session for this customer and inner address.
    NoSession = 13, "no_session", Drop;
    /// No tunnel for this customer.
    NoTunnel = 14, "no_tunnel", Drop;
    /// Outer CE over inner Not-ECT (RFC 6040).
    Ecn = 15, "ecn", Drop;
    /// The driver gives no headroom for the outer header.
    Headroom = 16, "headroom", Drop;
    /// Inner multicast or broadcast.
    InnerMulticast = 17, "inner_multicast", Drop;
    /// Denied by an `acl` rule or its default.
    AclDenied = 18, "acl_denied", Drop;
    /// Larger than the way out allows, and must not be fragmented. Its sender is told by ICMP, in the tunnel that the packet
    /// came from, unless it was told just before or the packet is none to be answered.
    TooBig = 19, "too_big", Drop;
    /// The route to the outer destination is blackhole, unreachable or prohibit.
    NoRoute = 20, "no_route", Drop;
    /// The kernel does not forward to the outer destination: forwarding is off on the interface, or there is no route
    /// but a local one. Dropped, since by then the packet has no customer that the kernel would know.
    NotForwarded = 21, "not_forwarded", Drop;

    /// An unknown extension header that requires comprehension.
    ExtensionNotSupported = 32, "extension_not_supported", Punt;
    /// A GTP version other than 1.
    GtpVersion = 33, "gtp_version", Punt;
    /// GTP' (PT = 0).
    GtpPrime = 34, "gtp_prime", Punt;
    /// An outer fragment.
    Fragment = 35, "fragment", Punt;
    /// Outer IPv6 with extension headers.
    Ipv6Extension = 36, "ipv6_extension", Punt;
    /// Inner IPv6 link-local, router solicitation or ff02::/16.
    InnerLinkLocal = 37, "inner_link_local", Punt;
    /// A TEID that nobody has.
    UnknownTeid = 38, "unknown_teid", Punt;
    /// An End Marker.
    EndMarker = 39, "end_marker", Punt;
    /// An Error Indication.
    ErrorIndication = 40, "error_indication", Punt;
    /// Any other GTP-U signalling message.
    GtpSignalling = 41, "gtp_signalling", Punt;
    /// A GRE key that is not the tunnel's, or none where one is due.
    GreKey = 42, "gre_key", Punt;
    /// GRE version 1 (PPTP) or above.
    GreVersion = 43, "gre_version", Punt;
    /// A GRE keepalive (protocol 0).
    GreKeepalive = 44, "gre_keepalive", Punt;
    /// A GRE protocol other than IPv4 and IPv6.
    GreProtocol = 45, "gre_protocol", Punt;
    /// To the tunnel's inside address: BGP and the like.
    GreControl = 46, "gre_control", Punt;
    /// No tunnel has these outer addresses.
    GreUnknownTunnel = 47, "gre_unknown_tunnel", Punt;
    /// TTL or hop limit 1.
    TtlExpired = 48, "ttl_expired", Punt;
    /// Larger than the way out allows, and may be fragmented: the kernel gets the finished outer packet, and does it.
    NeedsFragmentation = 49, "needs_fragmentation", Punt;
    /// ICMP fragmentation needed about an outer packet of ours.
    OuterPmtu = 50, "outer_pmtu", Punt;
    /// The next hop's link-layer address is not known yet.
    NoNeighbour = 51, "no_neighbour", Punt;

    /// The outer source is not the session's peer; forwarded all the same.
    PeerMoved = 56, "peer_moved", Noted;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_name_within_the_map() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!((*a as u32) < REASONS);
            for b in &Reason::ALL[i + 1..] {
                assert_ne!(*a as u16, *b as u16);
                assert_ne!(a.name(), b.name());
            }
        }
    }
}
