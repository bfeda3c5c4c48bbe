//! What `acl`'s rules are compiled to: a decision tree in two blocks of octets, which the program walks.
//!
//! A packet is a key of words. A [`Node`] is one number: cut by some bits of the key to one of a table's nodes, check the
//! packet against one rule, or walk a list of nodes one after the other. Of the rules that are checked and match, the one
//! with the smallest number decides. Whoever compiles promises that each rule that can decide on a packet is met on the
//! packet's way, in at most [`VISITS`] visits and with at most [`STACK`] lists put aside; the program ends a walk there
//! whatever the blocks hold, and no index leads out of them.
//!
//! - Block [`NODES`] is an array of `u32`: the masks of all prefix lengths, the header, the tables.
//! - Block [`ENTRIES`] is an array of [`Entry`] by the rule's number.

use crate::sized;

/// What the name of a map ends with that holds what another one, named by the rest, is compiled to: an array of one map
/// of blocks, which is replaced as a whole.
pub const COMPILED: &str = "_compiled";

/// Octets of a block. Kernel 5.10 has no larger values.
pub const BLOCK: usize = 1 << 22;
/// Blocks of one compilation.
pub const BLOCKS: usize = 2;
/// The block of masks, header and nodes.
pub const NODES: u32 = 0;
/// The block of entries.
pub const ENTRIES: u32 = 1;
/// Creation flags of the map of blocks: `BPF_F_MMAPABLE`, so that blocks are written in place and begin at a page.
pub const FLAGS: u32 = 1 << 10;

/// Nodes in their block, those that are not used as such included.
pub const NODE_COUNT: usize = BLOCK / 4;
/// The mask of prefix length n: two `u64` from octet n * 16 of the nodes' block, for any octet n.
pub const MASKS: usize = 0;
/// Index, among nodes, of the root.
pub const ROOT: usize = 1024;
/// Index, among nodes, of the header's [`LAYOUT`].
pub const LAYOUT_AT: usize = ROOT + 1;
/// Index, among nodes, of the two halves of the digest of the rules, the lower first.
pub const DIGEST_AT: usize = ROOT + 2;
/// Index, among nodes, of the number of rules.
pub const COUNT_AT: usize = ROOT + 4;
/// Index, among nodes, of the first table.
pub const TABLES: usize = ROOT + 16;
/// The number of this layout.
pub const LAYOUT: u32 = 1;

/// Visits of a walk at most, and of one that the compiler did not promise this of, one more. A visit takes up to [`CUTS`] cuts, then
/// one step of a list, then one check.
pub const VISITS: usize = 16;
/// Cuts in one visit.
pub const CUTS: usize = 3;
/// Lists that are put aside at a time at most, a power of two.
pub const STACK: usize = 8;

/// Words of a key.
pub mod word {
    /// Source address, the upper half; IPv4 is IPv4-mapped.
    pub const SRC: usize = 0;
    /// Source address, the lower half.
    pub const SRC_LOW: usize = 1;
    /// Destination address, the upper half.
    pub const DST: usize = 2;
    /// Destination address, the lower half.
    pub const DST_LOW: usize = 3;
    /// What is compared as it is: from the highest bit on customer (32), protocol (8), direction (8), [`super::fact`] (16).
    pub const FIXED: usize = 4;
    /// Source port (16) above destination port (16); 0 for a packet without.
    pub const PORTS: usize = 5;
    /// How many there are room for: as many as a node can name.
    pub const ROOM: usize = 8;
}

/// The lowest bits of [`word::FIXED`].
pub mod fact {
    /// The packet has ports.
    pub const PORTS: u64 = 1;
    /// Somebody claimed the packet, so that it has a customer.
    pub const CLAIMED: u64 = 2;
    /// The packet is IPv4.
    pub const IPV4: u64 = 4;
}

/// [`word::FIXED`] of a key.
#[inline(always)]
pub const fn fixed(customer: u32, protocol: u8, direction: u8, facts: u64) -> u64 {
    (customer as u64) << 32 | (protocol as u64) << 24 | (direction as u64) << 16 | facts
}

/// Whether an address, as the key has it, is IPv4-mapped.
#[inline(always)]
pub const fn is_ipv4(address: [u64; 2]) -> bool {
    address[0] == 0 && address[1] >> 32 == 0xffff
}

