//! The steps from one state to another: as few moves as there can be, every other difference once.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::state::{ModuleBuild, State};
use super::step::{ChainField, Change, ModuleField, SlotField, Step};
use crate::{ChainSpec, ModuleSpec, SlotSpec};

pub(super) fn steps(before: Option<&State>, wanted: Option<&State>) -> Vec<Step> {
    match (before, wanted) {
        (None, None) => Vec::new(),
        (None, Some(wanted)) => vec![Step::Attach { state: Box::new(wanted.clone()) }],
        (Some(before), None) => vec![Step::Detach { state: Box::new(before.clone()) }],
        (Some(before), Some(wanted)) => changes(before, wanted),
    }
}

fn changes(before: &State, wanted: &State) -> Vec<Step> {
    let mut steps: Vec<Step> =
        chain_fields(&before.chain, &wanted.chain).into_iter().map(Step::ChangeChain).collect();
    for (module, build) in &wanted.modules {
        match before.modules.get(module) {
            None => steps.push(Step::AddModule { module: module.clone(), build: build.clone() }),
            Some(running) => module_changes(module, running, build, &mut steps),
        }
    }
    slot_changes(&before.chain.slots, &wanted.chain.slots, &mut steps);
    for (module, build) in &before.modules {
        if !wanted.modules.contains_key(module) {
            steps.push(Step::RemoveModule { module: module.clone(), build: build.clone() });
        }
    }
    steps
}

fn chain_fields(before: &ChainSpec, wanted: &ChainSpec) -> Vec<ChainField> {
    // All fields are named, so that a new one is not forgotten here.
    let ChainSpec { name, interfaces: _, engine, mode, default, slots: _, gate, watch } = before;
    let fields = [
        Change::of(name, &wanted.name).map(ChainField::Name),
        Change::of(engine, &wanted.engine).map(ChainField::Engine),
        Change::of(mode, &wanted.mode).map(ChainField::Mode),
        Change::of(default, &wanted.default).map(ChainField::Default),
        Change::of(gate, &wanted.gate).map(ChainField::Gate),
        Change::of(watch, &wanted.watch).map(ChainField::Watch),
    ];
    fields.into_iter().flatten().collect()
}

fn module_changes(name: &str, before: &ModuleBuild, wanted: &ModuleBuild, steps: &mut Vec<Step>) {
    let module = || name.to_owned();
    if let Some(build) = Change::of(&before.build(), &wanted.build()) {
        steps.push(Step::ReplaceObject { module: module(), build });
    }
    let ModuleSpec { object: _, program, maps, imports, programs, exports, migrate } = &before.spec;
    let mut push = |field| steps.push(Step::ChangeModule { module: module(), field });
    if let Some(change) = Change::of(program, &wanted.spec.program) {
        push(ModuleField::Program(change));
    }
    for (map, change) in entries(maps, &wanted.spec.maps) {
        push(ModuleField::Map { map, change });
    }
    for (map, change) in entries(imports, &wanted.spec.imports) {
        push(ModuleField::Import { map, change });
    }
    for (map, change) in entries(programs, &wanted.spec.programs) {
        push(ModuleField::Programs { map, change });
    }
    if let Some(change) = Change::of(exports, &wanted.spec.exports) {
        push(ModuleField::Exports(change));
    }
    for (map, change) in entries(migrate, &wanted.spec.migrate) {
        push(ModuleField::Migrate { map, change });
    }
}

/// The entries that differ; none is an entry that is not there.
fn entries<T: Clone + PartialEq>(
    before: &IndexMap<String, T>,
    wanted: &IndexMap<String, T>,
) -> Vec<(String, Change<Option<T>>)> {
    let names: BTreeSet<&String> = before.keys().chain(wanted.keys()).collect();
    let change = |name: &String| {
        let change = Change::of(&before.get(name).cloned(), &wanted.get(name).cloned())?;
        Some((name.clone(), change))
    };
    names.into_iter().filter_map(change).collect()
}

fn slot_changes(before: &[SlotSpec], wanted: &[SlotSpec], steps: &mut Vec<Step>) {
    let find = |slots: &[SlotSpec], name: &str| slots.iter().position(|slot| slot.name == name);
    let mut order: Vec<&str> = Vec::new();
    let mut index = 0;
    for slot in before {
        if find(wanted, &slot.name).is_some() {
            order.push(&slot.name);
            index += 1;
        } else {
            steps.push(Step::RemoveSlot { index, slot: slot.clone() });
        }
    }
    for slot in before {
        if let Some(at) = find(wanted, &slot.name) {
            let change = |field| Step::ChangeSlot { slot: slot.name.clone(), field };
            steps.extend(slot_fields(slot, &wanted[at]).into_iter().map(change));
        }
    }
    let kept: Vec<&str> =
        wanted.iter().map(|slot| slot.name.as_str()).filter(|name| order.contains(name)).collect();
    moves(&mut order, &kept, steps);
    for (index, slot) in wanted.iter().enumerate() {
        if find(before, &slot.name).is_none() {
            steps.push(Step::AddSlot { index, slot: slot.clone() });
        }
    }
}

fn slot_fields(before: &SlotSpec, wanted: &SlotSpec) -> Vec<SlotField> {
    let SlotSpec { name: _, module, proceed_on, on_unknown, observer, at } = before;
    let fields = [
        Change::of(module, &wanted.module).map(SlotField::Module),
        Change::of(proceed_on, &wanted.proceed_on).map(SlotField::ProceedOn),
        Change::of(on_unknown, &wanted.on_unknown).map(SlotField::OnUnknown),
        Change::of(observer, &wanted.observer).map(SlotField::Observer),
        Change::of(at, &wanted.at).map(SlotField::At),
    ];
    fields.into_iter().flatten().collect()
}

/// Moves until `order` is `wanted`, which has the same names. The longest run that is in order already stays.
fn moves<'a>(order: &mut Vec<&'a str>, wanted: &[&'a str], steps: &mut Vec<Step>) {
    let rank = |name: &str| wanted.iter().position(|other| *other == name).unwrap_or(wanted.len());
    let ranks: Vec<usize> = order.iter().map(|name| rank(name)).collect();
    let stay = longest_rising(&ranks);
    for (i, name) in wanted.iter().enumerate() {
        if stay.contains(&i) {
            continue;
        }
        let Some(from) = order.iter().position(|other| other == name) else { continue };
        order.remove(from);
        // Everything that `wanted` has before it is in its place, and right behind the last of that is this one's.
        let to = match i {
            0 => 0,
            _ => order.iter().position(|other| *other == wanted[i - 1]).map_or(0, |at| at + 1),
        };
        order.insert(to, name);
        if from != to {
            steps.push(Step::MoveSlot { slot: (*name).to_owned(), from, to });
        }
    }
}

/// The values of a longest rising subsequence of `ranks`, which are all different.
fn longest_rising(ranks: &[usize]) -> BTreeSet<usize> {
    // For each value the length of the best run that ends with it, and the value before it there.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(ranks.len());
    for (i, rank) in ranks.iter().enumerate() {
        let before = (0..i).filter(|&j| ranks[j] < *rank).max_by_key(|&j| best[j].0);
        best.push((before.map_or(0, |j| best[j].0) + 1, before));
    }
    let mut at = (0..ranks.len()).max_by_key(|&i| best[i].0);
    let mut run = BTreeSet::new();
    while let Some(i) = at {
        run.insert(ranks[i]);
        at = best[i].1;
    }
    run
}
