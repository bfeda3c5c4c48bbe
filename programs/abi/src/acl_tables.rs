//! What `acl`'s rules are compiled to: a decision tree in two blocks of octets, which the program walks.
//!
//! A packet is a key of words. A [`Node`] is one number: cut by some bits of the key to one of a table's nodes, check the
//! packet against one rule, or against those of a [sieve](Node::sieve) that it leaves, or walk a list of nodes one after the
//! other. Of the rules that are checked and match, the one with the smallest number decides. Whoever compiles promises that each
//! rule that can decide on a packet is met on the packet's way, in at most [`VISITS`] visits and with at most [`STACK`] lists
//! put aside; the program ends a walk there whatever the blocks hold, and no index leads out of them.
//!
//! A sieve is for up to [`SIEVED`] rules, ascending, each of which is a bit of a vector. [`WINDOWS`] times some bits of the key
//! choose a vector, of the rules that a packet with these bits may match; the rules of which all of them have the bit are
//! checked from the first on, and there are at most [`CHECKS`] of them. So the processor fetches all vectors at a time, and has
//! next to nothing to guess. Which bits they are is the sieve's shape; sieves share a few of them, which stay in the caches.
//!
//! - Block [`NODES`] is an array of `u32`: the masks of all prefix lengths, the header, the places of bits, the shapes, the tables.
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
/// Index, among nodes, of the guard of a root that is [guarded](Node::is_guarded): a prefix and its mask, two `u64`, of the lower half
/// of the destination address, then of the source address.
pub const GUARD_AT: usize = ROOT + 6;
/// Index, among nodes, of one that is always 0.
pub const EMPTY: usize = ROOT + 15;
/// Index, among nodes, of the place of each bit of a vector, by [`place_of`] it: 64 octets.
pub const PLACES_AT: usize = ROOT + 16;
/// Index, among nodes, of the shapes, [`WINDOWS`] cuts each. Shape 0 is none.
pub const SHAPES_AT: usize = ROOT + 32;
/// Shapes, number 0 included.
pub const SHAPES: usize = 128;
/// Index, among nodes, of the first table.
pub const TABLES: usize = SHAPES_AT + SHAPES * WINDOWS;
/// The number of this layout. A program walks any tree of layout 1, which had no sieves, and of layout 2, where each sieve has its
/// windows to itself, too.
pub const LAYOUT: u32 = 3;

/// Visits of a walk at most, and of one that the compiler did not promise this of, one more. A visit takes up to [`CUTS`] cuts,
/// then one step of a list, then one check. A sieve is only where the first visit's cuts lead to.
pub const VISITS: usize = 16;
/// Cuts in one visit.
pub const CUTS: usize = 3;
/// Lists that are put aside at a time at most, a power of two.
pub const STACK: usize = 8;

