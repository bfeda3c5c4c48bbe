//! What chains.yaml must mean beyond its types: names, references, orders.

use indexmap::IndexMap;

use crate::Verdict;
use crate::edit::unreachable_slot;
use crate::error::Problem;
use crate::guard::{GateSpec, WatchSpec};
use crate::model::{ChainSpec, MapRef, ModuleSpec, ObjectRef, Place, SlotSpec};
use crate::parse::{RawChain, RawSlot};
use crate::source::SourceSpec;
use crate::tree::{Node, Spot, Step, path_name};
use crate::{AgentSpec, Database};

type Checked<T> = Result<T, (Problem, Spot)>;

/// `steps!["chains", name, "slots", 2]`
macro_rules! steps {
    ($($step:expr),+ $(,)?) => { [$(Step::from($step)),+] };
}

pub(crate) fn modules(modules: &IndexMap<String, ModuleSpec>, root: &Node) -> Checked<()> {
    for (name, module) in modules {
        valid_name(name, "module", root, &steps!["modules", name.as_str()])?;
        if let ObjectRef::Builtin(builtin) = &module.object
            && !is_name(builtin)
        {
            let at = steps!["modules", name.as_str(), "object"];
            let problem = Problem::BadName { name: builtin.clone(), what: "builtin object" };
            return Err((problem, root.value_spot(&at)));
        }
        for (map, change) in &module.maps {
            let at = steps!["modules", name.as_str(), "maps", map.as_str()];
            valid_map(map, root, &at)?;
            if let Some(import) = module.imports.get(map) {
                let (module, map, owner) = (name.clone(), map.clone(), import.module.clone());
                return Err((Problem::OverriddenImport { module, map, owner }, root.key_spot(&at)));
            }
            if change.max_entries == Some(0) {
                let at = steps!["modules", name.as_str(), "maps", map.as_str(), "max_entries"];
                let problem = Problem::NoEntries { module: name.clone(), map: map.clone() };
                return Err((problem, root.value_spot(&at)));
            }
        }
        for (map, import) in &module.imports {
            let at = steps!["modules", name.as_str(), "imports", map.as_str()];
            valid_map(map, root, &at)?;
            known_module(&import.module, modules, root, &at)?;
            if let Some(exports) = &modules[&import.module].exports
                && !exports.contains(&import.map)
            {
                let MapRef { module: owner, map } = import.clone();
                let problem = Problem::NotExported { owner, map, exports: exports.clone() };
                return Err((problem, root.value_spot(&at)));
            }
        }
        contracts(name, module, root)?;
    }
    program_arrays(modules, root)?;
    match import_cycle(modules) {
        None => Ok(()),
        Some((circle, map)) => {
            let at = steps!["modules", circle[0].as_str(), "imports", map.as_str()];
            let spot = root.value_spot(&at);
            Err((Problem::ImportCycle { circle }, spot))
        }
    }
}

/// A module cannot give away what it imports, nor migrate it.
fn contracts(name: &str, module: &ModuleSpec, root: &Node) -> Checked<()> {
    for (i, map) in module.exports.iter().flatten().enumerate() {
        let at = steps!["modules", name, "exports", i];
        if map.is_empty() || module.exports.iter().flatten().take(i).any(|other| other == map) {
            let message = match map.is_empty() {
                true => "the name of a map is empty".to_owned(),
                false => format!("`{map}` is exported twice"),
            };
            let help = "list each map once, by the name that the object gives it".to_owned();
            return Err((Problem::BadValue { message, path: String::new(), help }, root.value_spot(&at)));
        }
    }
    for (map, how) in &module.migrate {
        let at = steps!["modules", name, "migrate", map.as_str()];
        valid_map(map, root, &at)?;
        if let Some(import) = module.imports.get(map) {
            let (module, map, owner) = (name.to_owned(), map.clone(), import.module.clone());
            return Err((Problem::MigratedImport { module, map, owner }, root.key_spot(&at)));
        }
        for (i, (old, new)) in how.renames.iter().enumerate() {
            let twice = how.renames.values().take(i).any(|other| other == new);
            if old.is_empty() || new.is_empty() || twice {
                let message = match twice {
                    true => format!("two fields of `{map}` become `{new}`"),
                    false => format!("a field of `{map}` has no name"),
                };
                let help = "write `old: new`, each field once".to_owned();
                let at = steps!["modules", name, "migrate", map.as_str(), "renames", old.as_str()];
                return Err((Problem::BadValue { message, path: String::new(), help }, root.value_spot(&at)));
            }
        }
    }
    Ok(())
}

