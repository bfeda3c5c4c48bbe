//! Objects run in every way that there is, and held against what they do alone.
//!
//! What an object does alone is what libbpf's program of it does, or where libbpf does not take it, ours without a chain.
//! A chain with it means the same when verdicts and octets of every packet are the same, and so is what its maps hold.

mod packets;
mod run;
mod subjects;
mod table;

use std::path::Path;

use xdpchain_compose::object::{Object, Program, ProgramKind};
use xdpchain_compose::{Chain, ComposeError, Image, Module, Slot, fused, libxdp, tail};
use xdpchain_host::RunningKernel;
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, SlotSpec, Verdict, VerdictSet};

use crate::cli::object;

pub use packets::packets;
pub use run::{Behaviour, Running, behaviour, libbpf};
pub use subjects::{Subject, subjects};
pub use table::{kernel, section};

/// What came of one way to run a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It runs, and means what it means alone.
    Works,
    /// It cannot be run so; in words.
    Refused(String),
    /// It runs and means something else, which must never be.
    Differs(String),
    /// This kernel has no way to tell.
    Unknown,
}

impl Outcome {
    /// Whether it is [`Works`](Self::Works).
    pub fn works(&self) -> bool {
        *self == Self::Works
    }
}

/// A program of an object, and what came of every way to run it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// File name of the object.
    pub object: String,
    /// Name of the program.
    pub program: String,
    /// What the object is about.
    pub feature: String,
    /// Whether it is one that a chain must refuse: it is not for interfaces.
    pub foreign: bool,
    /// Alone, by libbpf.
    pub libbpf: Outcome,
    /// Alone, by us.
    pub alone: Outcome,
    /// As the only module of a fused chain, and between two others.
    pub fused: Outcome,
    /// The same by the tail engine.
    pub tail: Outcome,
    /// By libxdp's dispatcher.
    pub libxdp: Outcome,
}

impl Entry {
    /// What is wrong: that a chain means something else, refuses what runs alone, or takes what is not for it.
    pub fn problems(&self) -> Vec<String> {
        let chains = [("fused", &self.fused), ("tail", &self.tail), ("libxdp", &self.libxdp)];
        let all = [("alone", &self.alone)].into_iter().chain(chains);
        let mut problems: Vec<String> = all
            .filter_map(|(way, outcome)| match outcome {
                Outcome::Differs(what) => Some(format!("{way}: {what}")),
                _ => None,
            })
            .collect();
        if self.foreign {
            problems.extend(
                chains
                    .iter()
                    .filter(|(_, o)| o.works())
                    .map(|(way, _)| format!("{way}: a program that is not for interfaces runs in a chain")),
            );
            return problems;
        }
        let limit = |o: &Outcome| matches!(o, Outcome::Refused(why) if is_limit(why));
        if limit(&self.fused) && limit(&self.tail) {
            return problems;
        }
        let runs = self.libbpf.works() || self.alone.works();
        if runs && !self.fused.works() && !self.tail.works() {
            problems.push(format!(
                "it runs alone, but in no chain; fused: {:?}, tail: {:?}",
                self.fused, self.tail
            ));
        }
        if self.libbpf.works() && !self.alone.works() {
            problems.push(format!("libbpf loads it, and we do not: {:?}", self.alone));
        }
        problems
    }
}

/// Tries every XDP program of `subject`, those of map entries included.
///
/// # Errors
/// The reader's words when the file is no object.
pub fn judge(subject: &Subject, kernel: &RunningKernel) -> Result<Vec<Entry>, String> {
    let bytes = std::fs::read(&subject.path).map_err(|e| format!("{}: {e}", subject.path.display()))?;
    let mut object = Object::parse(&bytes).map_err(|e| e.to_string())?;
    object.link(kernel);
    let programs =
        object.programs.iter().filter(|p| matches!(p.kind, ProgramKind::Xdp | ProgramKind::XdpMapEntry));
    Ok(programs.map(|program| judge_program(subject, &object, program)).collect())
}

