//! The choice of a cut: which bits of the key tell a set of rules apart best.
//!
//! Rules are told apart by a window of bits of one word. A rule that leaves a window open belongs to several of its
//! values; one that belongs to many is put aside, into a tree of its own, rather than copied into every value's, unless
//! copies are cheaper.

use xdpchain_abi::acl_tables::{WIDEST, fact, word};

use crate::cube::{BITS, Cube, Rule};

/// A window of bits of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Window {
    /// The key's word.
    pub(crate) word: usize,
    /// Bits of the word below it.
    pub(crate) shift: u32,
    /// Bits.
    pub(crate) width: u32,
}

/// A window, and which rules it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) window: Window,
    /// Rules that belong to at least so many of the window's values are put aside.
    pub(crate) aside_from: u32,
    /// How much it tells, in bits for each rule, less what it costs.
    pub(crate) gain: f32,
}

/// Which values of a window a rule belongs to.
pub(crate) enum Values {
    /// Those that are `base` in the bits of `mask`, within `all`.
    Bits { base: u32, mask: u32, all: u32 },
    /// A range, both ends included.
    Range { low: u32, high: u32 },
    /// Such a range of numbers, of which the lower bits, `all`, are the values.
    Around { low: u32, high: u32, all: u32 },
}

impl Window {
    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        1 << self.width
    }

    /// Whether it is of a port, and of which.
    fn port(&self) -> Option<(usize, u32)> {
        (self.word == word::PORTS)
            .then(|| if self.shift < 16 { (1, self.shift) } else { (0, self.shift - 16) })
    }

    /// The values to which `cube` belongs, in `region`.
    pub(crate) fn values(&self, cube: &Cube, region: &Cube) -> Values {
        let all = (1u32 << self.width) - 1;
        match self.port() {
            None => {
                let mask = (cube.mask[self.word] >> self.shift) as u32 & all;
                Values::Bits { base: (cube.value[self.word] >> self.shift) as u32 & mask, mask, all }
            }
            Some((port, shift)) => {
                let [low, high] = cube.ports[port].map(u32::from);
                let [first, last] = region.ports[port].map(u32::from);
                Values::Range { low: (low.max(first) >> shift) & all, high: (high.min(last) >> shift) & all }
            }
        }
    }

    /// The values of packets in `cube`, wherever the window is: of a port perhaps more than one after the other.
    pub(crate) fn any_values(&self, cube: &Cube) -> Values {
        let Some((port, shift)) = self.port() else { return self.values(cube, &Cube::ALL) };
        let all = (1u32 << self.width) - 1;
        let [low, high] = cube.ports[port].map(|port| u32::from(port) >> shift);
        if high - low >= all {
            Values::Range { low: 0, high: all }
        } else {
            Values::Around { low, high, all }
        }
    }

    /// The part of `region` with this value.
    pub(crate) fn narrowed(&self, region: &Cube, value: u32) -> Cube {
        let mut part = *region;
        match self.port() {
            None => {
                part.mask[self.word] |= ((1u64 << self.width) - 1) << self.shift;
                part.value[self.word] |= u64::from(value) << self.shift;
            }
            Some((port, shift)) => {
                // The region is all ports that begin with certain bits, and the window is right behind them.
                let low = region.ports[port][0] | (value << shift) as u16;
                part.ports[port] = [low, low | ((1u32 << shift) - 1) as u16];
            }
        }
        part
    }
}

impl Values {
    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        match *self {
            Self::Bits { mask, all, .. } => 1 << (all & !mask).count_ones(),
            Self::Range { low, high } | Self::Around { low, high, .. } => high - low + 1,
        }
    }

    /// Calls `each` with every value.
    pub(crate) fn each(&self, mut each: impl FnMut(u32)) {
        match *self {
            Self::Range { low, high } => (low..=high).for_each(each),
            Self::Around { low, high, all } => (low..=high).for_each(|number| each(number & all)),
            Self::Bits { base, mask, all } => {
                let open = all & !mask;
                let mut part = 0u32;
                loop {
                    each(base | part);
                    part = part.wrapping_sub(open) & open;
                    if part == 0 {
                        return;
                    }
                }
            }
        }
    }
}

/// What a bit of a window costs in bits of gain, where sets need not be told apart to the last rule.
const BIT: f32 = 0.1;

