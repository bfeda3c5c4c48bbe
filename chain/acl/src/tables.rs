//! Compiled rules as the program has them.

use xdpchain_abi::AclRule;
use xdpchain_abi::acl_tables::{
    BLOCK, CHECKS, COUNT_AT, CUTS, DIGEST_AT, Entry, GUARD_AT, LAYOUT, LAYOUT_AT, MASKS, NODE_COUNT, Node,
    PLACES_AT, ROOT, SHAPES_AT, SIEVED, Sieved, VISITS, WINDOWS, kind, place_of, prefix_mask, sieved, word,
};

use crate::build;
use crate::cube::Rule;
use crate::error::AclError;

/// Octets of an [`Entry`].
const ENTRY: usize = size_of::<Entry>();

/// Nodes of a guard.
const GUARD: usize = 8;

/// Rules whose packets are tried on each tree.
const SAMPLES: usize = 4096;

/// Rules, compiled.
#[derive(Debug)]
pub struct Compiled {
    nodes: Vec<u32>,
    entries: Vec<(u16, Entry)>,
    visits: usize,
}

/// A walk through the decision tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The rule that decides.
    pub rule: Option<u32>,
    /// Visits.
    pub visits: usize,
    /// Cuts.
    pub cuts: usize,
    /// Sieves.
    pub sieves: usize,
    /// Rules that the packet was compared with.
    pub checks: usize,
}

impl Walk {
    /// What it costs the program, in the time of a cut: about, and as far as what is in the caches does not matter.
    pub fn cost(&self) -> usize {
        self.visits + self.cuts + 3 * self.checks + 3 * self.sieves
    }
}

impl Compiled {
    /// Compiles rules, in any order; those that are not in force are left out.
    ///
    /// # Errors
    /// [`AclError`]; of several faulty rules, the first in `rules`.
    pub fn new(rules: &[(u32, AclRule)]) -> Result<Self, AclError> {
        let mut in_force = Vec::with_capacity(rules.len());
        for (key, rule) in rules {
            in_force.extend(Rule::read(*key, rule)?);
        }
        in_force.sort_by_key(|rule| rule.number);
        let entries: Vec<_> = in_force.iter().map(|rule| (rule.number, rule.entry())).collect();
        // A packet for each of some rules, with zeros where the rule is open.
        let step = (in_force.len() / SAMPLES).max(1);
        let keys: Vec<_> = in_force.iter().step_by(step).map(|rule| rule.cube.lowest()).collect();
        let mut tree = build::build(&in_force, |tree| {
            let cost = |key| {
                let walk = walk(tree.root, &tree.nodes, &entries, key);
                walk.cost()
            };
            keys.iter().map(cost).sum::<usize>() as f64
        })?;
        for len in 0..=u8::MAX {
            for (half, mask) in prefix_mask(len).into_iter().enumerate() {
                let at = MASKS / 4 + usize::from(len) * 4 + half * 2;
                tree.nodes[at..at + 2].copy_from_slice(&words(mask));
            }
        }
        let mut places = [0; SIEVED];
        for bit in 0..SIEVED {
            places[place_of(1 << bit)] = bit as u8;
        }
        for (at, four) in places.as_chunks().0.iter().enumerate() {
            tree.nodes[PLACES_AT + at] = u32::from_ne_bytes(*four);
        }
        tree.nodes[ROOT] = match entries.as_slice() {
            [(_, only)] if tree.root.kind() == kind::CHECK => {
                tree.nodes[GUARD_AT..GUARD_AT + GUARD].copy_from_slice(&guard(only));
                tree.root.guarded().0
            }
            _ => tree.root.0,
        };
        tree.nodes[LAYOUT_AT] = LAYOUT;
        tree.nodes[DIGEST_AT..DIGEST_AT + 2].copy_from_slice(&words(digest(rules)));
        tree.nodes[COUNT_AT] = in_force.len() as u32;
        Ok(Self { nodes: tree.nodes, entries, visits: tree.visits })
    }

    /// How many rules are in force.
    pub fn rules(&self) -> usize {
        self.entries.len()
    }

    /// The most visits that a packet takes.
    pub fn visits(&self) -> usize {
        self.visits
    }

    /// Octets in use of both blocks.
    pub fn octets(&self) -> usize {
        self.nodes.len() * 4 + self.entries.len() * ENTRY
    }

    /// Writes the blocks into a new map's octets, which are zero.
    ///
    /// # Panics
    /// When there is less than two blocks.
    pub fn write(&self, blocks: &mut [u8]) {
        let (nodes, entries) = blocks.split_at_mut(BLOCK);
        for (octets, node) in nodes.as_chunks_mut::<4>().0.iter_mut().zip(&self.nodes) {
            *octets = node.to_ne_bytes();
        }
        for (number, entry) in &self.entries {
            entries[usize::from(*number) * ENTRY..][..ENTRY].copy_from_slice(&octets(entry));
        }
    }

