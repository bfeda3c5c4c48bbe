//! A plan as text for people: what stays, comes, goes and changes, each slot at its place.

use std::fmt;

use indexmap::IndexMap;

use super::state::{ModuleBuild, State};
use super::step::{ChainField, Change, ModuleField, SlotField, Step};
use super::{Action, InterfacePlan};
use crate::{MapOverride, MigrateSpec, Place, SlotSpec, Verdict};

/// What a line is about; whoever prints it chooses a colour for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// An interface, and what becomes of its chain.
    Heading,
    /// Something that stays as it is.
    Same,
    /// Something that comes.
    Added,
    /// Something that goes.
    Removed,
    /// Something that changes.
    Changed,
    /// Something that gets another place.
    Moved,
}

impl Role {
    /// What stands in front of such a line.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Heading => "",
            Self::Same => "    ",
            Self::Added => "  + ",
            Self::Removed => "  - ",
            Self::Changed => "  ~ ",
            Self::Moved => "  > ",
        }
    }
}

/// A line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub role: Role,
    /// What it says, without its mark.
    pub text: String,
}

impl Line {
    fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.role.mark(), self.text)
    }
}

pub(super) fn lines(plan: &InterfacePlan) -> Vec<Line> {
    let chain = plan.chain.as_deref().unwrap_or_default();
    let generation = plan.generation.map_or_else(String::new, |number| format!(", generation {number}"));
    let said = match plan.action {
        Action::Keep if plan.chain.is_none() => "no chain".to_owned(),
        Action::Keep => format!("chain `{chain}` runs as it is wanted{generation}"),
        Action::Attach => format!("attach chain `{chain}`"),
        Action::Change => format!("change chain `{chain}`{generation}"),
        Action::Detach => format!("detach chain `{chain}`{generation}"),
    };
    let mut lines = vec![Line::new(Role::Heading, format!("{}: {said}", plan.interface))];
    match plan.steps.first() {
        Some(Step::Attach { state }) => whole(Role::Added, state, &mut lines),
        Some(Step::Detach { state }) => whole(Role::Removed, state, &mut lines),
        _ => changed(plan, &mut lines),
    }
    lines
}

/// A chain that comes or goes as a whole.
fn whole(role: Role, state: &State, lines: &mut Vec<Line>) {
    for slot in &state.chain.slots {
        let object = state.modules.get(&slot.module).map(|module| module.build().to_string());
        let object = object.map_or_else(String::new, |object| format!(": {object}"));
        lines.push(Line::new(role, format!("slot {}{object}", slot_text(slot))));
    }
    for (name, module) in &state.modules {
        if state.chain.slots.iter().all(|slot| slot.module != *name) {
            lines.push(Line::new(role, format!("module {name}: {}, for its maps", module.build())));
        }
    }
}

fn changed(plan: &InterfacePlan, lines: &mut Vec<Line>) {
    for step in &plan.steps {
        match step {
            Step::ChangeChain(field) => lines.push(Line::new(Role::Changed, chain_field(field))),
            Step::AddModule { module, build } => lines.push(module_line(Role::Added, module, build)),
            Step::RemoveModule { module, build } => lines.push(module_line(Role::Removed, module, build)),
            Step::ReplaceObject { module, build } => {
                let text = format!("module {module}: object {} -> {}", build.from, build.to);
                lines.push(Line::new(Role::Changed, text));
            }
            Step::ChangeModule { module, field } => {
                lines.push(Line::new(Role::Changed, format!("module {module}: {}", module_field(field))));
            }
            _ => {}
        }
    }
    slots(plan, lines);
}

/// Every slot at its place, when something is different about one of them.
fn slots(plan: &InterfacePlan, lines: &mut Vec<Line>) {
    let touched = |step: &Step| {
        matches!(
            step,
            Step::AddSlot { .. } | Step::RemoveSlot { .. } | Step::MoveSlot { .. } | Step::ChangeSlot { .. }
        )
    };
    let (Some(before), Ok(Some(after))) = (plan.before(), plan.after()) else { return };
    if !plan.steps.iter().any(touched) {
        return;
    }
    let before = &before.chain.slots;
    let moved = |name: &str| {
        plan.steps.iter().any(|step| matches!(step, Step::MoveSlot { slot, .. } if slot == name))
    };
    let mut shown: Vec<(&str, Line)> = Vec::new();
    for slot in &after.chain.slots {
        let line = match before.iter().position(|other| other.name == slot.name) {
            None => Line::new(Role::Added, format!("slot {}", slot_text(slot))),
            Some(at) => kept_slot(plan, slot, before, at, moved(&slot.name)),
        };
        shown.push((&slot.name, line));
    }
    // What goes is shown where it was: behind what was before it and is still there.
    for (at, slot) in before.iter().enumerate() {
        if after.chain.slot(&slot.name).is_some() {
            continue;
        }
        let previous = before[..at].iter().rev().find(|slot| !moved(&slot.name));
        let place = previous.and_then(|previous| shown.iter().position(|(name, _)| *name == previous.name));
        let line = Line::new(Role::Removed, format!("slot {}", slot_text(slot)));
        shown.insert(place.map_or(0, |place| place + 1), (&slot.name, line));
    }
    lines.extend(shown.into_iter().map(|(_, line)| line));
}

