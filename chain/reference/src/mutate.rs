//! Packets that are like others and wrong in places: mutations that know where headers are.
//!
//! A mutant is a packet and the steps that are applied to it, so that steps can be left out one by one until those are left
//! that matter. The same seed draws the same mutants.

mod layout;

use layout::{Field, Layout, fields};

/// A source of numbers: the same seed gives the same ones (splitmix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Numbers that begin with `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// One of `all`, which is not empty.
    pub fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// One change of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Octets are written over others.
    Write(usize, Vec<u8>),
    /// Octets come in between.
    Insert(usize, Vec<u8>),
    /// So many octets go.
    Remove(usize, usize),
    /// The packet ends there.
    Cut(usize),
    /// Lengths and checksums are made to fit again.
    Repair,
}

impl Mutation {
    /// Applies it, as far as the packet goes. A packet keeps at least 14 octets.
    pub fn apply(&self, packet: &mut Vec<u8>) {
        match self {
            Self::Write(at, octets) => {
                let end = packet.len().min(at + octets.len());
                if *at < end {
                    packet[*at..end].copy_from_slice(&octets[..end - at]);
                }
            }
            Self::Insert(at, octets) => {
                let at = (*at).min(packet.len());
                packet.splice(at..at, octets.iter().copied());
            }
            Self::Remove(at, n) => {
                let at = (*at).clamp(14, packet.len().max(14));
                let end = (at + n).min(packet.len());
                if at < end {
                    packet.drain(at..end);
                }
            }
            Self::Cut(len) => packet.truncate((*len).max(14)),
            Self::Repair => layout::repair(packet),
        }
    }
}

/// A packet that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    base: Vec<u8>,
    steps: Vec<Mutation>,
}

impl Mutant {
    /// Draws up to `most` changes of `base`. `hosts` are addresses that mean something, `packets` inner ones.
    pub fn draw(base: &[u8], most: usize, hosts: &[[u8; 4]], numbers: &mut Numbers) -> Self {
        let mut packet = base.to_vec();
        let mut steps = Vec::new();
        for _ in 0..=numbers.below(most) {
            let step = draw(&packet, hosts, numbers);
            step.apply(&mut packet);
            steps.push(step);
            // Without it nearly every packet with a change of length would be refused for the same reason.
            if numbers.below(3) == 0 {
                Mutation::Repair.apply(&mut packet);
                steps.push(Mutation::Repair);
            }
        }
        Self { base: base.to_vec(), steps }
    }

    /// The packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = self.base.clone();
        for step in &self.steps {
            step.apply(&mut packet);
        }
        packet
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The mutant with as few steps as `fails` takes: none of them can be left out.
    pub fn shrunk(mut self, mut fails: impl FnMut(&[u8]) -> bool) -> Self {
        let mut at = 0;
        while at < self.steps.len() {
            let mut fewer = self.clone();
            fewer.steps.remove(at);
            if fails(&fewer.packet()) {
                self = fewer;
                at = 0;
            } else {
                at += 1;
            }
        }
        self
    }
}

/// One change.
fn draw(packet: &[u8], hosts: &[[u8; 4]], numbers: &mut Numbers) -> Mutation {
    let layout = Layout::of(packet);
    match numbers.below(16) {
        0 => Mutation::Cut(14 + numbers.below(packet.len().saturating_sub(13).max(1))),
        1 => Mutation::Insert(packet.len(), random(1 + numbers.below(20), numbers)),
        2 => tag(&layout, numbers),
        3 => extension(&layout, numbers),
        4 => options(packet, &layout, numbers),
        5 => {
            let at = 12 + numbers.below(packet.len().saturating_sub(12).max(1));
            let old = packet.get(at).copied().unwrap_or_default();
            Mutation::Write(at, vec![old ^ 1 << numbers.below(8)])
        }
        6 => {
            // Headers lie in front, and there is where octets matter.
            let at = 14 + numbers.below(60.min(packet.len().saturating_sub(13).max(1)));
            if numbers.below(2) == 0 {
                Mutation::Remove(at, 1 + numbers.below(8))
            } else {
                Mutation::Insert(at, random(1 + numbers.below(8), numbers))
            }
        }
        7 => {
            let spots = &layout.addresses;
            match spots.is_empty() {
                true => Mutation::Repair,
                false => Mutation::Write(*numbers.one(spots), numbers.one(hosts).to_vec()),
            }
        }
        8 => {
            // Larger than the way out, or just not.
            let len = packet.len();
            Mutation::Insert(len, random((1380 + numbers.below(200)).saturating_sub(len), numbers))
        }
        _ => {
            let fields = fields(&layout);
            let field = *numbers.one(&fields);
            write(packet, field, numbers)
        }
    }
}