    /// Follows the tree as the program does, which asks the guard of plain packets only: others it compares with the rule,
    /// which does not match them either.
    pub fn walk(&self, key: &[u64; word::ROOM]) -> Walk {
        walk(Node(self.nodes[ROOT]), &self.nodes, &self.entries, key)
    }
}

/// A walk from `root`; `entries` are ascending by number.
fn walk(root: Node, nodes: &[u32], entries: &[(u16, Entry)], key: &[u64; word::ROOM]) -> Walk {
    let node = |at: usize| Node(nodes.get(at % NODE_COUNT).copied().unwrap_or(0));
    let matches = |rule: u32| {
        let found = entries.binary_search_by_key(&rule, |(number, _)| u32::from(*number));
        found.is_ok_and(|at| entry_matches(&entries[at].1, key))
    };
    let bits = |cut: Node| ((key[cut.word()] >> cut.shift()) as u32 & cut.mask()) as usize;
    let mut walk = Walk::default();
    if root.is_guarded() && !guard_lets_by(|at| node(at).0, key) {
        walk.visits = 1;
        return walk;
    }
    let mut at = root;
    let mut list = (0, 0);
    let mut aside = Vec::new();
    for _ in 0..VISITS {
        walk.visits += 1;
        for _ in 0..CUTS {
            if at.kind() != kind::CUT {
                break;
            }
            walk.cuts += 1;
            at = node(at.table() + bits(at));
        }
        if walk.visits == 1 && at.is_sieve() {
            walk.sieves += 1;
            let mut left = (0..WINDOWS).fold(u64::MAX, |left, window| {
                let window = node(SHAPES_AT + at.shape() * WINDOWS + window);
                let vector = at.table() + window.table() + bits(window) * 2;
                left & number([node(vector).0, node(vector + 1).0])
            });
            for _ in 0..CHECKS {
                if left == 0 {
                    break;
                }
                let first = Sieved::first(at.table()) + left.trailing_zeros() as usize * Sieved::NODES;
                let found = sieved_of(std::array::from_fn(|word| node(first + word).0));
                let rule = u32::from(found.rule);
                walk.checks += 1;
                if sieved_matches(&found, key) && (found.src_open & sieved::MORE == 0 || matches(rule)) {
                    walk.rule = Some(rule);
                    break;
                }
                left &= left - 1;
            }
            return walk;
        }
        if at.kind() == kind::LIST {
            if list.1 > 0 {
                aside.push(list);
            }
            list = (at.table() + 2, at.count() - 1);
            at = node(at.table());
        }
        if at.kind() == kind::CHECK && walk.rule.is_none_or(|best| at.rule() < best) {
            walk.checks += 1;
            if matches(at.rule()) {
                walk.rule = Some(at.rule());
            }
        }
        if matches!(at.kind(), kind::CUT | kind::LIST) {
            continue;
        }
        if list.1 == 0 {
            let Some(next) = aside.pop() else { break };
            list = next;
        }
        if walk.rule.is_some_and(|best| best < node(list.0 + 1).0) {
            // The rest of this list is larger than the rule that is known.
            at = Node::default();
            list.1 = 0;
        } else {
            at = node(list.0);
            list = (list.0 + 2, list.1 - 1);
        }
    }
    walk
}

/// The guard in front of a rule that is alone.
fn guard(rule: &Entry) -> [u32; GUARD] {
    let mut guard = [0; GUARD];
    let of = [(rule.dst, rule.dst_len), (rule.src, rule.src_len)];
    for (nodes, (prefix, len)) in guard.as_chunks_mut::<4>().0.iter_mut().zip(of) {
        let mask = prefix_mask(len)[1];
        nodes[..2].copy_from_slice(&words(prefix[1]));
        nodes[2..].copy_from_slice(&words(mask));
    }
    guard
}

fn guard_lets_by(node: impl Fn(usize) -> u32, key: &[u64; word::ROOM]) -> bool {
    let word_of = |at: usize| number([node(GUARD_AT + at), node(GUARD_AT + at + 1)]);
    let differs = |word: usize, at: usize| (key[word] ^ word_of(at)) & word_of(at + 2) != 0;
    !differs(word::DST_LOW, 0) && !differs(word::SRC_LOW, 4)
}

fn sieved_matches(rule: &Sieved, key: &[u64; word::ROOM]) -> bool {
    let in_prefix =
        |at: usize, prefix: u32, open: u8| u64::from(key[at] as u32 ^ prefix) >> (open & sieved::OPEN) == 0;
    in_prefix(word::SRC_LOW, rule.src, rule.src_open)
        && in_prefix(word::DST_LOW, rule.dst, rule.dst_open)
        && (key[word::FIXED] as u32 ^ rule.fixed) & rule.fixed_mask == 0
        && (rule.dst_open & sieved::CUSTOMER == 0 || key[word::FIXED] >> 32 == u64::from(rule.customer))
        && within(key[word::PORTS] >> 16 & 0xffff, rule.src_port)
        && within(key[word::PORTS] & 0xffff, rule.dst_port)
}

