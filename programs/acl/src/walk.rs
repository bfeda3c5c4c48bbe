//! The walk through the decision tree, as [`xdpchain_abi::acl_tables`] says.
//!
//! Indices are masked to their block, so that no branch, which the verifier would follow both ways, checks them. Comparing a
//! packet with a rule is arithmetic on whole words of which only the sum of all is branched on, for the same reason, but for a rule
//! that the walk ends with. And what a walk remembers goes through a map, whose contents the verifier does not know: knowing
//! them, it would follow the walk anew for each number of lists that can be put aside.

use xdpchain_abi::ACL_RULES;
use xdpchain_kit::sign;

use crate::scratch::{Scratch, load, store};
use xdpchain_abi::acl_tables::{
    BLOCK, CHECKS, CUTS, EMPTY, Entry, GUARD_AT, MASKS, NODE_COUNT, Node, PLACES_AT, ROOT, SHAPES_AT, STACK,
    Sieved, VISITS, WINDOWS, kind, place_of, sieved, word,
};

/// More than any rule's number.
const NONE: u32 = ACL_RULES;

/// `number`, of which the compiler is not to know what it is, so that it does not copy the walk out as often.
#[inline(always)]
fn opaque(number: usize) -> usize {
    let result;
    // SAFETY: moves a register to another one and touches nothing else.
    unsafe { core::arch::asm!("{0} = {1}", out(reg) result, in(reg) number, options(pure, nomem, nostack)) };
    result
}

/// The bits of the key that a cut is made by.
#[inline(always)]
fn bits(cut: Node, scratch: &Scratch) -> usize {
    ((scratch.word(cut.word()) >> cut.shift()) as u32 & cut.mask()) as usize
}

/// The lower halves of a packet's addresses.
pub(crate) struct LowHalves {
    pub(crate) src: u64,
    pub(crate) dst: u64,
}

/// The nodes of compiled rules.
#[derive(Clone, Copy)]
pub(crate) struct Nodes<'a>(pub(crate) &'a [u64; BLOCK / 8]);

/// Compiled rules.
pub(crate) struct Tables<'a> {
    pub(crate) nodes: Nodes<'a>,
    pub(crate) entries: &'a [u64; BLOCK / 8],
}

/// The rule that decides, and what it does to a packet.
pub(crate) struct Found {
    pub(crate) rule: u32,
    pub(crate) action: u8,
}

/// What is left of a list: the index of its next node, and above that the number of nodes.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Rest(u32);

impl Rest {
    const NODES: u32 = NODE_COUNT as u32;

    #[inline(always)]
    fn is_empty(self) -> bool {
        self.0 < Self::NODES
    }

    #[inline(always)]
    fn at(self) -> usize {
        (self.0 & (Self::NODES - 1)) as usize
    }

    /// Without its first node.
    #[inline(always)]
    fn next(self) -> Self {
        Self(self.0.wrapping_add(2).wrapping_sub(Self::NODES))
    }
}

