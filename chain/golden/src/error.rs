//! What can be wrong with a fixture or a capture.

/// Why a file of golden packets cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// A fixture that is no YAML, or has other keys.
    #[error("{message}\nhelp: docs/golden-packets.md says what a fixture has")]
    Fixture {
        /// What is wrong, and where.
        message: String,
    },
    /// A text that must say something and does not.
    #[error("`{key}` is empty\nhelp: say in a few words what the packet is about")]
    Empty {
        /// The key.
        key: &'static str,
    },
    /// Text that spells no octets.
    #[error(
        "{what} is no hexadecimal text: {problem}\nhelp: write two digits for each octet; white space and what follows `#` do not count"
    )]
    Hexadecimal {
        /// Which text.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A word that names no reason.
    #[error("no reason is called `{name}`\nhelp: reasons are: {known}")]
    Reason {
        /// The word.
        name: String,
        /// The reasons that there are.
        known: String,
    },
    /// A file that is no capture.
    #[error(
        "this is neither pcap nor pcapng: it begins with {found}\nhelp: give what `tcpdump -w` or `dumpcap` wrote"
    )]
    Magic {
        /// Its first octets.
        found: String,
    },
    /// A capture that ends inside of something, or says what cannot be.
    #[error(
        "the capture is damaged at octet {at}: {problem}\nhelp: capture again, or repair it with `pcapfix`"
    )]
    Damaged {
        /// Octets from its start.
        at: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Packets that do not begin with an Ethernet header.
    #[error("the packets are of link type {found}, not Ethernet (1)\nhelp: capture on an Ethernet interface")]
    LinkType {
        /// The number of the link type.
        found: u32,
    },
    /// A packet of which the capture has only the beginning.
    #[error(
        "packet {number} has {captured} of its {original} octets\nhelp: capture whole packets, with `tcpdump -s 0`"
    )]
    Cut {
        /// Which, from 1.
        number: usize,
        /// Octets that there are.
        captured: u32,
        /// Octets that it had.
        original: u32,
    },
}
