//! A chain of the built-in modules, and one packet through it.
//!
//! The order of slots, what each proceeds on, and what ends a chain are those of chains.yaml.

use xdpchain_abi::{Fate, PacketContext, Reason};

use crate::trail::{Step, Trail};
use crate::{Network, Row, Tables, modules};

/// Octets in front of a packet that programs may use when nothing else is said: `XDP_PACKET_HEADROOM`, less the
/// `struct xdp_frame` that the kernel keeps there.
pub const HEADROOM: usize = 256 - 40;

/// A verdict of XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// `XDP_ABORTED`. The reference never says so.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Tx,
    /// `XDP_REDIRECT`.
    Redirect,
}

impl Verdict {
    /// The kernel's number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The name in chains.yaml, fixtures and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Drop => "drop",
            Self::Pass => "pass",
            Self::Tx => "tx",
            Self::Redirect => "redirect",
        }
    }
}

/// A built-in module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Module {
    /// GTP-U to inner packet.
    GtpDecap,
    /// GRE to inner packet.
    GreDecap,
    /// The access list.
    Acl,
    /// Inner packet to GRE.
    GreSteer,
    /// Inner packet to GTP-U.
    GtpEncap,
    /// Counters.
    Stats,
}

impl Module {
    /// Every module, in the order of the data path.
    pub const ALL: [Self; 6] =
        [Self::GtpDecap, Self::GreDecap, Self::Acl, Self::GreSteer, Self::GtpEncap, Self::Stats];

    /// The name after `builtin:`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GtpDecap => "gtp-decap",
            Self::GreDecap => "gre-decap",
            Self::Acl => "acl",
            Self::GreSteer => "gre-steer",
            Self::GtpEncap => "gtp-encap",
            Self::Stats => "stats",
        }
    }

    /// The module of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|module| module.name() == name)
    }
}

/// A module at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot's name.
    pub name: String,
    /// What runs in it.
    pub module: Module,
    /// The verdicts after which the next slot runs.
    pub proceed_on: Vec<Verdict>,
    /// The module's verdict is ignored.
    pub observer: bool,
    /// It runs once at the end, for every packet.
    pub at_exit: bool,
}

impl Slot {
    /// A module with everything else as chains.yaml has it when nothing is said.
    pub fn new(module: Module) -> Self {
        Self {
            name: module.name().to_owned(),
            module,
            proceed_on: vec![Verdict::Pass],
            observer: false,
            at_exit: false,
        }
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The slots, those at exit included.
    pub slots: Vec<Slot>,
    /// The verdict when every slot proceeded; none keeps the last one.
    pub default: Option<Verdict>,
}

impl Chain {
    /// The data path: the six modules in their order, `stats` at exit.
    pub fn data_path() -> Self {
        let mut slots: Vec<Slot> = Module::ALL.into_iter().map(Slot::new).collect();
        if let Some(stats) = slots.last_mut() {
            (stats.observer, stats.at_exit) = (true, true);
        }
        Self { slots, default: None }
    }

    /// One module alone.
    pub fn alone(module: Module) -> Self {
        Self { slots: vec![Slot::new(module)], default: None }
    }
}

/// A packet as it comes in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The frame.
    pub packet: &'a [u8],
    /// Octets in front of it that may be used.
    pub headroom: usize,
    /// What is known about it already; all zero before a chain.
    pub context: PacketContext,
    /// Whether its sender was told just before that a packet was too big, and is not told again (row B02).
    pub told: bool,
}

impl<'a> Arrival<'a> {
    /// A packet of which nothing else is said.
    pub fn new(packet: &'a [u8]) -> Self {
        Self { packet, headroom: HEADROOM, context: PacketContext::default(), told: false }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether a module ended the chain whatever its slot proceeds on.
    pub ended: bool,
    /// The frame afterwards.
    pub packet: Vec<u8>,
    /// Every reason that is counted, with the place of the slot that counts it.
    pub reasons: Vec<(usize, Reason)>,
    /// The packet context afterwards.
    pub context: PacketContext,
    /// Place among the slots of the one where the chain ended.
    pub slot: usize,
    /// What was found out on the way, by row.
    pub steps: Vec<Step>,
}

impl Outcome {
    /// The rows that decided, in order, each once.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for step in &self.steps {
            if !rows.contains(&step.row) {
                rows.push(step.row);
            }
        }
        rows
    }

    /// The reason why the packet was dropped or punted.
    pub fn reason(&self) -> Option<Reason> {
        self.reasons.iter().map(|(_, reason)| *reason).find(|reason| reason.fate() != Fate::Noted)
    }
}