fn program_arrays(modules: &IndexMap<String, ModuleSpec>, root: &Node) -> Checked<()> {
    for (name, module) in modules {
        for (map, programs) in &module.programs {
            let at = steps!["modules", name.as_str(), "programs", map.as_str()];
            valid_map(map, root, &at)?;
            if let Some(import) = module.imports.get(map) {
                let (module, map, owner) = (name.clone(), map.clone(), import.module.clone());
                return Err((Problem::FilledImport { module, map, owner }, root.key_spot(&at)));
            }
            for (index, program) in programs {
                if program.is_empty() {
                    let index = index.to_string();
                    let at = steps!["modules", name.as_str(), "programs", map.as_str(), index.as_str()];
                    let message = format!("entry {index} of `{map}` has no program");
                    let help = "write the name of a program of the module's object".to_owned();
                    let problem = Problem::BadValue { message, path: String::new(), help };
                    return Err((problem, root.value_spot(&at)));
                }
            }
        }
    }
    Ok(())
}

/// The first circle of imports, its first module also last, with the map that the first module imports on it.
fn import_cycle(modules: &IndexMap<String, ModuleSpec>) -> Option<(Vec<String>, String)> {
    // Depth first with an explicit path: a file can have more modules than a stack has room for.
    let mut done = vec![false; modules.len()];
    for start in 0..modules.len() {
        let mut path = vec![(start, 0)];
        while let Some((module, next)) = path.last_mut() {
            let (_, spec) = modules.get_index(*module)?;
            let Some((_, import)) = spec.imports.get_index(*next) else {
                done[*module] = true;
                path.pop();
                continue;
            };
            *next += 1;
            let target = modules.get_index_of(&import.module)?;
            if let Some(first) = path.iter().position(|(module, _)| *module == target) {
                let name = |(module, _): &(usize, usize)| modules.get_index(*module).map(|m| m.0.clone());
                let mut circle: Vec<String> = path[first..].iter().filter_map(name).collect();
                circle.push(import.module.clone());
                let (module, next) = path[first];
                let (map, _) = modules.get_index(module)?.1.imports.get_index(next - 1)?;
                return Some((circle, map.clone()));
            }
            if !done[target] {
                path.push((target, 0));
            }
        }
    }
    None
}

pub(crate) fn sources(
    sources: &IndexMap<String, SourceSpec>,
    modules: &IndexMap<String, ModuleSpec>,
    root: &Node,
) -> Checked<()> {
    let mut filled: IndexMap<&MapRef, (&str, usize)> = IndexMap::new();
    for (name, source) in sources {
        let name = name.as_str();
        valid_name(name, "source", root, &steps!["sources", name])?;
        for (i, map) in source.maps.iter().enumerate() {
            let at = steps!["sources", name, "maps", i];
            known_module(&map.module, modules, root, &at)?;
            let spot = root.value_spot(&at);
            if let Some(import) = modules[&map.module].imports.get(&map.map) {
                let (MapRef { module, map }, owner) = (map.clone(), import.to_string());
                return Err((Problem::SourceOfImport { module, map, owner }, spot));
            }
            if let Some((first, first_line)) = filled.insert(map, (name, spot.line)) {
                let (map, first) = (map.to_string(), first.to_owned());
                return Err((Problem::FilledTwice { map, first, first_line }, spot));
            }
        }
        let bad = |message: String, help: &str, at: &[Step<'_>]| {
            let problem = Problem::BadValue { message, path: String::new(), help: help.to_owned() };
            Err((problem, root.value_spot(at)))
        };
        if source.maps.is_empty() {
            let at = steps!["sources", name, "maps"];
            return bad(format!("source `{name}` fills no map"), "list at least one, as `module/map`", &at);
        }
        for (key, text) in [("table", &source.table), ("key", &source.key)] {
            if text.is_empty() || text.contains('\0') {
                let help = "write the name as the database has it";
                return bad(
                    format!("`{key}` of source `{name}` is no name"),
                    help,
                    &steps!["sources", name, key],
                );
            }
        }
        for key in ["password_file", "ca_file"] {
            let given = if key == "ca_file" { &source.ca_file } else { &source.password_file };
            if given.is_some() && matches!(source.from, Database::Sqlite(_)) {
                let message = format!("`{key}` means nothing for a database of SQLite's");
                return bad(message, "remove it", &steps!["sources", name, key]);
            }
        }
        fields(name, source, root)?;
    }
    Ok(())
}