fn kept_slot(plan: &InterfacePlan, slot: &SlotSpec, before: &[SlotSpec], at: usize, moved: bool) -> Line {
    let mut said: Vec<String> = Vec::new();
    if moved {
        said.push(match at.checked_sub(1) {
            Some(previous) => format!("moved, was behind {}", before[previous].name),
            None => "moved, was first".to_owned(),
        });
    }
    for step in &plan.steps {
        match step {
            Step::ChangeSlot { slot: name, field } if *name == slot.name => said.push(slot_field(field)),
            _ => {}
        }
    }
    let role = match (moved, said.is_empty()) {
        (true, _) => Role::Moved,
        (false, true) => Role::Same,
        (false, false) => Role::Changed,
    };
    let said = if said.is_empty() { String::new() } else { format!(": {}", said.join(", ")) };
    Line::new(role, format!("slot {}{said}", slot.name))
}

/// A slot with all that is said of it.
fn slot_text(slot: &SlotSpec) -> String {
    let mut options = Vec::new();
    if slot.module != slot.name {
        options.push(format!("module {}", slot.module));
    }
    if let Some(set) = slot.proceed_on {
        options.push(format!("proceed_on {set}"));
    }
    if slot.on_unknown != Verdict::Aborted {
        options.push(format!("on_unknown {}", slot.on_unknown));
    }
    match slot.at {
        Place::Exit => options.push("at exit".to_owned()),
        Place::Order if slot.observer => options.push("observer".to_owned()),
        Place::Order => {}
    }
    match options.is_empty() {
        true => slot.name.clone(),
        false => format!("{} ({})", slot.name, options.join(", ")),
    }
}

fn module_line(role: Role, name: &str, module: &ModuleBuild) -> Line {
    let mut text = format!("module {name}: {}", module.build());
    if let Some(program) = &module.spec.program {
        text.push_str(&format!(", program {program}"));
    }
    Line::new(role, text)
}

fn arrow<T>(change: &Change<T>, show: impl Fn(&T) -> String) -> String {
    format!("{} -> {}", show(&change.from), show(&change.to))
}

/// `show` of what is there, or what holds without it.
fn or<T>(none: &'static str, show: impl Fn(&T) -> String) -> impl Fn(&Option<T>) -> String {
    move |value| value.as_ref().map_or_else(|| none.to_owned(), &show)
}

fn chain_field(field: &ChainField) -> String {
    match field {
        ChainField::Name(change) => format!("name: {}", arrow(change, String::clone)),
        ChainField::Engine(change) => format!("engine: {}", arrow(change, ToString::to_string)),
        ChainField::Mode(change) => format!("mode: {}", arrow(change, ToString::to_string)),
        ChainField::Default(change) => format!("default: {}", arrow(change, ToString::to_string)),
        ChainField::Gate(change) => format!("gate: {}", arrow(change, or("none", ToString::to_string))),
        ChainField::Watch(change) => format!("watch: {}", arrow(change, or("none", ToString::to_string))),
    }
}

fn module_field(field: &ModuleField) -> String {
    match field {
        ModuleField::Program(change) => {
            format!("program {}", arrow(change, or("the object's only one", String::clone)))
        }
        ModuleField::Map { map, change } => {
            let size = |entries: Option<u32>| {
                entries.map_or("as in the object".to_owned(), |entries| entries.to_string())
            };
            let show = |change: &Option<MapOverride>| size(change.and_then(|change| change.max_entries));
            format!("max_entries of {map} {}", arrow(change, show))
        }
        ModuleField::Import { map, change } => {
            format!("map {map} {}", arrow(change, or("its own", |import| format!("imported from {import}"))))
        }
        ModuleField::Programs { map, change } => {
            let show = |programs: &IndexMap<u32, String>| {
                let entries: Vec<_> = programs.iter().map(|(at, name)| format!("{at}: {name}")).collect();
                format!("{{ {} }}", entries.join(", "))
            };
            format!("programs of {map} {}", arrow(change, or("as in the object", show)))
        }
        ModuleField::Exports(change) => {
            format!(
                "exports {}",
                arrow(change, or("every map", |maps: &Vec<String>| format!("[{}]", maps.join(", "))))
            )
        }
        ModuleField::Migrate { map, change } => {
            format!("migrate {map} {}", arrow(change, or("by name", migrate)))
        }
    }
}

fn migrate(how: &MigrateSpec) -> String {
    let renames: Vec<_> = how.renames.iter().map(|(old, new)| format!("{old}: {new}")).collect();
    let mut parts = Vec::new();
    if !renames.is_empty() {
        parts.push(format!("renames: {{ {} }}", renames.join(", ")));
    }
    if !how.newest.is_empty() {
        parts.push(format!("newest: [{}]", how.newest.join(", ")));
    }
    format!("{{ {} }}", parts.join(", "))
}

fn slot_field(field: &SlotField) -> String {
    match field {
        SlotField::Module(change) => format!("module {}", arrow(change, String::clone)),
        SlotField::ProceedOn(change) => {
            format!("proceed_on {}", arrow(change, or("as in the object", ToString::to_string)))
        }
        SlotField::OnUnknown(change) => format!("on_unknown {}", arrow(change, ToString::to_string)),
        SlotField::Observer(change) => format!("observer {}", arrow(change, ToString::to_string)),
        SlotField::At(change) => {
            let place = |place: &Place| match place {
                Place::Order => "order".to_owned(),
                Place::Exit => "exit".to_owned(),
            };
            format!("at {}", arrow(change, place))
        }
    }
}