/// What a module returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Return {
    pub(crate) verdict: Verdict,
    pub(crate) ends: bool,
}

impl Return {
    pub(crate) const PASS: Self = Self { verdict: Verdict::Pass, ends: false };
}

/// A packet in the hands of a module.
pub(crate) struct Visit<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) network: &'a dyn Network,
    pub(crate) frame: Vec<u8>,
    pub(crate) headroom: usize,
    pub(crate) context: PacketContext,
    pub(crate) told: bool,
    trail: Trail,
}

impl Visit<'_> {
    /// Something that a row says of this packet, which goes on.
    pub(crate) fn note(&mut self, row: Row, why: impl Into<String>) {
        self.trail.note(row, None, why.into());
    }

    /// The packet is none of this module's business.
    pub(crate) fn pass(&mut self, row: Row, why: impl Into<String>) -> Return {
        self.note(row, why);
        Return::PASS
    }

    /// A remark that is counted.
    pub(crate) fn remark(&mut self, row: Row, reason: Reason, why: impl Into<String>) {
        self.trail.note(row, Some(reason), why.into());
    }

    /// The packet is dropped.
    pub(crate) fn drop(&mut self, row: Row, reason: Reason, why: impl Into<String>) -> Return {
        self.trail.note(row, Some(reason), why.into());
        self.context.reason = reason as u16;
        Return { verdict: Verdict::Drop, ends: false }
    }

    /// The packet is the kernel's.
    pub(crate) fn punt(&mut self, row: Row, reason: Reason, why: impl Into<String>) -> Return {
        self.trail.note(row, Some(reason), why.into());
        self.context.reason = reason as u16;
        Return { verdict: Verdict::Pass, ends: true }
    }

    /// Puts `front` in the place of the first `old` octets, and cuts the frame so that `rest` of the others stay. False,
    /// and nothing done, when there is no room in front.
    pub(crate) fn replace_front(&mut self, old: usize, front: &[u8], rest: usize) -> bool {
        let Some(headroom) = (self.headroom + old).checked_sub(front.len()) else { return false };
        self.headroom = headroom;
        self.frame.truncate(old + rest);
        self.frame.splice(..old, front.iter().copied());
        true
    }
}

/// Takes a packet through a chain.
pub fn run(chain: &Chain, tables: &Tables, network: &dyn Network, arrival: &Arrival<'_>) -> Outcome {
    let mut visit = Visit {
        tables,
        network,
        frame: arrival.packet.to_vec(),
        headroom: arrival.headroom,
        context: arrival.context,
        told: arrival.told,
        trail: Trail::default(),
    };
    let in_order: Vec<usize> = (0..chain.slots.len()).filter(|i| !chain.slots[*i].at_exit).collect();
    let (mut verdict, mut ended, mut place) = (Verdict::Pass, false, in_order.last().copied().unwrap_or(0));
    let mut all_proceeded = true;
    for at in in_order {
        let slot = &chain.slots[at];
        visit.trail.enter(at);
        let returned = modules::run(slot.module, &mut visit);
        if slot.observer {
            continue;
        }
        (verdict, ended) = (returned.verdict, returned.ends);
        if ended || !slot.proceed_on.contains(&verdict) {
            place = at;
            all_proceeded = false;
            break;
        }
    }
    if all_proceeded && let Some(default) = chain.default {
        verdict = default;
    }
    for (at, slot) in chain.slots.iter().enumerate().filter(|(_, slot)| slot.at_exit) {
        visit.trail.enter(at);
        modules::run(slot.module, &mut visit);
    }
    let steps = visit.trail.steps;
    Outcome {
        verdict,
        ended,
        packet: visit.frame,
        reasons: steps.iter().filter_map(|step| Some((step.slot, step.reason?))).collect(),
        context: visit.context,
        slot: place,
        steps,
    }
}