/// A field has one column or one constant, and belongs to a map of its source.
fn fields(name: &str, source: &SourceSpec, root: &Node) -> Checked<()> {
    let columns = source.columns.iter().map(|(field, column)| ("columns", field, column.column.is_empty()));
    let constants = source.constants.keys().map(|field| ("constants", field, false));
    for (list, field, nameless) in columns.chain(constants) {
        let (of, path) = source.field(field);
        let (message, help) = if path.is_empty() || nameless {
            (
                format!("a field or a column in `{list}` of source `{name}` has no name"),
                "write `field: column`",
            )
        } else if of.is_none() && field.contains('/') {
            (
                format!("`{field}` is about no map of source `{name}`"),
                "write `module/map.field` with one of its `maps`",
            )
        } else if list == "constants" && source.columns.contains_key(field) {
            (
                format!("`{field}` of source `{name}` has both a column and a constant"),
                "remove one of the two",
            )
        } else {
            continue;
        };
        let problem = Problem::BadValue { message, path: String::new(), help: help.to_owned() };
        return Err((problem, root.key_spot(&steps!["sources", name, list, field.as_str()])));
    }
    Ok(())
}

pub(crate) fn agent(agent: &AgentSpec, modules: &IndexMap<String, ModuleSpec>, root: &Node) -> Checked<()> {
    for map in agent.alarms.keys() {
        let name = map.to_string();
        known_module(&map.module, modules, root, &steps!["agent", "alarms", name.as_str()])?;
    }
    for (i, user) in agent.allow.iter().enumerate() {
        if user.is_empty() {
            let (message, help) = ("a user in `allow` has no name".to_owned(), "write a name or a number");
            let problem = Problem::BadValue { message, path: String::new(), help: help.to_owned() };
            return Err((problem, root.value_spot(&steps!["agent", "allow", i])));
        }
    }
    Ok(())
}

pub(crate) fn chains(
    raw: IndexMap<String, RawChain>,
    modules: &IndexMap<String, ModuleSpec>,
    root: &Node,
) -> Checked<IndexMap<String, ChainSpec>> {
    let mut chains = IndexMap::new();
    let mut interfaces: IndexMap<String, (String, usize)> = IndexMap::new();
    for (name, raw) in raw {
        valid_name(&name, "chain", root, &steps!["chains", name.as_str()])?;
        for (i, interface) in raw.interfaces.iter().enumerate() {
            let spot = root.value_spot(&steps!["chains", name.as_str(), "interfaces", i]);
            if !is_interface(interface) {
                return Err((Problem::BadInterface { name: interface.clone() }, spot));
            }
            if let Some((first, first_line)) = interfaces.insert(interface.clone(), (name.clone(), spot.line))
            {
                let interface = interface.clone();
                return Err((Problem::InterfaceTwice { interface, first, first_line }, spot));
            }
        }
        let chain = chain(name.clone(), raw, modules, root)?;
        chains.insert(name, chain);
    }
    Ok(chains)
}

fn chain(
    name: String,
    raw: RawChain,
    modules: &IndexMap<String, ModuleSpec>,
    root: &Node,
) -> Checked<ChainSpec> {
    let chain = name.as_str();
    let mut slots: Vec<SlotSpec> = Vec::new();
    for (i, raw) in raw.slots.into_iter().enumerate() {
        let spot = root.key_spot(&steps!["chains", chain, "slots", i]);
        if !modules.contains_key(&raw.module) {
            let known = modules.keys().cloned().collect();
            let path = path_name(&steps!["chains", chain, "slots"]);
            return Err((Problem::UnknownModule { module: raw.module, path, known }, spot));
        }
        if let Some(first) = slots.iter().position(|slot| slot.module == raw.module) {
            let first_line = root.key_spot(&steps!["chains", chain, "slots", first]).line;
            let problem = Problem::ModuleTwice { module: raw.module, chain: name, first_line };
            return Err((problem, spot));
        }
        slots.push(slot(raw, chain, i, root)?);
    }
    let list = steps!["chains", chain, "slots"];
    if slots.is_empty() {
        return Err((Problem::EmptyChain { chain: name.clone() }, root.key_spot(&list)));
    }
    if slots.iter().all(|slot| slot.at == Place::Exit) {
        return Err((Problem::NothingInOrder { chain: name.clone() }, root.key_spot(&list)));
    }
    if let Some((blocker, slot)) = unreachable_slot(&slots) {
        let index = slots.iter().position(|other| other.name == slot.name).unwrap_or_default();
        let problem = Problem::Unreachable { slot: slot.name.clone(), blocker: blocker.name.clone() };
        return Err((problem, root.key_spot(&steps!["chains", chain, "slots", index])));
    }
    let RawChain { interfaces, engine, mode, default, slots: _, gate, watch } = raw;
    guards(chain, gate.as_ref(), watch.as_ref(), root)?;
    Ok(ChainSpec { name, interfaces, engine, mode, default, slots, gate, watch })
}