fn within(port: u64, range: [u16; 2]) -> bool {
    u64::from(range[0]) <= port && port <= u64::from(range[1])
}

fn entry_matches(entry: &Entry, key: &[u64; word::ROOM]) -> bool {
    let in_prefix = |first: usize, prefix: [u64; 2], len: u8| {
        let mask = prefix_mask(len);
        (0..2).all(|half| (key[first + half] ^ prefix[half]) & mask[half] == 0)
    };
    in_prefix(word::SRC, entry.src, entry.src_len)
        && in_prefix(word::DST, entry.dst, entry.dst_len)
        && (key[word::FIXED] ^ entry.fixed) & entry.fixed_mask == 0
        && within(key[word::PORTS] >> 16 & 0xffff, entry.src_port)
        && within(key[word::PORTS] & 0xffff, entry.dst_port)
}

/// Tells sets of rules apart, in whatever order they are given: what was compiled from what is in the map now.
pub fn digest(rules: &[(u32, AclRule)]) -> u64 {
    let of = |key: &u32, rule: &AclRule| {
        let fields = [
            u64::from(*key) << 32 | u64::from(rule.customer),
            u64::from(rule.flags) << 32
                | u64::from(u32::from_ne_bytes([rule.src_len, rule.dst_len, rule.protocol, rule.action])),
            ports(rule.src_port) << 32 | ports(rule.dst_port),
            u64::from(rule.direction),
        ];
        let addresses = [rule.src, rule.dst].map(|address| {
            let (halves, _) = address.octets.as_chunks::<8>();
            [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])]
        });
        fields.into_iter().chain(addresses.into_iter().flatten()).fold(0, |hash, field| mixed(hash ^ field))
    };
    rules.iter().fold(mixed(rules.len() as u64), |sum, (key, rule)| sum.wrapping_add(of(key, rule)))
}

fn ports(range: [u16; 2]) -> u64 {
    u64::from(range[0]) << 16 | u64::from(range[1])
}

/// A one-to-one map of numbers in which each bit of the result depends on each bit of `x` (splitmix64's).
fn mixed(x: u64) -> u64 {
    let mut x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A number as two nodes, in the order in which it lies in memory.
pub(crate) fn words(number: u64) -> [u32; 2] {
    let octets = number.to_ne_bytes();
    let (halves, _) = octets.as_chunks::<4>();
    [u32::from_ne_bytes(halves[0]), u32::from_ne_bytes(halves[1])]
}

/// The number that these nodes are.
fn number([first, second]: [u32; 2]) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// An entry as it lies in memory.
fn octets(entry: &Entry) -> [u8; ENTRY] {
    let mut octets = [0; ENTRY];
    let Entry { src, dst, fixed, fixed_mask, src_port, dst_port, src_len, dst_len, action, reserved: _ } =
        *entry;
    let numbers = [src[0], src[1], dst[0], dst[1], fixed, fixed_mask];
    for (part, number) in octets.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *part = number.to_ne_bytes();
    }
    for (part, port) in
        octets[48..].as_chunks_mut::<2>().0.iter_mut().zip([src_port, dst_port].into_iter().flatten())
    {
        *part = port.to_ne_bytes();
    }
    octets[56..59].copy_from_slice(&[src_len, dst_len, action]);
    octets
}

/// A sieve's rule as nodes.
pub(crate) fn sieved_words(sieved: &Sieved) -> [u32; Sieved::NODES] {
    let Sieved { src, dst, customer, fixed, fixed_mask, src_port, dst_port, rule, src_open, dst_open } =
        *sieved;
    let [low, high] = rule.to_ne_bytes();
    let last = u32::from_ne_bytes([low, high, src_open, dst_open]);
    [src, dst, customer, fixed, fixed_mask, range(src_port), range(dst_port), last]
}

/// The sieve's rule that these nodes are.
fn sieved_of(nodes: [u32; Sieved::NODES]) -> Sieved {
    let [src, dst, customer, fixed, fixed_mask, src_port, dst_port, last] = nodes;
    let range = |node: u32| {
        let octets = node.to_ne_bytes();
        [u16::from_ne_bytes([octets[0], octets[1]]), u16::from_ne_bytes([octets[2], octets[3]])]
    };
    let [low, high, src_open, dst_open] = last.to_ne_bytes();
    let rule = u16::from_ne_bytes([low, high]);
    let (src_port, dst_port) = (range(src_port), range(dst_port));
    Sieved { src, dst, customer, fixed, fixed_mask, src_port, dst_port, rule, src_open, dst_open }
}

/// A range of ports as a node.
fn range([low, high]: [u16; 2]) -> u32 {
    let ([a, b], [c, d]) = (low.to_ne_bytes(), high.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}
