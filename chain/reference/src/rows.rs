//! The rows of the conformance table: what comes in, what must happen, and which standard says so.
//!
//! docs/conformance.md is made from these and from the packets of tests/fixtures.

macro_rules! rows {
    ($($name:ident = $id:literal, $section:ident, $input:literal, $outcome:literal, $standard:literal;)+) => {
        /// A row of the conformance table: one promise about packets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Row {
            $(#[doc = $input] $name,)+
        }

        impl Row {
            /// Every row, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its stable name.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id),+ }
            }

            /// The part of the table that it is in.
            pub const fn section(self) -> Section {
                match self { $(Self::$name => Section::$section),+ }
            }

            /// What comes in.
            pub const fn input(self) -> &'static str {
                match self { $(Self::$name => $input),+ }
            }

            /// What must happen.
            pub const fn outcome(self) -> &'static str {
                match self { $(Self::$name => $outcome),+ }
            }

            /// Who says so: a standard, or this project.
            pub const fn standard(self) -> &'static str {
                match self { $(Self::$name => $standard),+ }
            }
        }
    };
}

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// GTP-U from the radio network.
    GtpIn,
    /// GRE, both ways.
    Gre,
    /// GTP-U to the radio network.
    GtpOut,
    /// Every direction.
    Both,
    /// The modules between the tunnels.
    Between,
}

impl Section {
    /// Its heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::GtpIn => "GTP-U from the radio network",
            Self::Gre => "GRE, from the clouds and to them",
            Self::GtpOut => "GTP-U to the radio network",
            Self::Both => "Every direction",
            Self::Between => "Between the tunnels",
        }
    }
}

impl Row {
    /// The row of that name.
    pub fn named(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|row| row.id() == id)
    }
}