fn random(n: usize, numbers: &mut Numbers) -> Vec<u8> {
    (0..n).map(|_| numbers.next_u64() as u8).collect()
}

/// Another value for a field.
fn write(packet: &[u8], field: Field, numbers: &mut Numbers) -> Mutation {
    let old =
        (0..field.len).fold(0u64, |all, i| all << 8 | u64::from(*packet.get(field.at + i).unwrap_or(&0)));
    let bits = 8 * field.len as u32;
    let around = [1, 2, 4, 8, 20, 40];
    let new = match numbers.below(6) {
        0 if !field.worth.is_empty() => *numbers.one(field.worth),
        1 if !field.worth.is_empty() => *numbers.one(field.worth),
        0 | 1 => numbers.next_u64(),
        2 => old.wrapping_add(*numbers.one(&around)),
        3 => old.wrapping_sub(*numbers.one(&around)),
        4 => old ^ 1 << numbers.below(bits as usize),
        _ => *numbers.one(&[0, 1, u64::MAX]),
    };
    Mutation::Write(field.at, new.to_be_bytes()[8 - field.len..].to_vec())
}

/// A VLAN tag more, or one less.
fn tag(layout: &Layout, numbers: &mut Numbers) -> Mutation {
    if layout.network > 14 && numbers.below(3) == 0 {
        return Mutation::Remove(14, 4);
    }
    let kind = *numbers.one(&[[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]]);
    let control = (numbers.next_u64() as u16).to_be_bytes();
    Mutation::Insert(12, [kind, control].concat())
}

/// A GTP-U extension header more, in front of the others, or optional fields where there are none.
fn extension(layout: &Layout, numbers: &mut Numbers) -> Mutation {
    let Some((at, has_optional)) = layout.gtp else { return Mutation::Repair };
    if !has_optional {
        return Mutation::Insert(at + 8, random(4, numbers));
    }
    // The type of the one before says what this is: the octet in front of it stays, and its own last one follows.
    let units = *numbers.one(&[1, 1, 1, 2, 3]);
    let mut octets = random(4 * units, numbers);
    octets[0] = *numbers.one(&[units as u8, units as u8, units as u8, 0, 255]);
    let last = octets.len() - 1;
    octets[last] = *numbers.one(&[0, 0, 0x85, 0x20, 0x40, 0xc0, 0x82, 0x83, 0x7f]);
    Mutation::Insert(at + 12, octets)
}

/// Options of an IPv4 header, with a header length that says so; or an extension header of IPv6.
fn options(packet: &[u8], layout: &Layout, numbers: &mut Numbers) -> Mutation {
    let Some(at) = [Some(layout.network), layout.inner].into_iter().flatten().nth(numbers.below(2)) else {
        return Mutation::Repair;
    };
    match packet.get(at).map(|first| first >> 4) {
        Some(4) => {
            let words = 6 + numbers.below(10);
            Mutation::Write(at, vec![0x40 | words.min(15) as u8])
        }
        Some(6) => {
            let next = *numbers.one(&[0u8, 43, 44, 51, 60, 50, 59, 135]);
            Mutation::Write(at + 6, vec![next])
        }
        _ => Mutation::Repair,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: [[u8; 4]; 1] = [[192, 0, 2, 1]];

    #[test]
    fn a_seed_draws_the_same_and_no_packet_is_shorter_than_a_frame() {
        let base: Vec<u8> = (0..90).collect();
        let (mut a, mut b) = (Numbers::new(7), Numbers::new(7));
        let mut changed = 0;
        for _ in 0..5_000 {
            let mutant = Mutant::draw(&base, 4, &HOSTS, &mut a);
            assert_eq!(mutant, Mutant::draw(&base, 4, &HOSTS, &mut b));
            let packet = mutant.packet();
            assert!(packet.len() >= 14 && packet.len() < 2_000 && !mutant.is_empty());
            changed += usize::from(packet != base);
        }
        assert!(changed > 4_000, "{changed}");
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let steps = vec![
            Mutation::Write(20, vec![1]),
            Mutation::Insert(90, vec![0; 5]),
            Mutation::Write(30, vec![9]),
            Mutation::Cut(80),
        ];
        let mutant = Mutant { base: vec![0; 90], steps };
        let least = mutant.shrunk(|packet| packet[30] == 9);
        assert_eq!((least.len(), least.packet()[30]), (1, 9));
    }
}
