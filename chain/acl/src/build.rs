//! Rules to a decision tree.
//!
//! Invariant: under every node stand all rules of its set but those that an earlier one makes idle there, so that the
//! smallest rule that is checked and matches is the one that decides.

use std::collections::{HashMap, HashSet};

use xdpchain_abi::acl_tables::{
    CUTS, LONGEST, NODE_COUNT, Node, SHAPES_AT, STACK, Sieved, TABLES, VISITS, WINDOWS, kind,
};

use crate::cube::{Cube, Rule};
use crate::cut::{Chooser, Plan, Window};
use crate::error::AclError;
use crate::sieve::{self, Shapes, Vectors};
use crate::tables;

/// Sets of so many rules are searched for idle ones pair by pair.
const PAIRS: usize = 24;
/// The gain from which on few rules are cut all the same.
const WORTH: f32 = 0.3;
/// Nodes for each rule, so that the tree stays in the caches.
const NODES: usize = 16;
/// Nodes in any case.
const LEAST: usize = 4096;
/// Nodes to plan with at most. Plans are not kept to the last node.
const MOST: usize = NODE_COUNT / 4 * 3;

/// A plan for rules that no other one has a short enough way for: whatever there is of memory.
const LAST: Plan = Plan { fork: 1e6, copy: 2.0, few: 2, sieved: 0, enough: 0 };

/// The plans; the one with the fastest tree is kept.
const PLANS: [Plan; 10] = [
    Plan { fork: 3.0, copy: 3.0, few: 6, sieved: 64, enough: 32 },
    Plan { fork: 6.0, copy: 10.0, few: 6, sieved: 64, enough: 32 },
    Plan { fork: 3.0, copy: 3.0, few: 6, sieved: 12, enough: 0 },
    Plan { fork: 0.5, copy: 3.0, few: 6, sieved: 12, enough: 0 },
    Plan { fork: 3.0, copy: 3.0, few: 6, sieved: 0, enough: 0 },
    Plan { fork: 0.5, copy: 10.0, few: 6, sieved: 0, enough: 0 },
    Plan { fork: 6.0, copy: 3.0, few: 6, sieved: 0, enough: 0 },
    Plan { fork: 0.5, copy: 3.0, few: 6, sieved: 0, enough: 0 },
    Plan { fork: 1.5, copy: 10.0, few: 6, sieved: 0, enough: 0 },
    Plan { fork: 6.0, copy: 10.0, few: 6, sieved: 0, enough: 0 },
];

/// How many of them have sieves, the first ones. A tree of theirs in which all packets take one visit is hardly ever the slower one,
/// and so the others are not tried on as many rules as [`MANY`].
const SIEVING: usize = 4;
const MANY: usize = 1000;

/// A tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: Node,
    /// Nodes by index; of those before the first table only the shapes are written.
    pub(crate) nodes: Vec<u32>,
    /// The most visits that a walk takes.
    pub(crate) visits: usize,
}

/// What walking a node costs at most.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Visits to its end, by how many cuts of the first one are used up.
    visits: [usize; CUTS + 1],
    /// Lists put aside, when there is nothing left of the list that it is in, and when there is.
    stack: [usize; 2],
}

/// A built node.
#[derive(Clone, Copy, Debug)]
struct Built {
    node: Node,
    cost: Cost,
    /// The smallest rule beneath it.
    first: u32,
}