rows! {
    G01 = "G01", GtpIn, "A T-PDU with the eight mandatory octets alone, for a TEID that is known", "The outer headers and the 8 octets go", "TS 29.281, 5.1";
    G02 = "G02", GtpIn, "S or PN is set, or both, and E is not", "12 octets go; whatever stands in the octet for the next extension is not read", "TS 29.281, 5.1";
    G03 = "G03", GtpIn, "E is set, and the first extension type is 0", "12 octets go", "TS 29.281, 5.1";
    G04 = "G04", GtpIn, "Extension headers of known types, up to eight", "All of them go; the QFI of a PDU Session Container is kept with the packet", "TS 29.281, 5.2; TS 38.415, 5.5";
    G05 = "G05", GtpIn, "An extension header that says 0, that does not fit what GTP says is there, or that is the ninth", "Dropped", "TS 29.281, 5.2";
    G06 = "G06", GtpIn, "An extension header of an unknown type that nobody has to understand", "It goes with the others", "TS 29.281, 5.2.1";
    G07 = "G07", GtpIn, "An extension header of an unknown type that has to be understood", "The kernel gets the packet, and the slow path answers", "TS 29.281, 5.2.1 and 7.2.3";
    G08 = "G08", GtpIn, "The spare bit is set", "As if it were not", "TS 29.281, 5.1";
    G09 = "G09", GtpIn, "A version that is not 1", "The kernel gets the packet; nobody answers", "TS 29.281, 5.1";
    G10 = "G10", GtpIn, "PT is 0, as in the charging protocol", "The kernel gets the packet", "TS 29.281, 5.1";
    G11 = "G11", GtpIn, "GTP says that there is more than the datagram has, or less than its own optional fields", "Dropped", "TS 29.281, 5.1";
    G12 = "G12", GtpIn, "Octets behind the message, behind the inner packet, or Ethernet padding", "None of them is passed on", "TS 29.281, 5.1; RFC 894";
    G13 = "G13", GtpIn, "The UDP length is not what the IP packet has left, or too small for a message", "Dropped", "RFC 768";
    G14 = "G14", GtpIn, "UDP over IPv4 without a checksum", "As with one", "RFC 768";
    G15 = "G15", GtpIn, "A wrong UDP checksum", "Left to the NIC; where the policy says so it is computed, and the packet dropped", "RFC 768; RFC 1122, 4.1.3.4";
    G16 = "G16", GtpIn, "UDP over IPv6 without a checksum", "Dropped, unless the peer may send none", "RFC 6935; RFC 6936";
    G17 = "G17", GtpIn, "Options in the outer IPv4 header", "UDP is looked for behind them", "RFC 791, 3.1";
    G18 = "G18", GtpIn, "The first fragment of an outer IPv4 packet to an address of ours", "The kernel gets it", "RFC 791, 3.2";
    G19 = "G19", GtpIn, "A later fragment of one", "The kernel gets it, as it got the first; its octets are never taken for ports", "RFC 791, 3.2";
    G20 = "G20", GtpIn, "Outer IPv6 with any extension header, to an address of ours", "The kernel gets the packet", "RFC 8200, 4";
    G21 = "G21", GtpIn, "What is inside is no IP packet: another version, a header that is cut short or lies, more octets than there are", "Dropped", "RFC 791; RFC 8200";
    G22 = "G22", GtpIn, "The inner source is not the session's", "Dropped", "RFC 2827";
    G23 = "G23", GtpIn, "Inner IPv6 that is for its link alone: link-local addresses, ff02::/16, router solicitations", "The kernel gets the packet, for whoever answers on that link", "RFC 4291, 2.5.6; RFC 4861";
    G24 = "G24", GtpIn, "A TEID that nobody has", "The kernel gets the packet, and the slow path says so to the peer", "TS 29.281, 7.3.1";
    G25 = "G25", GtpIn, "A packet that its session's filter does not let through", "Dropped, and the peer is told nothing", "TS 29.281, 7.3.1";
    G26 = "G26", GtpIn, "A T-PDU for TEID 0", "Dropped, also when a session has it", "TS 29.281, 5.1";
    G27 = "G27", GtpIn, "The sender is not the session's peer", "Passed on and noted; dropped where the session is strict", "this project";
    G28 = "G28", GtpIn, "An End Marker", "The kernel gets it; it never goes into GRE", "TS 29.281, 7.3.2";
    G29 = "G29", GtpIn, "An Error Indication", "The kernel gets it, for whoever knows the pair of TEID and peer", "TS 29.281, 7.3.1";
    G30 = "G30", GtpIn, "An Echo Request", "Answered where it came from: same sequence number, Recovery 0; an endpoint may leave it to the kernel", "TS 29.281, 7.2.1, 7.2.2 and 8.2";
    G31 = "G31", GtpIn, "Any other message", "The kernel gets it", "TS 29.281, 6.1";
    G32 = "G32", GtpIn, "Not GTP-U, or not to an address of ours", "It passes as it is, whatever is wrong with it", "this project";
    G33 = "G33", GtpIn, "One or two VLAN tags", "GTP-U is found under them; the session says whether the inner frame has none, the same, or one of its own", "IEEE 802.1Q; IEEE 802.1ad";
    G34 = "G34", GtpIn, "Outer IPv6", "As over IPv4", "TS 29.281; RFC 8200";
    G35 = "G35", GtpIn, "An IPv6 packet inside", "As IPv4", "TS 29.281; RFC 8200";
    G36 = "G36", GtpIn, "A fragment inside", "Passed on as it is; rules with ports do not match it", "RFC 791, 3.2";

    R01 = "R01", Gre, "A GRE packet with IPv4 or IPv6, from a tunnel that is known", "The outer headers, the tags and everything behind the inner packet go", "RFC 2784";
    R02 = "R02", Gre, "A checksum", "Dropped, unless the tunnel says to verify it and it is right", "RFC 2784, 2.3 and 2.4";
    R03 = "R03", Gre, "A key, or none where the tunnel has one", "The kernel gets the packet when it is not the tunnel's", "RFC 2890, 2.1";
    R04 = "R04", Gre, "A sequence number", "It goes, and is not looked at", "RFC 2890, 2.2";
    R05 = "R05", Gre, "A flag bit of the first octet that has no meaning any more", "Dropped", "RFC 2784, 2.3";
    R06 = "R06", Gre, "Reserved bits that a receiver has to ignore", "Ignored; sent as 0", "RFC 2784, 2.3";
    R07 = "R07", Gre, "A version that is not 0, as PPTP has it", "The kernel gets the packet", "RFC 2637; RFC 2784, 2.3";
    R08 = "R08", Gre, "Protocol 0: a keepalive", "The kernel gets the packet", "this project";
    R09 = "R09", Gre, "Something else than IP inside", "The kernel gets the packet", "RFC 2784, 2.4";
    R10 = "R10", Gre, "To the tunnel's inside addresses: BGP and the like", "The kernel gets the packet, always", "this project";
    R11 = "R11", Gre, "An inner destination that is an end of the tunnel itself", "Dropped", "RFC 2784, 3.1";
    R12 = "R12", Gre, "From a tunnel that nobody has", "The kernel gets the packet", "this project";
    R13 = "R13", Gre, "A fragment of an outer packet", "The kernel gets it", "RFC 791, 3.2";
    R14 = "R14", Gre, "A packet on its way to a cloud", "A GRE header with no flag but that for the tunnel's key, a right IPv4 header, DF unless the tunnel allows fragments", "RFC 2784; RFC 2890; RFC 6864";
    R15 = "R15", Gre, "A customer with several tunnels, or with none", "One is chosen by the flow, the same both ways, and keeps its flows when another goes; without any, dropped or the kernel's", "this project";

    D01 = "D01", GtpOut, "A packet for a session", "GTP-U with a source port from the flow, and a PDU Session Container when the session has a QFI", "TS 29.281, 4.4.2 and 5.1; TS 38.415, 5.5";
    D02 = "D02", GtpOut, "A packet for nobody", "Dropped, or the kernel's where the policy says so", "this project";
    D03 = "D03", GtpOut, "The same inner address of two customers", "Each to its own session", "this project";
    D04 = "D04", GtpOut, "A peer with an IPv6 address", "A right UDP checksum, or none where the peer takes that", "RFC 6935; RFC 6936; RFC 8200, 8.1";

    B01 = "B01", Both, "Hops", "One less, and the checksum follows; with none to spare the kernel gets the packet", "RFC 1812, 5.3.1; RFC 8200, 3; RFC 1624";
    B02 = "B02", Both, "A packet that must not be fragmented and does not fit the way out", "An ICMP message to its sender, through the tunnel that it came by, so many a second; the packet is dropped", "RFC 1191; RFC 4443, 3.2";
    B03 = "B03", Both, "A packet that may be fragmented and does not fit the way out", "The kernel gets the finished outer packet, and fragments it", "RFC 791, 3.2";
    B04 = "B04", Both, "A TCP SYN, where MSS clamping is asked for", "An MSS that does not fit is lowered, never raised, and the checksum follows", "RFC 9293, 3.7.1";
    B05 = "B05", Both, "ICMP about an outer packet of ours that was too big", "The kernel gets it", "RFC 1191; RFC 8201";
    B06 = "B06", Both, "Congestion that the outer header tells of", "The inner header tells of it, too; a packet that cannot is dropped", "RFC 6040, 4.2";
    B07 = "B07", Both, "A packet that gets an outer header", "ECN as inside; DSCP as inside or as the policy says", "RFC 6040, 4.1; RFC 2983";
    B08 = "B08", Both, "No room in front for the outer headers", "Dropped; native mode is refused when the chain is attached to a driver that is known never to have any", "this project";
    B09 = "B09", Both, "A next hop that is not resolved, or a route that leads nowhere", "The kernel gets the finished packet and asks for the neighbour; dropped where there is no way", "RFC 1812, 5.2";
    B10 = "B10", Both, "An inner packet for a group or for everybody", "Dropped, or the kernel's where the policy says so", "this project";
    B11 = "B11", Both, "Anything that is not IP", "It passes as it is", "this project";
    B12 = "B12", Both, "A frame that ends before its own headers say", "Dropped, and nothing behind its end is read", "RFC 1812, 5.2.2";

    Acl = "ACL", Between, "A packet that rules are about", "The first rule that matches decides, else the default; what cannot be judged is dropped", "this project";
    Stats = "STATS", Between, "A packet with a customer", "Counted for customer and session", "this project";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_stand_in_order_of_their_sections() {
        for (i, row) in Row::ALL.iter().enumerate() {
            assert_eq!(Row::named(row.id()), Some(*row));
            assert!(Row::ALL[..i].iter().all(|before| before.section() <= row.section()));
            for text in [row.input(), row.outcome(), row.standard()] {
                assert!(!text.is_empty() && !text.contains('|') && !text.ends_with('.'), "{text}");
            }
        }
    }
}