/// A gate or a watch that looks at nothing is a mistake, and not a small one.
fn guards(chain: &str, gate: Option<&GateSpec>, watch: Option<&WatchSpec>, root: &Node) -> Checked<()> {
    if let Some(gate) = gate {
        let lists = [("fixtures", &gate.fixtures), ("pcap", &gate.pcap)];
        if lists.iter().all(|(_, paths)| paths.is_empty()) {
            let spot = root.key_spot(&steps!["chains", chain, "gate"]);
            return Err((Problem::EmptyGate { chain: chain.to_owned() }, spot));
        }
        for (key, paths) in lists {
            if let Some(i) = paths.iter().position(|path| path.as_os_str().is_empty()) {
                let message = format!("a path in `{key}` is empty");
                let help = "write the path of a file, or remove the item".to_owned();
                let problem = Problem::BadValue { message, path: String::new(), help };
                return Err((problem, root.value_spot(&steps!["chains", chain, "gate", key, i])));
            }
        }
    }
    if watch.is_some_and(|watch| watch.max_drop_increase.is_none() && watch.max_aborted.is_none()) {
        let spot = root.key_spot(&steps!["chains", chain, "watch"]);
        return Err((Problem::EmptyWatch { chain: chain.to_owned() }, spot));
    }
    Ok(())
}

fn slot(raw: RawSlot, chain: &str, index: usize, root: &Node) -> Checked<SlotSpec> {
    let RawSlot { module, options, keyed } = raw;
    let at = options.at.unwrap_or_default();
    let observer = options.observer.unwrap_or(at == Place::Exit);
    let spot = |key: &'static str| match keyed {
        true => root.key_spot(&steps!["chains", chain, "slots", index, module.as_str(), key]),
        false => root.key_spot(&steps!["chains", chain, "slots", index]),
    };
    if at == Place::Exit && !observer {
        return Err((Problem::ExitDecides { slot: module.clone() }, spot("observer")));
    }
    if observer {
        let given =
            [("proceed_on", options.proceed_on.is_some()), ("on_unknown", options.on_unknown.is_some())];
        if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err((Problem::IgnoredVerdict { key, slot: module.clone() }, spot(key)));
        }
    }
    Ok(SlotSpec {
        name: module.clone(),
        module,
        proceed_on: options.proceed_on,
        on_unknown: options.on_unknown.unwrap_or(Verdict::Aborted),
        observer,
        at,
    })
}

fn known_module(
    module: &str,
    modules: &IndexMap<String, ModuleSpec>,
    root: &Node,
    at: &[Step<'_>],
) -> Checked<()> {
    if modules.contains_key(module) {
        return Ok(());
    }
    let known = modules.keys().cloned().collect();
    let problem = Problem::UnknownModule { module: module.to_owned(), path: path_name(at), known };
    Err((problem, root.value_spot(at)))
}

fn valid_name(name: &str, what: &'static str, root: &Node, at: &[Step<'_>]) -> Checked<()> {
    if is_name(name) {
        return Ok(());
    }
    Err((Problem::BadName { name: name.to_owned(), what }, root.key_spot(at)))
}

/// Whether `name` can name a module, a chain or a slot. Such names become parts of paths below the BPF file system,
/// which keeps dots for itself.
pub fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn valid_map(name: &str, root: &Node, at: &[Step<'_>]) -> Checked<()> {
    if (1..=127).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
    {
        return Ok(());
    }
    let help = "the name of a map is a C identifier, as the object gives it".to_owned();
    let problem = Problem::BadValue { message: format!("`{name}` names no map"), path: String::new(), help };
    Err((problem, root.key_spot(at)))
}

/// Whether an interface can have the name, as `dev_valid_name` in net/core/dev.c has it.
pub fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
}
