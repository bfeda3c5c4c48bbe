//! The choice of a sieve: which windows of the key leave the fewest of a set of rules to be checked.
//!
//! A window's vectors say which rules a packet may match that has these bits, so what all of them leave holds every rule that does
//! match. Which windows leave little is tried on packets that the rules match. Those that were best for one sieve are hardly worse
//! for another one of like rules, and sieves that share them, their shape, leave one line less to wait for.

use std::collections::HashMap;

use xdpchain_abi::acl_tables::{CHECKS, SHAPES, SIEVED, WINDOWS, word};

use crate::cube::{Cube, Rule};
use crate::cut::{Chooser, Window};
use crate::sample::Numbers;

/// Packets that are tried for each rule.
const PACKETS: usize = 2;
/// Bits of a window at least, so that each one's vectors are a whole number of cache lines.
const NARROWEST: u32 = 3;
/// Bits of a window at most.
const WIDEST: u32 = 6;
/// The checks of a packet, in the mean, that a shape that other sieves have is worth.
const SHARED: f64 = 0.05;

/// A window, and the rules of each of its values.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    pub(crate) window: Window,
    pub(crate) of: Vec<u64>,
}

/// The shapes of a tree's sieves: the windows of each, ascending.
#[derive(Debug, Default)]
pub(crate) struct Shapes(Vec<Vec<Window>>);

/// Rules to be sieved, and packets to try it on.
struct Trial {
    cubes: Vec<Cube>,
    packets: Vec<Tried>,
    /// The checks of a packet that a vector costs.
    vector: f64,
}

/// A packet that is tried.
struct Tried {
    key: [u64; word::ROOM],
    /// The rules before the first one that it matches.
    before: u64,
}

/// The shape of a sieve of the rules of `set`, ascending, at most [`SIEVED`], of which `chooser` knows the promising windows, and
/// its windows' vectors. None when a packet could be left more than [`CHECKS`] of the rules, or there is no room for a shape and none
/// does.
pub(crate) fn choose(
    rules: &[Rule],
    set: &[u32],
    region: &Cube,
    chooser: &Chooser<'_>,
    shapes: &mut Shapes,
) -> Option<(usize, Vec<Vectors>)> {
    debug_assert!((1..=SIEVED).contains(&set.len()));
    let trial = Trial::new(rules, set, region);
    let own = trial.own(chooser)?;
    if let Some(shape) = shapes.number(&own) {
        return Some((shape, own));
    }
    let mut shared = trial.shared(shapes);
    let enough = if shapes.has_room() { trial.gain(own.iter()) - SHARED } else { 0.0 };
    shared.retain(|(_, gain, _)| *gain >= enough);
    shared.sort_by(|a, b| b.1.total_cmp(&a.1));
    let shared = shared.into_iter().find(|(_, _, vectors)| is_within(vectors, &trial.cubes));
    match shared {
        Some((shape, _, vectors)) => Some((shape, vectors)),
        None => shapes.add(&own).map(|shape| (shape, own)),
    }
}

impl Shapes {
    /// The windows of each, from number 1 on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Window]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The number of that of `vectors`.
    fn number(&self, vectors: &[Vectors]) -> Option<usize> {
        let windows = || vectors.iter().map(|vectors| vectors.window);
        self.0.iter().position(|shape| shape.iter().copied().eq(windows())).map(|at| at + 1)
    }

    fn has_room(&self) -> bool {
        self.0.len() + 1 < SHAPES
    }

    /// That of `vectors` too; its number, if there is room.
    fn add(&mut self, vectors: &[Vectors]) -> Option<usize> {
        self.has_room().then(|| {
            self.0.push(vectors.iter().map(|vectors| vectors.window).collect());
            self.0.len()
        })
    }
}

impl Trial {
    fn new(rules: &[Rule], set: &[u32], region: &Cube) -> Self {
        let cubes: Vec<Cube> = set.iter().map(|rule| rules[*rule as usize].cube.within(region)).collect();
        Self { packets: packets(&cubes), vector: worth(rules.len()), cubes }
    }

    /// The best vectors, one after the other, by ascending windows.
    fn own(&self, chooser: &Chooser<'_>) -> Option<Vec<Vectors>> {
        let widest = (self.cubes.len().ilog2() + 1).clamp(NARROWEST, WIDEST);
        let promising = chooser.windows_of(widest).into_iter().filter(|window| window.width >= NARROWEST);
        let windows = promising.chain((NARROWEST..=widest).flat_map(ports));
        let mut offered: Vec<Vectors> = windows.map(|window| Vectors::new(window, &self.cubes)).collect();
        let mut left = vec![all(self.cubes.len()); self.packets.len()];
        let mut chosen: Vec<Vectors> = Vec::with_capacity(WINDOWS);
        while chosen.len() < WINDOWS {
            let gain = |vectors: &Vectors| {
                let tried = self.packets.iter().zip(&left);
                let saved: u32 =
                    tried.map(|(packet, left)| packet.saved(*left, vectors.at(&packet.key))).sum();
                f64::from(saved) / self.packets.len() as f64 - self.vector * vectors.of.len() as f64
            };
            // The first of equals.
            let best = offered
                .iter()
                .map(gain)
                .enumerate()
                .reduce(|best, other| if other.1 > best.1 { other } else { best });
            let Some((at, gain)) = best else { break };
            if gain <= 0.0 && is_within(&chosen, &self.cubes) {
                break;
            }
            let vectors = offered.swap_remove(at);
            left.iter_mut().zip(&self.packets).for_each(|(left, packet)| *left &= vectors.at(&packet.key));
            chosen.push(vectors);
        }
        chosen.sort_by_key(|vectors| vectors.window);
        (!chosen.is_empty() && is_within(&chosen, &self.cubes)).then_some(chosen)
    }

    /// Each shape, by number, with its gain and vectors for these rules.
    fn shared(&self, shapes: &Shapes) -> Vec<(usize, f64, Vec<Vectors>)> {
        let mut known = HashMap::new();
        let mut of_shape = |windows: &[Window]| -> Vec<Vectors> {
            let mut of = |window| {
                let vectors = known.entry(window).or_insert_with(|| Vectors::new(window, &self.cubes));
                vectors.clone()
            };
            windows.iter().map(|window| of(*window)).collect()
        };
        let of = |(at, windows)| {
            let vectors = of_shape(windows);
            (at + 1, self.gain(vectors.iter()), vectors)
        };
        shapes.iter().enumerate().map(of).collect()
    }

    /// The checks in vain that these vectors save a packet, in the mean, less what they cost.
    fn gain<'a>(&self, vectors: impl Iterator<Item = &'a Vectors> + Clone) -> f64 {
        let saved = |packet: &Tried| {
            let left = vectors.clone().fold(u64::MAX, |left, vectors| left & vectors.at(&packet.key));
            packet.saved(u64::MAX, left)
        };
        let saved: u32 = self.packets.iter().map(saved).sum();
        let count: usize = vectors.clone().map(|vectors| vectors.of.len()).sum();
        f64::from(saved) / self.packets.len() as f64 - self.vector * count as f64
    }
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
            packets.push(Tried { key, before: all(cubes.len()) & !(u64::MAX << first) });
        }
    }
    packets
}

impl Tried {
    /// The checks in vain that are saved when of what is left, `left`, only `vector` is.
    fn saved(&self, left: u64, vector: u64) -> u32 {
        (left & self.before & !vector).count_ones()
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