/// Builds the tree of `rules`, which are in order; of the trees that the program can walk the one for which `cost` is
/// least.
pub(crate) fn build(rules: &[Rule], cost: impl Fn(&Tree) -> f64) -> Result<Tree, AclError> {
    let set: Vec<u32> = (0..rules.len() as u32).collect();
    let (mut best, mut refused) = (None::<(f64, Tree)>, None);
    let plans = PLANS.map(|plan| (plan, LEAST + rules.len() * NODES));
    let plans = plans.into_iter().chain([(LAST, LEAST + rules.len() * NODES * 16), (LAST, MOST)]);
    for (at, (plan, budget)) in plans.enumerate() {
        let enough = match &best {
            Some((_, tree)) => at >= PLANS.len() || at >= SIEVING && rules.len() >= MANY && tree.visits == 1,
            None => false,
        };
        if enough {
            break;
        }
        let mut builder =
            Builder { rules, plan, nodes: vec![0; TABLES], shapes: Shapes::default(), longest: Vec::new() };
        match builder.node(set.clone(), &Cube::ALL, budget.min(MOST), Some(0)) {
            Ok(built) if built.cost.visits[0] <= VISITS && built.cost.stack[0] <= STACK => {
                builder.write_shapes();
                let tree = Tree { root: built.node, nodes: builder.nodes, visits: built.cost.visits[0] };
                // Of trees that are as fast the smaller one.
                let cost = cost(&tree) * (1.0 + tree.nodes.len() as f64 / (4 * NODE_COUNT) as f64);
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, tree));
                }
            }
            Ok(built) => {
                // Of several refusals the closest tells most.
                let visits = built.cost.visits[0];
                let closer = |other: &AclError| match other {
                    AclError::Complex { visits: before, .. } => visits < *before,
                    _ => true,
                };
                if refused.as_ref().is_none_or(closer) {
                    refused =
                        Some(AclError::Complex { rules: rules.len(), visits, closest: builder.closest() });
                }
            }
            Err(TooLarge) => {
                refused.get_or_insert(AclError::Large { rules: rules.len() });
            }
        }
    }
    match best {
        Some((_, tree)) => Ok(tree),
        None => Err(refused.unwrap_or(AclError::Large { rules: rules.len() })),
    }
}

/// There are no nodes left.
struct TooLarge;

struct Builder<'a> {
    rules: &'a [Rule],
    plan: Plan,
    nodes: Vec<u32>,
    shapes: Shapes,
    /// The longest list of rules that nothing told apart.
    longest: Vec<u32>,
}

impl Cost {
    /// Of a node that takes no cut.
    const ONE: Self = Self { visits: [1; CUTS + 1], stack: [0; 2] };

    fn max(self, other: Self) -> Self {
        let mut most = self;
        for (a, b) in most.visits.iter_mut().zip(other.visits) {
            *a = (*a).max(b);
        }
        for (a, b) in most.stack.iter_mut().zip(other.stack) {
            *a = (*a).max(b);
        }
        most
    }

    /// Of a cut above nodes that cost `self` at most.
    fn cut(self) -> Self {
        let mut cost = self;
        for used in 0..CUTS {
            cost.visits[used] = self.visits[used + 1];
        }
        cost.visits[CUTS] = 1 + cost.visits[0];
        cost
    }

    /// Of a list of nodes.
    fn list(nodes: &[Built]) -> Self {
        let kinds = nodes.iter().map(|built| built.cost);
        // The first node is come to behind the cuts of a visit: it is checked in it, or takes its cuts in the next one.
        let first = match nodes.first() {
            Some(built) if built.node.kind() == kind::CHECK => 1,
            Some(built) => 1 + built.cost.visits[0],
            None => 1,
        };
        let rest: usize = kinds.clone().skip(1).map(|cost| cost.visits[0]).sum();
        let (last, others) = match nodes.split_last() {
            Some((last, others)) => (last.cost.stack, others),
            None => ([0; 2], nodes),
        };
        let others = others.iter().map(|built| built.cost.stack[1]).max().unwrap_or(0);
        // It is put aside itself when its list goes on behind it.
        let stack = |outer: usize| outer + others.max(last[0]);
        Self { visits: [first + rest; CUTS + 1], stack: [stack(0), stack(1)] }
    }
}