/// Rules of a sieve at most: the bits of a vector.
pub const SIEVED: usize = 64;
/// Windows of a sieve.
pub const WINDOWS: usize = 4;
/// Rules that a sieve leaves to be checked, at most.
pub const CHECKS: usize = 8;

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
/// | bits | cut | check | list | sieve |
/// |---|---|---|---|---|
/// | 0 to 1 | 1 | 2 | 3 | 3 |
/// | 2 to 4 | word | rule (16 bits from bit 2 on) | count (6 bits from bit 2 on) | 0 (6 bits from bit 2 on) |
/// | 5 to 10 | shift | | | shape (7 bits from bit 8 on) |
/// | 11 to 14 | width - 1 | | | |
/// | 15 to 31 | table / 8 | | table / 8 | table / 8 |
/// | 18 | | 1 when [guarded](Self::is_guarded) | | |
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
    /// Several nodes one after the other, or, with a count of 0, a sieve.
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
        assert!(table.is_multiple_of(8));
        Self(kind::CUT | (word as u32) << 2 | shift << 5 | (width - 1) << 11 | (table as u32) << 12)
    }

    /// Against `rule`.
    pub const fn check(rule: u16) -> Self {
        Self(kind::CHECK | (rule as u32) << 2)
    }

    /// This check, as the root of a rule that is alone, which no packet matches that the guard does not let by. A program that does not
    /// know of guards takes it for the check.
    pub const fn guarded(self) -> Self {
        assert!(self.kind() == kind::CHECK);
        Self(self.0 | Self::GUARDED)
    }

    /// Whether it is a check behind the guard. Only the root is asked.
    #[inline(always)]
    pub const fn is_guarded(self) -> bool {
        self.0 & (Self::GUARDED | 3) == Self::GUARDED | kind::CHECK
    }

    const GUARDED: u32 = 1 << 18;

    /// The `count` (1 to [`LONGEST`]) pairs of a node and a rule from `table`, a multiple of 8, on.
    pub const fn list(table: usize, count: usize) -> Self {
        assert!(table.is_multiple_of(8));
        Self(kind::LIST | (count as u32) << 2 | (table as u32) << 12)
    }

    /// The sieve at `table`, a multiple of 8, of shape `shape` (1 to [`SHAPES`] - 1): 8 nodes behind `table` its rules by bit, each a
    /// [`Sieved`], and before them the vectors, as the shape's cuts say, whose tables are counted from `table` (and beyond the last
    /// node from the first one), and are of `u64`, two nodes each.
    ///
    /// That of layout 2, of shape 0, has the cuts, to tables anywhere, in the 8 nodes at `table`.
    pub const fn sieve(table: usize, shape: usize) -> Self {
        assert!(table.is_multiple_of(8) && shape < SHAPES);
        Self(kind::LIST | (shape as u32) << 8 | (table as u32) << 12)
    }

    /// Whether it is a sieve.
    #[inline(always)]
    pub const fn is_sieve(self) -> bool {
        self.0 & 0xff == kind::LIST
    }

    /// The shape of a sieve.
    #[inline(always)]
    pub const fn shape(self) -> usize {
        (self.0 >> 8) as usize & (SHAPES - 1)
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

/// Index, in the table at [`PLACES_AT`], of the place of the lowest bit of `vector`, which is not 0.
#[inline(always)]
pub const fn place_of(vector: u64) -> usize {
    // Each of the 64 numbers with one bit, times this one, begins with six bits of its own (a de Bruijn sequence).
    ((vector & vector.wrapping_neg()).wrapping_mul(0x03f7_9d71_b4cb_0a89) >> 58) as usize
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

/// A rule as a sieve has it, half a cache line: what an [`Entry`] says, of addresses only the lower 32 bits. A rule of which they
/// are not all that it asks of an address, or IPv4 prefixes, is compared with its entry too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sieved {
    /// Lower 32 bits of the source prefix; what is behind its length is zero.
    pub src: u32,
    /// Lower 32 bits of the destination prefix.
    pub dst: u32,
    /// The customer, the upper half of [`word::FIXED`].
    pub customer: u32,
    /// The lower half of [`word::FIXED`] of packets that match.
    pub fixed: u32,
    /// Bits of `fixed` that are compared.
    pub fixed_mask: u32,
    /// As [`Entry::src_port`].
    pub src_port: [u16; 2],
    /// As [`Entry::dst_port`].
    pub dst_port: [u16; 2],
    /// The rule's number.
    pub rule: u16,
    /// Lower bits of the source that are not compared, 0 to 32; above them [`sieved`].
    pub src_open: u8,
    /// The same of the destination.
    pub dst_open: u8,
}

/// The uppermost bits of [`Sieved::src_open`] and [`Sieved::dst_open`].
pub mod sieved {
    /// Bits below them.
    pub const OPEN: u8 = 0x3f;
    /// Of the source: the rule's addresses are to be compared with its entry too.
    pub const MORE: u8 = 0x80;
    /// Of the source: the rule's action is [`acl_action::DENY`](crate::acl_action::DENY).
    pub const DENY: u8 = 0x40;
    /// Of the destination: the customer is compared.
    pub const CUSTOMER: u8 = 0x80;
}

impl Sieved {
    /// Nodes of one.
    pub const NODES: usize = size_of::<Self>() / 4;

    /// Index, among nodes, of the first one of the sieve at `table`.
    #[inline(always)]
    pub const fn first(table: usize) -> usize {
        table + Self::NODES
    }
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
const _: () = assert!(
    PLACES_AT + 64 / 4 == SHAPES_AT
        && SHAPES == 1 << 7
        && SIEVED == u64::BITS as usize
        && WINDOWS <= Sieved::NODES
);
const _: () = assert!(NODE_COUNT == 1 << 20 && word::PORTS < word::ROOM);

sized!(Entry = 64, Sieved = 32);