fn judge_program(subject: &Subject, object: &Object, program: &Program) -> Entry {
    let case = Case { path: &subject.path, object, program };
    let foreign = program.kind == ProgramKind::XdpMapEntry;
    let by_libbpf = libbpf(case.path, &program.name).map(|running| behaviour(&running));
    let bare = || case.bare().map(|running| behaviour(&running));
    let by_us = bare();
    let again = if by_us.is_ok() { bare() } else { libbpf(case.path, &program.name).map(|r| behaviour(&r)) };
    let standard = by_libbpf.as_ref().ok().or(by_us.as_ref().ok()).cloned();
    // What differs from one run to the next can be held against nothing.
    let standard = standard.map(|mut standard| {
        if let Ok(again) = &again {
            standard.forget_what_changes(by_us.as_ref().unwrap_or(&standard.clone()), again);
        }
        standard
    });
    let alone = match (&standard, &by_us) {
        (Some(standard), Ok(ours)) => match standard.difference(ours, false) {
            Some(what) => Outcome::Differs(what),
            None => Outcome::Works,
        },
        (_, Err(why)) => Outcome::Refused(why.clone()),
        (None, Ok(_)) => Outcome::Works,
    };
    // With our own program alone as the standard, maps can be compared by name.
    let standard = match (standard, by_us) {
        (Some(mut standard), Ok(ours)) => {
            standard.take_maps(ours, again.as_ref().ok());
            Some(standard)
        }
        (standard, _) => standard,
    };
    let libxdp = match &alone {
        Outcome::Refused(why) => Outcome::Refused(why.clone()),
        _ => case.by_dispatcher(standard.as_ref()),
    };
    Entry {
        object: subject.name.clone(),
        program: program.name.clone(),
        feature: subject.feature.clone(),
        foreign,
        libbpf: by_libbpf.map_or_else(Outcome::Refused, |_| Outcome::Works),
        alone,
        fused: case.in_chains(fused::compose, standard.as_ref()),
        tail: case.in_chains(tail::compose, standard.as_ref()),
        libxdp,
    }
}

type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

/// A program of an object that is tried.
struct Case<'a> {
    path: &'a Path,
    object: &'a Object,
    program: &'a Program,
}

impl Case<'_> {
    fn spec(&self) -> ModuleSpec {
        let mut spec = ModuleSpec::new(ObjectRef::File("object.o".into()));
        spec.program = Some(self.program.name.clone());
        spec
    }

    /// The program without a chain.
    fn bare(&self) -> Result<Running, String> {
        let spec = self.spec();
        let module = Module { name: MODULE, object: self.object, spec: &spec, digest: "0" };
        let image = fused::compose_bare(&module).map_err(|e| e.to_string())?;
        Running::of(&image)
    }

    /// Alone in a chain, and between two modules that let everything pass.
    fn in_chains(&self, engine: Engine, standard: Option<&Behaviour>) -> Outcome {
        for between in [false, true] {
            let place = if between { "between two others" } else { "alone in a chain" };
            let running = match self.compose(engine, between).and_then(|image| Running::of(&image)) {
                Ok(running) => running,
                Err(why) => return Outcome::Refused(why),
            };
            let Some(standard) = standard else {
                return Outcome::Differs(format!("{place} it loads, which it does not alone"));
            };
            if let Some(what) = standard.difference(&behaviour(&running), true) {
                return Outcome::Differs(format!("{place}: {what}"));
            }
        }
        Outcome::Works
    }

    /// Between two others in libxdp's dispatcher, where the kernel lets programs take the place of functions.
    fn by_dispatcher(&self, standard: Option<&Behaviour>) -> Outcome {
        let running = self.compose(libxdp::compose, true).and_then(|image| Running::dispatched(&image));
        match (running, standard) {
            (Err(why), _) => Outcome::Refused(why),
            (Ok(None), _) => Outcome::Unknown,
            (Ok(Some(running)), Some(standard)) => match standard.difference(&behaviour(&running), true) {
                Some(_) if standard.is_strange() => Outcome::Refused(STRANGE.into()),
                Some(what) => Outcome::Differs(format!("between two others: {what}")),
                None => Outcome::Works,
            },
            (Ok(Some(_)), None) => Outcome::Differs("it loads, which it does not alone".into()),
        }
    }

    fn compose(&self, engine: Engine, between: bool) -> Result<Image, String> {
        let passing = Object::parse(object::FRAGS).expect("an object of our own");
        let (spec, pass) = (self.spec(), ModuleSpec::new(ObjectRef::File("passing.o".into())));
        let mut middle = SlotSpec::new(MODULE);
        // What the object says of libxdp's chains would let a drop proceed.
        middle.proceed_on = Some(VerdictSet::only(Verdict::Pass));
        let mut slots = vec![middle];
        let mut modules = vec![Module { name: MODULE, object: self.object, spec: &spec, digest: "0" }];
        if between {
            slots = vec![SlotSpec::new("before"), slots.remove(0), SlotSpec::new("after")];
            for name in ["before", "after"] {
                modules.push(Module { name, object: &passing, spec: &pass, digest: "1" });
            }
        }
        let slots = slots.iter().zip(0..).map(|(spec, row)| Slot { spec, row }).collect();
        engine(&Chain { name: "compat", default: ChainDefault::Keep, modules, slots })
            .map_err(|error| error.to_string())
    }
}

/// Whether an object was refused for what no chain can have.
pub fn is_limit(refusal: &str) -> bool {
    LIMITS.iter().any(|limit| refusal.contains(limit))
}

/// What no chain can have, in the words of the refusal.
const LIMITS: [&str; 1] = ["throws an exception (`bpf_throw`)"];

/// What libxdp's dispatcher does with return values that are no verdicts, by its own code.
const STRANGE: &str = "it returns what is no verdict, and the dispatcher goes on by the low five bits of that where the kernel would abort";

/// Name of the module that is tried.
const MODULE: &str = "object";