impl Builder<'_> {
    /// The node for the rules of `set`, ascending, and packets of `region`, with about `budget` nodes beneath it. To have come there
    /// takes `cuts` and nothing else, or none when a list was walked.
    fn node(
        &mut self,
        mut set: Vec<u32>,
        region: &Cube,
        budget: usize,
        cuts: Option<usize>,
    ) -> Result<Built, TooLarge> {
        self.drop_idle(&mut set, region);
        if (2..=self.plan.sieved).contains(&set.len()) && cuts.is_some_and(|cuts| cuts <= CUTS) {
            let chooser = Chooser::new(self.rules, &set, region, budget, self.plan);
            if let Some((shape, vectors)) =
                sieve::choose(self.rules, &set, region, &chooser, &mut self.shapes)
            {
                return self.sieve(&set, shape, &vectors);
            }
        }
        let mut budget = budget;
        let cut = loop {
            if set.len() <= 2 {
                break None;
            }
            match Chooser::new(self.rules, &set, region, budget, self.plan).best() {
                // Rather more nodes than planned than a long list.
                None if set.len() > self.plan.few && budget < NODE_COUNT => {
                    budget = budget.max(set.len()) * 4
                }
                cut => break cut,
            }
        };
        match cut {
            Some(cut) if set.len() > self.plan.few || cut.gain > WORTH => {
                let (aside, open): (Vec<u32>, Vec<u32>) = set.iter().partition(|rule| {
                    let values = cut.window.values(&self.rules[**rule as usize].cube, region);
                    values.len() >= cut.aside_from
                });
                let share = budget / set.len() * open.len();
                let cuts = cuts.filter(|_| aside.is_empty());
                let table = self.cut(&open, cut.window, region, share, cuts.map(|cuts| cuts + 1))?;
                if aside.is_empty() {
                    return Ok(table);
                }
                let aside = self.node(aside, region, budget - share, None)?;
                let mut both = [table, aside];
                both.sort_by_key(|built| built.first);
                self.list(&both)
            }
            _ => self.leaf(&set),
        }
    }

    /// Takes rules out that decide on no packet of `region`.
    fn drop_idle(&self, set: &mut Vec<u32>, region: &Cube) {
        let cube = |rule: u32| &self.rules[rule as usize].cube;
        if let Some(all) = set.iter().position(|rule| cube(*rule).covers(region, region)) {
            set.truncate(all + 1);
        }
        let mut seen = HashSet::with_capacity(set.len());
        set.retain(|rule| seen.insert(cube(*rule).within(region)));
        if set.len() <= PAIRS {
            let mut kept: Vec<u32> = Vec::with_capacity(set.len());
            for rule in set.iter().copied() {
                if !kept.iter().any(|earlier| cube(*earlier).covers(cube(rule), region)) {
                    kept.push(rule);
                }
            }
            *set = kept;
        }
    }

    /// A cut of the rules of `set`; the rest as in [`node`](Self::node), of what is under it.
    fn cut(
        &mut self,
        set: &[u32],
        window: Window,
        region: &Cube,
        budget: usize,
        cuts: Option<usize>,
    ) -> Result<Built, TooLarge> {
        let mut parts = vec![Vec::new(); window.len()];
        for rule in set {
            window
                .values(&self.rules[*rule as usize].cube, region)
                .each(|value| parts[value as usize].push(*rule));
        }
        let table = self.table(window.len())?;
        // Values with the same rules lead to the same node.
        let mut values: HashMap<Vec<u32>, Vec<u32>> = HashMap::new();
        for (value, part) in parts.into_iter().enumerate() {
            if !part.is_empty() {
                values.entry(part).or_default().push(value as u32);
            }
        }
        let mut values: Vec<_> = values.into_iter().collect();
        // In the same order each time, so that the same rules make the same tree.
        values.sort_by_key(|(_, values)| values[0]);
        let copies: usize = values.iter().map(|(part, _)| part.len()).sum();
        let budget = budget.saturating_sub(window.len());
        let mut cost = Cost::ONE;
        let mut first = u32::MAX;
        for (part, values) in values {
            let share = budget / copies.max(1) * part.len();
            let narrowed = match values.as_slice() {
                [value] => window.narrowed(region, *value),
                _ => *region,
            };
            let meeting: Vec<u32> =
                part.into_iter().filter(|rule| self.rules[*rule as usize].cube.meets(&narrowed)).collect();
            let built = self.node(meeting, &narrowed, share, cuts)?;
            for value in values {
                self.nodes[table + value as usize] = built.node.0;
            }
            cost = cost.max(built.cost);
            first = first.min(built.first);
        }
        let node = Node::cut(window.word, window.shift, window.width, table);
        Ok(Built { node, cost: cost.cut(), first })
    }

    /// A sieve of this shape of the rules of `set`.
    fn sieve(&mut self, set: &[u32], shape: usize, vectors: &[Vectors]) -> Result<Built, TooLarge> {
        let len: usize = vectors.iter().map(|vectors| vectors.of.len() * 2).sum();
        let first = self.table(len + Sieved::NODES * set.len())?;
        let (of, sieved) = self.nodes[first..].split_at_mut(len);
        for (nodes, vector) in of.as_chunks_mut().0.iter_mut().zip(vectors.iter().flat_map(|v| &v.of)) {
            *nodes = tables::words(*vector);
        }
        for (nodes, rule) in sieved.as_chunks_mut().0.iter_mut().zip(set) {
            *nodes = tables::sieved_words(&self.rules[*rule as usize].sieved());
        }
        let table = first + len - Sieved::NODES;
        Ok(Built { node: Node::sieve(table, shape), cost: Cost::ONE, first: set[0] })
    }

    /// Writes the shapes that sieves have.
    fn write_shapes(&mut self) {
        for (at, windows) in self.shapes.iter().enumerate() {
            let len: usize = windows.iter().map(|window| window.len() * 2).sum();
            // Before the rules.
            let mut table = NODE_COUNT + Sieved::NODES - len;
            let cuts = windows.iter().map(|window| {
                let cut = Node::cut(window.word, window.shift, window.width, table);
                table += window.len() * 2;
                cut
            });
            let cuts: Vec<Node> = cuts.collect();
            // The same one again where there are fewer.
            for (window, cut) in cuts.iter().cycle().take(WINDOWS).enumerate() {
                self.nodes[SHAPES_AT + (at + 1) * WINDOWS + window] = cut.0;
            }
        }
    }

    /// Rules that are checked one after the other.
    fn leaf(&mut self, set: &[u32]) -> Result<Built, TooLarge> {
        if set.len() > self.longest.len() {
            self.longest = set.to_vec();
        }
        let checks: Vec<Built> = set
            .iter()
            .map(|rule| Built {
                node: Node::check(self.rules[*rule as usize].number),
                cost: Cost::ONE,
                first: *rule,
            })
            .collect();
        match checks.as_slice() {
            [] => Ok(Built { node: Node::default(), cost: Cost::ONE, first: u32::MAX }),
            [only] => Ok(*only),
            // Too many visits in any case; what there is no room for in a list only has to be told.
            long if long.len() > LONGEST => {
                let mut built = self.list(&long[..LONGEST])?;
                built.cost.visits = [long.len(); CUTS + 1];
                Ok(built)
            }
            list => self.list(list),
        }
    }

    /// Nodes that are walked one after the other, ascending by the smallest rule beneath each.
    fn list(&mut self, nodes: &[Built]) -> Result<Built, TooLarge> {
        let table = self.table(nodes.len() * 2)?;
        for (at, built) in nodes.iter().enumerate() {
            self.nodes[table + at * 2] = built.node.0;
            self.nodes[table + at * 2 + 1] = u32::from(self.rules[built.first as usize].number);
        }
        let first = nodes.iter().map(|built| built.first).min().unwrap_or(u32::MAX);
        Ok(Built { node: Node::list(table, nodes.len()), cost: Cost::list(nodes), first })
    }

    /// A new table.
    fn table(&mut self, len: usize) -> Result<usize, TooLarge> {
        let table = self.nodes.len();
        let end = table + len.next_multiple_of(8);
        if end > NODE_COUNT {
            return Err(TooLarge);
        }
        self.nodes.resize(end, 0);
        Ok(table)
    }

    /// The rules that stay together in the largest number, for a person.
    fn closest(&self) -> String {
        let few = self.longest.iter().take(8);
        let numbers: Vec<_> = few.map(|rule| self.rules[*rule as usize].number.to_string()).collect();
        let more = if self.longest.len() > numbers.len() { ", …" } else { "" };
        numbers.join(", ") + more
    }
}