impl Nodes<'_> {
    /// Where the walk's first cuts lead to. For most packets its end, for which nothing else of the rules is looked at.
    #[inline(always)]
    pub(crate) fn first(self, scratch: &Scratch) -> Node {
        self.cut(self.at(ROOT), scratch)
    }

    /// Whether the root is guarded.
    #[inline(always)]
    pub(crate) fn is_guarded(self) -> bool {
        self.at(ROOT).is_guarded()
    }

    /// Whether the guard lets a packet with these addresses by, of a root that is guarded. Most packets it does not, for which nothing
    /// else of the rules is looked at.
    #[inline(always)]
    pub(crate) fn lets_by(self, low: LowHalves) -> bool {
        let guard = self.0.as_ptr();
        let differs = |half: u64, at: usize| {
            // SAFETY: within the block.
            let [prefix, mask] = unsafe { *guard.add(GUARD_AT / 2 + at).cast::<[u64; 2]>() };
            (half ^ prefix) & mask != 0
        };
        !differs(low.dst, 0) && !differs(low.src, 2)
    }

    /// Where a visit's cuts from `node` on lead to.
    #[inline(always)]
    fn cut(self, mut node: Node, scratch: &Scratch) -> Node {
        for _ in 0..CUTS {
            if node.kind() != kind::CUT {
                break;
            }
            node = self.at(node.table() + bits(node, scratch));
        }
        node
    }

    /// The rules that this sieve leaves.
    #[inline(always)]
    fn sieve(self, sieve: Node, scratch: &Scratch) -> u64 {
        // All ones when it has one of the shapes, and 0 when it is of layout 2.
        let shaped = sign(-(sieve.shape() as i64)) as usize;
        let shape = SHAPES_AT + sieve.shape() * WINDOWS;
        // Anew, as the compiler knows that it leads out of no block, and kernel 5.10 does not.
        let windows = opaque(sieve.table() ^ (sieve.table() ^ shape) & shaped);
        let tables = sieve.table() & shaped;
        let mut left = u64::MAX;
        for window in 0..WINDOWS {
            let window = self.at(windows + window);
            let index = tables + window.table() + bits(window, scratch) * 2;
            // SAFETY: the block has as many pairs of nodes as the mask lets through.
            left &= unsafe { *self.0.as_ptr().add(index / 2 & (NODE_COUNT / 2 - 1)) };
        }
        left
    }

    /// The rule of the lowest bit of `left` in the sieve at `table`.
    #[inline(always)]
    fn sieved(&self, table: usize, left: u64) -> &Sieved {
        let places = self.0.as_ptr().cast::<u8>();
        // SAFETY: there are as many places as numbers that it can be.
        let place = unsafe { *places.add(PLACES_AT * 4 + place_of(left)) };
        let index = Sieved::first(table) / Sieved::NODES + place as usize;
        // SAFETY: the block has as many as the mask lets through; any octets are one.
        unsafe { &*self.0.as_ptr().cast::<Sieved>().add(index & (NODE_COUNT / Sieved::NODES - 1)) }
    }

    #[inline(always)]
    fn at(self, index: usize) -> Node {
        let nodes = self.0.as_ptr().cast::<u32>();
        // SAFETY: the block has as many nodes as the mask lets through, and any number is one.
        Node(unsafe { *nodes.add(index & (NODE_COUNT - 1)) })
    }

    /// The mask of the first `len` bits of 128.
    #[inline(always)]
    fn mask(self, len: u8) -> [u64; 2] {
        let masks = self.0.as_ptr().cast::<u8>();
        // SAFETY: there is a mask for every octet.
        unsafe { *masks.add(MASKS + len as usize * 16).cast::<[u64; 2]>() }
    }
}

