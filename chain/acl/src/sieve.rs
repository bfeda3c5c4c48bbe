//! The choice of a sieve: which windows of the key leave the fewest of a set of rules to be checked.
//!
//! A window's vectors say which rules a packet may match that has these bits, so what all of them leave holds every rule that does
//! match. Which windows leave little is tried on packets that the rules match.

use xdpchain_abi::acl_tables::{CHECKS, SIEVED, WINDOWS, word};

use crate::cube::{Cube, Rule};
use crate::cut::{Chooser, Window};
use crate::sample::Numbers;

/// Packets that are tried for each rule.
const PACKETS: usize = 2;
/// Bits of a window at least.
const NARROWEST: u32 = 3;
/// Bits of a window at most.
const WIDEST: u32 = 6;

/// A window, and the rules of each of its values.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    pub(crate) window: Window,
    pub(crate) of: Vec<u64>,
}

/// A packet that is tried.
struct Tried {
    key: [u64; word::ROOM],
    /// The rules before the first one that it matches.
    before: u64,
    /// Those that are left so far.
    left: u64,
}

/// The windows for the rules of `set`, ascending, at most [`SIEVED`], of which `chooser` knows the promising ones. None when a
/// packet could be left more than [`CHECKS`] of them.
pub(crate) fn choose(
    rules: &[Rule],
    set: &[u32],
    region: &Cube,
    chooser: &Chooser<'_>,
) -> Option<Vec<Vectors>> {
    debug_assert!((1..=SIEVED).contains(&set.len()));
    let cubes: Vec<Cube> = set.iter().map(|rule| rules[*rule as usize].cube.within(region)).collect();
    let widest = (set.len().ilog2() + 1).clamp(NARROWEST, WIDEST);
    let windows = chooser.windows_of(widest).into_iter().chain((NARROWEST..=widest).flat_map(ports));
    let mut offered: Vec<Vectors> = windows.map(|window| Vectors::new(window, &cubes)).collect();
    let mut packets = packets(&cubes);
    let vector = worth(rules.len());
    let mut chosen: Vec<Vectors> = Vec::with_capacity(WINDOWS);
    while chosen.len() < WINDOWS {
        let gain = |vectors: &Vectors| {
            let saved: u32 = packets.iter().map(|packet| packet.saved(vectors.at(&packet.key))).sum();
            f64::from(saved) / packets.len() as f64 - vector * vectors.of.len() as f64
        };
        // The first of equals.
        let best = offered
            .iter()
            .map(gain)
            .enumerate()
            .reduce(|best, other| if other.1 > best.1 { other } else { best });
        let Some((at, gain)) = best else { break };
        if gain <= 0.0 && is_within(&chosen, &cubes) {
            break;
        }
        let vectors = offered.swap_remove(at);
        packets.iter_mut().for_each(|packet| packet.left &= vectors.at(&packet.key));
        chosen.push(vectors);
    }
    (!chosen.is_empty() && is_within(&chosen, &cubes)).then_some(chosen)
}

/// Whether no packet is left more rules than may be checked.
fn is_within(chosen: &[Vectors], cubes: &[Cube]) -> bool {
    most(chosen, all(cubes.len())) as usize <= CHECKS
}

/// A vector with the first `count` bits.
fn all(count: usize) -> u64 {
    u64::MAX >> (SIEVED - count)
}

/// The checks of a packet, in the mean, that a vector is worth: of a sieve among many, less is in the caches.
fn worth(rules: usize) -> f64 {
    (rules as f64 * 1.25e-6).clamp(0.0003, 0.0125)
}

/// Windows of ports of this width, at every other bit.
fn ports(width: u32) -> impl Iterator<Item = Window> {
    let shifts = (0..=16 - width).step_by(2);
    [0, 16].into_iter().flat_map(move |port| {
        shifts.clone().map(move |shift| Window { word: word::PORTS, shift: port + shift, width })
    })
}

/// Packets that the rules match; where a rule is open, at random.
fn packets(cubes: &[Cube]) -> Vec<Tried> {
    let mut numbers = Numbers(cubes.len() as u64);
    let mut packets = Vec::with_capacity(cubes.len() * PACKETS);
    for cube in cubes {
        for _ in 0..PACKETS {
            let mut key = cube.lowest();
            for (word, mask) in key.iter_mut().zip(cube.mask) {
                *word |= numbers.next() & !mask;
            }
            let mut port = |[low, high]: [u16; 2]| u64::from(low) + numbers.below(u64::from(high - low) + 1);
            key[word::PORTS] = port(cube.ports[0]) << 16 | port(cube.ports[1]);
            let first = cubes.iter().take_while(|cube| !cube.has(&key)).count();
            packets.push(Tried {
                key,
                before: all(cubes.len()) & !(u64::MAX << first),
                left: all(cubes.len()),
            });
        }
    }
    packets
}

impl Tried {
    /// The checks in vain that are saved when of what is left only `vector` is.
    fn saved(&self, vector: u64) -> u32 {
        (self.left & self.before & !vector).count_ones()
    }
}

impl Vectors {
    fn new(window: Window, cubes: &[Cube]) -> Self {
        let mut of = vec![0; window.len()];
        for (bit, cube) in cubes.iter().enumerate() {
            window.any_values(cube).each(|value| of[value as usize] |= 1 << bit);
        }
        Self { window, of }
    }

    /// The vector for a packet of this key.
    fn at(&self, key: &[u64; word::ROOM]) -> u64 {
        self.of[(key[self.window.word] >> self.window.shift) as usize & (self.of.len() - 1)]
    }
}

/// The most rules that any choice of one vector of each leaves of `left`.
fn most(vectors: &[Vectors], left: u64) -> u32 {
    let count = left.count_ones();
    let Some((first, others)) = vectors.split_first() else { return count };
    // Less is never left of less.
    if count as usize <= CHECKS {
        return count;
    }
    let mut seen: Vec<u64> = first.of.iter().map(|vector| vector & left).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.into_iter().map(|left| most(others, left)).max().unwrap_or(0)
}