/// A step of the decision tree. 0 is a way's end.
///
/// | bits | cut | check | list |
/// |---|---|---|---|
/// | 0 to 1 | 1 | 2 | 3 |
/// | 2 to 4 | word | rule (16 bits from bit 2 on) | count (6 bits from bit 2 on) |
/// | 5 to 10 | shift | | |
/// | 11 to 14 | width - 1 | | |
/// | 15 to 31 | table / 8 | | table / 8 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node(pub u32);

/// Kinds of [`Node`].
pub mod kind {
    /// The end of a way.
    pub const END: u32 = 0;
    /// On to one of a table's nodes, by some bits of the key.
    pub const CUT: u32 = 1;
    /// The packet against one rule.
    pub const CHECK: u32 = 2;
    /// Several nodes one after the other.
    pub const LIST: u32 = 3;
}

/// Widest cut, bits.
pub const WIDEST: u32 = 16;
/// Longest list.
pub const LONGEST: usize = 63;

impl Node {
    /// By the `width` (1 to [`WIDEST`]) bits of key word `word` above its lowest `shift`: to node `table + bits`. `table`
    /// is a multiple of 8.
    pub const fn cut(word: usize, shift: u32, width: u32, table: usize) -> Self {
        Self(kind::CUT | (word as u32) << 2 | shift << 5 | (width - 1) << 11 | (table as u32) << 12)
    }

    /// Against `rule`.
    pub const fn check(rule: u16) -> Self {
        Self(kind::CHECK | (rule as u32) << 2)
    }

    /// The `count` (1 to [`LONGEST`]) pairs of a node and a rule from `table`, a multiple of 8, on.
    pub const fn list(table: usize, count: usize) -> Self {
        Self(kind::LIST | (count as u32) << 2 | (table as u32) << 12)
    }

    /// One of [`kind`].
    #[inline(always)]
    pub const fn kind(self) -> u32 {
        self.0 & 3
    }

    /// The key word of a cut.
    #[inline(always)]
    pub const fn word(self) -> usize {
        (self.0 >> 2 & 7) as usize
    }

    /// Bits of the word below those of a cut.
    #[inline(always)]
    pub const fn shift(self) -> u32 {
        self.0 >> 5 & 63
    }

    /// The bits of a cut, lowest in place: as many ones as it is wide.
    #[inline(always)]
    pub const fn mask(self) -> u32 {
        (2 << (self.0 >> 11 & 15)) - 1
    }

    /// The first node of the table of a cut or a list.
    #[inline(always)]
    pub const fn table(self) -> usize {
        (self.0 >> 15 << 3) as usize
    }

    /// The rule of a check.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 >> 2 & 0xffff
    }

    /// The number of nodes in a list.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.0 >> 2 & 63
    }
}

/// A rule as it is checked: one cache line. What a rule does not ask for, every packet has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Source prefix, as the key has it; what is behind its length is zero.
    pub src: [u64; 2],
    /// Destination prefix.
    pub dst: [u64; 2],
    /// [`word::FIXED`] of packets that match.
    pub fixed: u64,
    /// Bits of `fixed` that are compared.
    pub fixed_mask: u64,
    /// Lowest and highest source port; compared with 0 when the packet has none.
    pub src_port: [u16; 2],
    /// Lowest and highest destination port.
    pub dst_port: [u16; 2],
    /// Length of the source prefix, of 128 bits.
    pub src_len: u8,
    /// Length of the destination prefix.
    pub dst_len: u8,
    /// [`acl_action`](crate::acl_action).
    pub action: u8,
    /// Octets of padding, zero.
    pub reserved: [u8; 5],
}

/// The first `len` bits of 128, as two numbers.
pub const fn prefix_mask(len: u8) -> [u64; 2] {
    [ones_above(len), ones_above(len.saturating_sub(64))]
}

/// The `len` uppermost bits, all when there are no more.
const fn ones_above(len: u8) -> u64 {
    match len {
        0 => 0,
        1..64 => u64::MAX << (64 - len as u32),
        _ => u64::MAX,
    }
}

const _: () = assert!(crate::ACL_RULES as usize * size_of::<Entry>() == BLOCK);
const _: () = assert!(TABLES.is_multiple_of(8) && MASKS + 256 * 16 == ROOT * 4);
const _: () = assert!(NODE_COUNT == 1 << 20 && word::PORTS < word::ROOM);

sized!(Entry = 64);