/// What the choice of cuts weighs. No one weight suits every set of rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What putting rules aside costs every packet, in bits of gain.
    pub(crate) fork: f32,
    /// So many rules that nothing tells apart well are checked one after the other.
    pub(crate) few: usize,
    /// Nodes that a copy of a rule will need further down, at most.
    pub(crate) copy: f64,
    /// Sets of up to so many rules are put through a sieve, if there is one; 0 for none.
    pub(crate) sieved: usize,
    /// Sets of so many rules need not be told apart further; 0 for none.
    pub(crate) enough: usize,
}

impl Plan {
    /// Nodes that `copies` of rules need from here on, `together` in a set: what is told apart needs none of its own, and
    /// what is not has cuts before it that make more copies.
    fn nodes(&self, copies: usize, together: f64) -> usize {
        (copies as f64 * (together * 1.5).clamp(1.0, self.copy)) as usize
    }
}

/// The choice among the windows of one set of rules.
pub(crate) struct Chooser<'a> {
    rules: &'a [Rule],
    set: &'a [u32],
    region: &'a Cube,
    /// Nodes that there may be in all.
    budget: usize,
    plan: Plan,
    counts: Vec<u32>,
    asides: Vec<i32>,
}

impl<'a> Chooser<'a> {
    pub(crate) fn new(
        rules: &'a [Rule],
        set: &'a [u32],
        region: &'a Cube,
        budget: usize,
        plan: Plan,
    ) -> Self {
        Self { rules, set, region, budget, plan, counts: Vec::new(), asides: Vec::new() }
    }

    /// Between IPv4 and IPv6, when rules are of both and mostly of one: each word of an address means something else in
    /// the other family.
    fn family(&self) -> Option<Cut> {
        let (mut of, open) = ([0usize; 2], self.region.mask[word::FIXED] & fact::IPV4 == 0);
        for rule in self.set {
            let cube = &self.rules[*rule as usize].cube;
            if cube.mask[word::FIXED] & fact::IPV4 != 0 {
                of[usize::from(cube.value[word::FIXED] & fact::IPV4 != 0)] += 1;
            }
        }
        let both =
            open && of[0] > 0 && of[1] > 0 && of[0] + of[1] >= self.set.len() / 2 && self.set.len() > 32;
        both.then_some(Cut {
            window: Window { word: word::FIXED, shift: fact::IPV4.trailing_zeros(), width: 1 },
            aside_from: u32::MAX,
            gain: f32::MAX,
        })
    }

    /// The best cut; none when no window tells any two rules apart.
    pub(crate) fn best(mut self) -> Option<Cut> {
        if let Some(cut) = self.family() {
            return Some(cut);
        }
        let mut best: Option<Cut> = None;
        for window in self.windows() {
            for cut in self.judge(window).into_iter().flatten() {
                if best.is_none_or(|best| cut.gain > best.gain + 0.01) {
                    best = Some(cut);
                }
            }
        }
        best
    }

    /// The widest window worth looking at.
    fn widest(&self) -> u32 {
        (self.set.len().ilog2() + 2).clamp(3, WIDEST)
    }

    /// Windows that look promising.
    fn windows(&self) -> Vec<Window> {
        self.windows_of(self.widest())
    }

    /// Windows, of up to `widest` bits, that look promising.
    pub(crate) fn windows_of(&self, widest: u32) -> Vec<Window> {
        let mut windows = Vec::new();
        let step = if widest > 8 { 2 } else { 1 };
        for w in 0..BITS {
            let Some(scores) = self.scores(w) else { continue };
            let mut sums = [0u64; 65];
            for bit in 0..64 {
                sums[bit + 1] = sums[bit] + u64::from(scores[bit]);
            }
            let mut width = widest;
            while width >= 3 {
                let shifts = 0..=(64 - width as usize);
                let score = |shift: &usize| sums[shift + width as usize] - sums[*shift];
                // The lowest of equals, and one that does not overlap it.
                let first = shifts.clone().rev().max_by_key(score).unwrap_or(0);
                windows.push(Window { word: w, shift: first as u32, width });
                let apart = shifts.rev().filter(|s| s.abs_diff(first) >= width as usize);
                if let Some(second) = apart.max_by_key(score)
                    && score(&second) > 0
                {
                    windows.push(Window { word: w, shift: second as u32, width });
                }
                if width == 3 {
                    break;
                }
                width = (width - step).max(3);
            }
        }
        for port in 0..2 {
            let [low, high] = self.region.ports[port];
            let bits = (high - low).count_ones();
            let first = self.rules[self.set[0] as usize].cube.ports[port];
            if bits == 0 || self.set.iter().all(|r| self.rules[*r as usize].cube.ports[port] == first) {
                continue;
            }
            let base = if port == 0 { 16 } else { 0 };
            let mut width = widest.min(bits);
            loop {
                windows.push(Window { word: word::PORTS, shift: base + bits - width, width });
                if width <= 3 {
                    break;
                }
                width = (width - step).max(3);
            }
        }
        windows
    }

