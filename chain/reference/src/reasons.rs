//! Every reason for which a packet is not forwarded: what it means, the rows that lead to it, and what to do about it.

use xdpchain_abi::{Fate, Reason};

use crate::Row;

/// What is to be known about a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The reason.
    pub reason: Reason,
    /// What it says about a packet.
    pub meaning: &'static str,
    /// The rows of the conformance table that count it.
    pub rows: &'static [Row],
    /// What whoever runs the chain can do.
    pub remedy: &'static str,
}

/// What becomes of packets with such a reason, in a word.
pub const fn fate_name(fate: Fate) -> &'static str {
    match fate {
        Fate::Drop => "drop",
        Fate::Punt => "punt",
        Fate::Noted => "noted",
    }
}

/// What is to be known about `reason`; none for one that the table does not have yet.
pub fn explain(reason: Reason) -> Option<&'static Explained> {
    EXPLAINED.iter().find(|explained| explained.reason == reason)
}

macro_rules! explained {
    ($($reason:ident, [$($row:ident),+], $meaning:literal, $remedy:literal;)+) => {
        /// Every reason, in order of its number.
        pub const EXPLAINED: &[Explained] = &[$(Explained {
            reason: Reason::$reason,
            meaning: $meaning,
            rows: &[$(Row::$row),+],
            remedy: $remedy,
        }),+];
    };
}

explained! {
    Truncated, [B12], "the frame ends before its own headers say", "capture on the interface: a link or a driver that cuts frames, or somebody who probes";
    BadExtension, [G05], "a GTP-U extension header of length 0, one that does not fit, or more than eight", "find out by the outer source which peer builds such headers";
    GtpLength, [G11], "the GTP-U length does not fit the datagram", "find out by the outer source which peer sends it; a middle box may have cut the packet";
    UdpLength, [G13], "the UDP length disagrees with the IP length", "find out by the outer source which peer sends it";
    UdpChecksum, [G15, G16], "the UDP checksum is wrong, or missing where it must not be", "when the peer sends none over IPv6, allow it for the endpoint; else look for a link that damages packets";
    InnerMalformed, [G21, B12], "what is inside is no whole IP packet", "find the session by its TEID: a device or a peer sends what is no IP";
    SpoofedSource, [G22], "the inner source is none of the session's addresses", "compare the session with what the SMF gave out; else the device uses an address of somebody else";
    Filtered, [G25], "the packet is outside of its session's filter", "compare the filter with the session's rules";
    TeidZero, [G26], "a T-PDU for TEID 0", "find out by the outer source which peer sends user packets without a tunnel";
    PeerStrict, [G27], "the sender is not the session's peer, and the session is strict", "after a handover update the session's peer; else somebody else sends on its TEID";
    GreFlags, [R02, R05], "GRE flags without a meaning, or a checksum that is not accepted", "set the tunnel to verify checksums when the far end sends them, or switch them off there";
    GreLoop, [R11], "the inner destination is an end of the tunnel", "look for a route at the far end that leads the tunnel into itself";
    NoSession, [D02], "the customer has no session with this destination", "compare the session with what the SMF gave out; else the cloud still sends to a device that is gone";
    NoTunnel, [R15], "the customer has no tunnel", "give the customer a tunnel in gre-steer/customers, and the tunnel an entry in gre-steer/tunnels";
    Ecn, [B06], "the outer header tells of congestion and the inner one cannot", "a router between marks packets that are not ECN-capable: find it on the path of the outer packets";
    Headroom, [B08], "the driver leaves no room for the outer headers", "attach with mode generic, or use a driver with XDP headroom";
    InnerMulticast, [B10], "the inner packet is for a group", "set inner_multicast in the module's config to 1 where the kernel has use for such packets";
    AclDenied, [Acl], "a rule of the access list, or its default, denies it", "map export acl/hits tells which rule; rules are in acl/rules";
    TooBig, [B02], "too big for the way out; its sender was told by ICMP", "nothing, when it is now and then; else raise the MTU of the way out, or clamp the MSS";
    NoRoute, [B09], "the route to the far end is blackhole, unreachable or prohibit", "ip route get FAREND from LOCAL, and ip rule, on this machine";
    NotForwarded, [B09], "the kernel does not forward to the far end", "switch forwarding on (sysctl net.ipv4.ip_forward, net.ipv6.conf.all.forwarding) and see ip route get FAREND";
    ExtensionNotSupported, [G07], "an extension header that has to be understood and is not", "nothing: the slow path answers; find out by the outer source which peer uses it";
    GtpVersion, [G09], "a GTP version other than 1", "find out by the outer source who sends GTP-C or GTPv2 to the GTP-U port";
    GtpPrime, [G10], "GTP', the charging protocol", "find out by the outer source who sends it to the GTP-U port";
    Fragment, [G18, G19, R13], "a fragment of an outer packet", "raise the MTU between the peer and here: fragments take the slow path";
    Ipv6Extension, [G20], "outer IPv6 with extension headers", "nothing, when it is now and then: such packets take the slow path";
    InnerLinkLocal, [G23], "inner IPv6 that is for its link alone", "nothing: router solicitations and the like are for the slow path";
    UnknownTeid, [G24], "nobody has this TEID", "after a restart or a handover it goes away by itself; else compare gtp-decap/sessions with what the SMF gave out";
    EndMarker, [G28], "the last packet of a path that was switched", "nothing: it is for the slow path";
    ErrorIndication, [G29], "a peer does not know a TEID that we send to", "compare gtp-encap/sessions with the peer's; the slow path may remove the session";
    GtpSignalling, [G30, G31], "a GTP-U message that is no packet of a user's", "nothing: it is for the slow path";
    GreKey, [R03], "the GRE key is not the tunnel's", "compare key and flags of gre-decap/tunnels with the far end's";
    GreVersion, [R07], "PPTP, or a GRE version of the future", "find out by the outer source who sends it";
    GreKeepalive, [R08], "a GRE keepalive", "nothing: the kernel's GRE device answers when there is one";
    GreProtocol, [R09], "something else than IP inside GRE", "find out what the far end bridges or switches into the tunnel";
    GreControl, [R10], "to the tunnel's inside address, as BGP is", "nothing: the kernel's GRE device and the BGP daemon get it";
    GreUnknownTunnel, [R12], "no tunnel has these outer addresses", "add the pair of addresses to gre-decap/tunnels, or find out who sends";
    TtlExpired, [B01], "no hop is left", "nothing, when it is traceroute; else look for a routing loop";
    NeedsFragmentation, [B03], "too big for the way out, and may be fragmented", "raise the MTU of the way out, or clamp the MSS";
    OuterPmtu, [B05], "a router says that an outer packet of ours was too big", "nothing: the kernel learns the path's MTU; raise it when it stays";
    NoNeighbour, [B09], "the next hop's link-layer address is not known", "nothing, when it is now and then: the kernel asks; else ip neigh on the way out, and accept_local=1 on the way in";
    PeerMoved, [G27], "the sender is not the session's peer; passed on", "after a handover update the session's peer, or make the session strict";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_is_missing_and_each_has_its_place() {
        let found: Vec<Reason> = EXPLAINED.iter().map(|explained| explained.reason).collect();
        assert_eq!(found, Reason::ALL);
        for explained in EXPLAINED {
            for text in [explained.meaning, explained.remedy] {
                assert!(!text.is_empty() && !text.ends_with('.') && !text.contains('|'), "{text}");
            }
        }
    }
}