impl Tables<'_> {
    /// The first rule that matches, of a walk whose [first](Nodes::first) cuts led to `node`.
    #[inline(always)]
    pub(crate) fn walk(&self, node: Node, scratch: &mut Scratch) -> Option<Found> {
        let rule = match node.kind() {
            kind::END => return None,
            // That is all, so there is nothing to remember.
            kind::CHECK => self.matches_alone(node.rule(), scratch).then_some(node.rule()),
            _ if node.is_sieve() => return self.sieve(node, scratch),
            // Anew, as what was found out about it here would follow the verifier through the loop.
            _ => self.walk_on(Node(opaque(node.0 as usize) as u32), scratch),
        }?;
        // SAFETY: as in `entry`.
        Some(Found { rule, action: unsafe { (*self.entry(rule)).action } })
    }

    /// The same of one that has more than one rule to check; what it remembers is in `scratch`.
    #[inline(always)]
    fn walk_on(&self, mut node: Node, scratch: &mut Scratch) -> Option<u32> {
        store(&mut scratch.depth, 0);
        store(&mut scratch.rest, Rest(0));
        store(&mut scratch.best, NONE);
        let mut visits = opaque(VISITS);
        while visits != 0 {
            visits = opaque(visits - 1);
            node = self.nodes.cut(node, scratch);
            if node.kind() == kind::LIST {
                let rest = load(&scratch.rest);
                if !rest.is_empty() {
                    let depth = load(&scratch.depth);
                    store(&mut scratch.aside[depth as usize & (STACK - 1)], rest.0);
                    store(&mut scratch.depth, depth + 1);
                }
                store(&mut scratch.rest, Rest(node.table() as u32 | node.count() << 20).next());
                node = self.nodes.at(node.table());
            }
            if node.kind() == kind::CHECK {
                if node.rule() < load(&scratch.best) && self.matches(node.rule(), scratch) {
                    store(&mut scratch.best, node.rule());
                }
            } else if node.kind() != kind::END {
                continue;
            }
            if load(&scratch.rest).is_empty() {
                let depth = load(&scratch.depth);
                if depth == 0 {
                    break;
                }
                store(&mut scratch.depth, depth - 1);
                let aside = load(&scratch.aside[(depth as usize - 1) & (STACK - 1)]);
                store(&mut scratch.rest, Rest(aside));
            }
            let rest = load(&scratch.rest);
            // The rest of a list is larger than the rule that is known.
            if load(&scratch.best) < self.nodes.at(rest.at() + 1).0 {
                store(&mut scratch.rest, Rest(0));
                node = self.nodes.at(EMPTY);
            } else {
                store(&mut scratch.rest, rest.next());
                node = self.nodes.at(rest.at());
            }
        }
        let best = load(&scratch.best);
        (best < ACL_RULES).then_some(best)
    }

    /// The first rule of this sieve that matches.
    #[inline(always)]
    fn sieve(&self, sieve: Node, scratch: &Scratch) -> Option<Found> {
        let mut left = self.nodes.sieve(sieve, scratch);
        let mut checks = opaque(CHECKS);
        while left != 0 && checks != 0 {
            checks = opaque(checks - 1);
            let sieved = self.nodes.sieved(sieve.table(), left);
            let rule = sieved.rule as u32;
            if matches_sieved(sieved, scratch)
                && (sieved.src_open & sieved::MORE == 0 || self.matches(rule, scratch))
            {
                return Some(Found { rule, action: (sieved.src_open & sieved::DENY != 0) as u8 });
            }
            left &= left - 1;
        }
        None
    }

    #[inline(always)]
    fn entry(&self, rule: u32) -> *const Entry {
        let entries = self.entries.as_ptr().cast::<Entry>();
        // SAFETY: the block has as many entries as the mask lets through; any octets are one.
        unsafe { entries.add((rule & (ACL_RULES - 1)) as usize) }
    }

    /// As [`matches`](Self::matches), which it asks only when the addresses' lower halves match: most rules differ there. To be
    /// used where a walk ends with it, since the verifier follows each answer.
    #[inline(always)]
    fn matches_alone(&self, rule: u32, key: &Scratch) -> bool {
        // SAFETY: as in `entry`.
        let entry = unsafe { &*self.entry(rule) };
        let differs = |word: usize, prefix: &[u64; 2], len: u8| {
            (load(&key.key[word]) ^ prefix[1]) & self.nodes.mask(len)[1] != 0
        };
        if differs(word::DST_LOW, &entry.dst, entry.dst_len)
            || differs(word::SRC_LOW, &entry.src, entry.src_len)
        {
            return false;
        }
        self.matches(rule, key)
    }

    /// Whether the packet of this key matches `rule`.
    #[inline(always)]
    fn matches(&self, rule: u32, key: &Scratch) -> bool {
        // SAFETY: as in `entry`.
        let entry = unsafe { &*self.entry(rule) };
        let (src, dst) = (self.nodes.mask(entry.src_len), self.nodes.mask(entry.dst_len));
        let mut differ = (key.word(word::SRC) ^ entry.src[0]) & src[0];
        differ |= (key.word(word::SRC_LOW) ^ entry.src[1]) & src[1];
        differ |= (key.word(word::DST) ^ entry.dst[0]) & dst[0];
        differ |= (key.word(word::DST_LOW) ^ entry.dst[1]) & dst[1];
        differ |= (key.word(word::FIXED) ^ entry.fixed) & entry.fixed_mask;
        differ |= out_of_range(key, entry.src_port, entry.dst_port);
        differ == 0
    }
}

/// Whether the packet of this key matches what `sieved` says of its rule.
#[inline(always)]
fn matches_sieved(sieved: &Sieved, key: &Scratch) -> bool {
    let prefix = |word: usize, prefix: u32, open: u8| {
        let open = (open & sieved::OPEN) as u32;
        ((key.word(word) as u32 ^ prefix) as u64).wrapping_shr(open)
    };
    let mut differ = prefix(word::SRC_LOW, sieved.src, sieved.src_open);
    differ |= prefix(word::DST_LOW, sieved.dst, sieved.dst_open);
    let fixed = key.word(word::FIXED);
    differ |= ((fixed as u32 ^ sieved.fixed) & sieved.fixed_mask) as u64;
    // All ones when it is asked for.
    let customer = 0u64.wrapping_sub((sieved.dst_open / sieved::CUSTOMER) as u64);
    differ |= ((fixed >> 32) ^ sieved.customer as u64) & customer;
    differ |= out_of_range(key, sieved.src_port, sieved.dst_port);
    differ == 0
}

/// 0 when the ports of this key are in these ranges, else all ones.
#[inline(always)]
fn out_of_range(key: &Scratch, src: [u16; 2], dst: [u16; 2]) -> u64 {
    let ports = key.word(word::PORTS) as i64;
    let (source, destination) = (ports >> 16, ports & 0xffff);
    sign(
        (source - src[0] as i64)
            | (src[1] as i64 - source)
            | (destination - dst[0] as i64)
            | (dst[1] as i64 - destination),
    )
}