    /// How well each bit of word `w` alone tells rules apart; none when no bit does.
    fn scores(&self, w: usize) -> Option<[u32; 64]> {
        let (mut ones, mut zeros) = (0u64, 0u64);
        for rule in self.set {
            let cube = &self.rules[*rule as usize].cube;
            ones |= cube.value[w];
            zeros |= cube.mask[w] & !cube.value[w];
        }
        // Bits that part of the rules leaves open count too: they tell those apart that do not.
        let open = ones & zeros & !self.region.mask[w];
        if open == 0 {
            return None;
        }
        let (mut set, mut clear) = ([0u32; 64], [0u32; 64]);
        for rule in self.set {
            let cube = &self.rules[*rule as usize].cube;
            let mut bits = cube.mask[w] & open;
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                if cube.value[w] >> bit & 1 == 1 {
                    set[bit] += 1
                } else {
                    clear[bit] += 1
                }
                bits &= bits - 1;
            }
        }
        let mut scores = [0; 64];
        for bit in 0..64 {
            scores[bit] = set[bit].min(clear[bit]);
        }
        Some(scores)
    }

    /// What cutting by `window` is worth: with copies of every rule that leaves it open, and with those put aside that
    /// belong to many of its values.
    fn judge(&mut self, window: Window) -> [Option<Cut>; 3] {
        let len = window.len() as u32;
        [u32::MAX, (len / 4).max(2), (len / 64).max(2)].map(|aside_from| self.judge_aside(window, aside_from))
    }

    fn judge_aside(&mut self, window: Window, aside_from: u32) -> Option<Cut> {
        self.counts.clear();
        self.counts.resize(window.len(), 0);
        self.asides.clear();
        self.asides.resize(window.len() + 1, 0);
        let (rules, room) = (self.set.len(), self.room());
        let (mut everywhere, mut aside, mut copies) = (0u32, 0usize, 0usize);
        for rule in self.set {
            let values = window.values(&self.rules[*rule as usize].cube, self.region);
            let len = values.len();
            if len >= aside_from {
                aside += 1;
                continue;
            }
            if len as usize == window.len() {
                everywhere += 1;
                continue;
            }
            copies += len as usize;
            if copies + window.len() > room {
                return None;
            }
            match values {
                // Of long ranges only where they begin and end, so that none takes long.
                Values::Range { low, high } if len > 1 => {
                    self.asides[low as usize] += 1;
                    self.asides[high as usize + 1] -= 1;
                }
                values => values.each(|value| self.counts[value as usize] += 1),
            }
        }
        if aside == rules || (aside == 0 && aside_from != u32::MAX) {
            return None;
        }
        let (mut copies, mut most, mut weight, mut sum) = (0usize, 0u32, 0f64, 0f64);
        let mut open = 0i32;
        for (value, own) in self.counts.iter().enumerate() {
            open += self.asides[value];
            let own = own + open as u32;
            let all = own + everywhere;
            most = most.max(all);
            if own > 0 {
                copies += all as usize;
                // Packets are expected where rules are specific.
                weight += f64::from(own);
                sum += f64::from(own) * f64::from(all);
            }
        }
        if most as usize >= rules || weight == 0.0 {
            return None;
        }
        let mean = sum / weight;
        if self.plan.nodes(copies, mean) + window.len() > room {
            return None;
        }
        let told = (rules - aside) as f32 / rules as f32;
        let fork = if aside > 0 { self.plan.fork } else { 0.0 };
        let enough = mean.max(self.plan.enough as f64) as f32;
        let room = if self.plan.enough > 0 { BIT * window.width as f32 } else { 0.0 };
        let gain = told * (rules as f32 / enough).log2() - fork - room;
        Some(Cut { window, aside_from, gain })
    }

    /// Nodes that a cut may lead to. One that makes next to no copies is always possible.
    fn room(&self) -> usize {
        self.budget.max(3 * self.set.len() + 16)
    }
}
