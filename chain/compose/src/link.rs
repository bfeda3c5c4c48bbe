//! Modules put together, before any engine makes code of them: whose map is whose, and one BTF for all.
//!
//! A module's map is its own unless it imports it, or it is the packet context, which is the chain's.

use std::collections::{HashMap, VecDeque};

use xdpchain_abi::{CONTEXT_MAP, PacketContext, REASON_MAP};
use xdpchain_spec::MapRef;

use crate::btf::{Btf, TypeId, kernel_takes_types};
use crate::chain::{ADOPTED_MAP, Chain, EXIT_COLUMNS, EXIT_MAP, EXIT_ROWS, EXIT_VALUE, Module};
use crate::contract::{Side, side_by_side};
use crate::object::Function;
use crate::{ComposeError, Initial, MapDef, MapOwner, MapUse};

/// `BPF_MAP_TYPE_ARRAY`.
pub(crate) const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PROG_ARRAY`.
pub(crate) const PROG_ARRAY: u32 = 3;
/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const PERCPU_ARRAY: u32 = 6;

pub(crate) struct Linker<'a> {
    modules: Vec<Module<'a>>,
    /// What is added to a type id of a module's BTF to get the image's.
    shifts: Vec<u32>,
    btf: Btf,
    maps: Vec<MapUse>,
    /// For each module, for each map of its object, the index in `maps`.
    module_maps: Vec<Vec<usize>>,
    /// Values that maps are to hold from the start, with the image's index of the map and the module it is of.
    pending: VecDeque<(usize, usize, (u32, Initial))>,
    exits: usize,
    context: Option<usize>,
    /// Whether every slot's program takes packets in several buffers.
    frags: bool,
}

impl<'a> Linker<'a> {
    pub(crate) fn new(chain: &Chain<'a>) -> Result<Self, ComposeError> {
        Self::with_chain_maps(chain, vec![MapUse { owner: MapOwner::Chain, def: exit_counters() }])
    }

    /// As [`new`](Self::new), for an engine that counts nothing.
    pub(crate) fn uncounted(chain: &Chain<'a>) -> Result<Self, ComposeError> {
        Self::with_chain_maps(chain, Vec::new())
    }

    fn with_chain_maps(chain: &Chain<'a>, maps: Vec<MapUse>) -> Result<Self, ComposeError> {
        let mut btf = Btf::new();
        let mut shifts = Vec::new();
        for module in &chain.modules {
            shifts.push(match &module.object.btf {
                Some(types) => btf.append(types),
                None => 0,
            });
        }
        btf.sanitize();
        let mut linker = Self {
            modules: chain.modules.clone(),
            shifts,
            btf,
            maps,
            module_maps: Vec::new(),
            pending: VecDeque::new(),
            exits: 0,
            context: None,
            frags: takes_frags(chain),
        };
        linker.check_names()?;
        let used = linker.modules_of_slots(chain);
        let mut placed = HashMap::new();
        for module in 0..linker.modules.len() {
            let maps =
                if used.contains(&module) { linker.bind_maps(module, &mut placed)? } else { Vec::new() };
            linker.module_maps.push(maps);
        }
        linker.bind_values(&mut placed)?;
        Ok(linker)
    }

    /// Index in [`Chain::modules`].
    pub(crate) fn module_index(&self, name: &str) -> Option<usize> {
        self.modules.iter().position(|m| m.name == name)
    }

    /// For each map of the module's object, its index in the image.
    pub(crate) fn module_maps(&self, module: usize) -> &[usize] {
        &self.module_maps[module]
    }

    /// What is added to a type id of the module's BTF to get the image's.
    pub(crate) fn type_shift(&self, module: usize) -> u32 {
        self.shifts[module]
    }

    /// The function's type in the image's BTF.
    pub(crate) fn function_type(&self, module: usize, function: &Function) -> Option<TypeId> {
        function.btf_type.map(|id| id + self.shifts[module])
    }

    /// Index of the exit counters in the image.
    pub(crate) fn exit_map(&self) -> usize {
        self.exits
    }

    /// Index of the packet context in the image, when some module takes part in it.
    pub(crate) fn context_map(&self) -> Option<usize> {
        self.context
    }

    /// A map of the image, so far.
    pub(crate) fn map(&self, index: usize) -> &MapUse {
        &self.maps[index]
    }

    /// Whether the chain takes packets in several buffers.
    pub(crate) fn frags(&self) -> bool {
        self.frags
    }

    /// Adds a program array of the chain's, and returns its index.
    pub(crate) fn add_program_array(&mut self, name: &str, entries: u32) -> usize {
        self.maps.push(MapUse { owner: MapOwner::Chain, def: plain_map(name, PROG_ARRAY, 4, entries) });
        self.maps.len() - 1
    }

    /// Adds a per-CPU array of one entry of `size` octets of the chain's, and returns its index.
    pub(crate) fn add_scratch(&mut self, name: &str, size: u32) -> usize {
        self.maps.push(MapUse { owner: MapOwner::Chain, def: plain_map(name, PERCPU_ARRAY, size, 1) });
        self.maps.len() - 1
    }

    /// The licence of a module.
    pub(crate) fn license_of(&self, module: usize) -> String {
        self.modules[module].object.license.clone()
    }

    /// A licence for the whole: the kernel lets a program use GPL-only helpers when its licence is compatible, so a
    /// chain has the first module's that is not, or else a compatible one.
    pub(crate) fn license(&self) -> String {
        let compatible =
            ["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"];
        let licenses = || {
            let used =
                |i: &usize| !self.module_maps[*i].is_empty() || self.modules[*i].object.maps.is_empty();
            (0..self.modules.len()).filter(used).map(|i| self.modules[i].object.license.as_str())
        };
        licenses()
            .find(|l| !compatible.contains(l))
            .or_else(|| licenses().find(|l| *l == "GPL"))
            .or_else(|| licenses().next())
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn finish(self) -> (Vec<MapUse>, Btf) {
        (self.maps, self.btf)
    }

    /// Overrides and imports of maps that do not exist are mistakes, not wishes.
    fn check_names(&self) -> Result<(), ComposeError> {
        for module in &self.modules {
            let named = module.spec.maps.keys().chain(module.spec.imports.keys());
            let named = named.chain(module.spec.programs.keys()).chain(module.spec.migrate.keys());
            for map in named.chain(module.spec.exports.iter().flatten()) {
                if module.object.maps.iter().all(|m| m.name != *map) {
                    return Err(no_map(module, map));
                }
            }
            for (map, programs) in &module.spec.programs {
                let index = module.object.maps.iter().position(|m| m.name == *map).unwrap_or_default();
                let def = self.definition(self.module_index(module.name).unwrap_or_default(), index);
                let (module, map) = (module.name.to_owned(), map.clone());
                if def.map_type != PROG_ARRAY {
                    return Err(ComposeError::NotProgramArray { module, map });
                }
                if let Some(index) = programs.keys().copied().find(|index| *index >= def.max_entries) {
                    let max_entries = def.max_entries;
                    return Err(ComposeError::NoEntry { module, map, index, max_entries });
                }
            }
        }
        Ok(())
    }

    fn modules_of_slots(&self, chain: &Chain<'_>) -> Vec<usize> {
        chain.slots.iter().filter_map(|s| self.module_index(&s.spec.module)).collect()
    }

    fn bind_maps(
        &mut self,
        module: usize,
        placed: &mut HashMap<(usize, String), usize>,
    ) -> Result<Vec<usize>, ComposeError> {
        let mut indices = Vec::new();
        for map in 0..self.modules[module].object.maps.len() {
            let def = &self.modules[module].object.maps[map];
            if def.name == CONTEXT_MAP && !self.modules[module].spec.imports.contains_key(CONTEXT_MAP) {
                indices.push(self.bind_context(module, map)?);
                continue;
            }
            if def.name == ADOPTED_MAP && def.map_type == PROG_ARRAY {
                let def = self.definition(module, map);
                indices.push(self.maps.len());
                self.maps.push(MapUse { owner: MapOwner::Chain, def });
                continue;
            }
            let (owner, owner_map) = self.owner(module, &def.name)?;
            if (owner, owner_map) != (module, map) {
                self.check_import((module, map), (owner, owner_map))?;
            }
            indices.push(self.place(owner, owner_map, placed));
        }
        Ok(indices)
    }

    /// Index in the image of a map that its owner's object defines; the map is put there when it is not yet.
    fn place(&mut self, owner: usize, map: usize, placed: &mut HashMap<(usize, String), usize>) -> usize {
        let mut def = self.definition(owner, map);
        let next = self.maps.len();
        let index = *placed.entry((owner, def.name.clone())).or_insert(next);
        if index == next {
            let values = std::mem::take(&mut def.values);
            self.pending.extend(values.into_iter().map(|value| (index, owner, value)));
            self.maps.push(MapUse { owner: MapOwner::Module(self.modules[owner].name.to_owned()), def });
        }
        index
    }

    /// Gives maps the values that they hold from the start, which may be maps that nothing else refers to.
    fn bind_values(&mut self, placed: &mut HashMap<(usize, String), usize>) -> Result<(), ComposeError> {
        while let Some((map, owner, (at, value))) = self.pending.pop_front() {
            let value = match value {
                Initial::Map(inner) => {
                    let (owner, inner) = self.owner(owner, &self.modules[owner].object.maps[inner].name)?;
                    Initial::Map(self.place(owner, inner, placed))
                }
                Initial::Program(name) => Initial::Program(name),
            };
            self.maps[map].def.values.push((at, value));
        }
        Ok(())
    }

    /// The module that owns what `module` calls `name`, and the map's index in the owner's object.
    fn owner(&self, mut module: usize, name: &str) -> Result<(usize, usize), ComposeError> {
        let (first, mut name) = (module, name.to_owned());
        for _ in 0..=self.modules.len() {
            let given = &self.modules[module];
            let Some(MapRef { module: to, map }) = given.spec.imports.get(&name) else {
                let index = given.object.maps.iter().position(|m| m.name == name);
                return Ok((module, index.ok_or_else(|| no_map(given, &name))?));
            };
            module = self.module_index(to).ok_or_else(|| ComposeError::NoModule {
                place: format!("import `{name}` of module `{}`", given.name),
                module: to.clone(),
            })?;
            self.check_export(given, &name, module, map)?;
            name.clone_from(map);
        }
        Err(ComposeError::ImportCycle { module: self.modules[first].name.to_owned(), map: name })
    }

    /// Whether `importer` may use map `map` of module `owner` as its own map `name`.
    fn check_export(
        &self,
        importer: &Module<'_>,
        name: &str,
        owner: usize,
        map: &str,
    ) -> Result<(), ComposeError> {
        let owner = &self.modules[owner];
        let private = [(importer, name), (owner, map)].into_iter().find_map(|(module, map)| {
            let def = module.object.maps.iter().find(|def| def.name == map)?;
            Some((module.name, map, internal(def)?))
        });
        if let Some((module, map, what)) = private {
            let (import, private) = (format!("{}/{name}", importer.name), format!("{module}/{map}"));
            return Err(ComposeError::Internal { import, private, what });
        }
        match &owner.spec.exports {
            Some(exports) if exports.iter().all(|export| export != map) => Err(ComposeError::NotExported {
                import: format!("{}/{name}", importer.name),
                owner: owner.name.to_owned(),
                map: map.to_owned(),
                exports: exports.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The map as its owner's object and chains.yaml define it, with type ids of the image's BTF.
    fn definition(&self, module: usize, map: usize) -> MapDef {
        let given = &self.modules[module];
        let mut def = given.object.maps[map].clone();
        if let Some(max_entries) = given.spec.maps.get(&def.name).and_then(|o| o.max_entries) {
            def.max_entries = max_entries;
        }
        if def.initial.is_some() {
            // Constants and variables belong to one build of a module; another build must not find them.
            def.name = format!("{}.{}", def.name, given.digest);
        }
        if def.map_type == PROG_ARRAY {
            let programs = given.spec.programs.get(&def.name);
            for (index, program) in programs.into_iter().flatten() {
                def.values.retain(|(other, _)| other != index);
                def.values.push((*index, Initial::Program(program.clone())));
            }
            def.values.sort_by_key(|(index, _)| *index);
            if !def.values.is_empty() {
                // So do the programs that it holds; and all programs that an array holds take packets in several
                // buffers, or none.
                let frags = if self.frags { ".frags" } else { "" };
                let chosen = programs.map(|_| format!(".{:08x}", digest(&def.values))).unwrap_or_default();
                def.name = format!("{}.{}{chosen}{frags}", def.name, given.digest);
            }
        }
        shift_types(&mut def, self.shifts[module]);
        def
    }

    fn bind_context(&mut self, module: usize, map: usize) -> Result<usize, ComposeError> {
        let mut def = self.definition(module, map);
        let wanted = context_definition();
        if let Some(difference) = difference(&wanted, &def) {
            return Err(self.mismatch((module, &def), ("chain", &wanted), difference, &[]));
        }
        if let Some(index) = self.context {
            self.check_types((module, &def), ("chain", &self.maps[index].def))?;
            return Ok(index);
        }
        def.max_entries = 1;
        self.maps.push(MapUse { owner: MapOwner::Chain, def });
        self.context = Some(self.maps.len() - 1);
        Ok(self.maps.len() - 1)
    }

    fn check_import(&self, importer: (usize, usize), owner: (usize, usize)) -> Result<(), ComposeError> {
        let (wants, has) = (self.definition(importer.0, importer.1), self.definition(owner.0, owner.1));
        let owner = self.modules[owner.0].name;
        // The owner decides how many entries there are.
        let same_size = MapDef { max_entries: has.max_entries, ..wants.clone() };
        if let Some(difference) = difference(&has, &same_size) {
            return Err(self.mismatch((importer.0, &wants), (owner, &has), difference, SIZE));
        }
        self.check_types((importer.0, &wants), (owner, &has))
    }

    /// Compares keys and values field by field, where both sides have types.
    fn check_types(&self, wants: (usize, &MapDef), has: (&str, &MapDef)) -> Result<(), ComposeError> {
        for (what, wanted, there) in
            [("keys", wants.1.btf_key, has.1.btf_key), ("values", wants.1.btf_value, has.1.btf_value)]
        {
            if wanted == 0 || there == 0 {
                continue;
            }
            if let Err(diff) = self.btf.same_layout(there, &self.btf, wanted) {
                return Err(self.mismatch(wants, has, format!("their {what} differ: {diff}"), SIZE));
            }
        }
        Ok(())
    }

    /// The error for a map that one module wants and another has differently; both as they have it.
    fn mismatch(
        &self,
        (importer, wants): (usize, &MapDef),
        (owner, has): (&str, &MapDef),
        difference: String,
        except: &[&str],
    ) -> ComposeError {
        let importer = self.modules[importer].name;
        let (has_name, wants_name) = (format!("{owner}/{}", has.name), format!("{importer}/{}", wants.name));
        let layouts = side_by_side(
            &Side { name: &has_name, def: has, btf: &self.btf },
            &Side { name: &wants_name, def: wants, btf: &self.btf },
            except,
        );
        ComposeError::Mismatch {
            importer: importer.to_owned(),
            map: wants.name.clone(),
            owner: owner.to_owned(),
            owner_map: has.name.clone(),
            difference: format!("{difference}\n{layouts}"),
        }
    }
}

/// What an importer's definition may have different: the owner decides how many entries there are.
const SIZE: &[&str] = &["max_entries"];

/// What a map is when it is a program's inside, which no other module may reach.
fn internal(def: &MapDef) -> Option<&'static str> {
    match def.name.as_str() {
        _ if def.initial.is_some() => Some("the constants and variables of one build of it"),
        CONTEXT_MAP => Some("the packet context, which is the chain's and shared by itself"),
        REASON_MAP => Some("the counters of its own reasons"),
        ADOPTED_MAP | EXIT_MAP => Some("the chain's"),
        _ => None,
    }
}

/// Tells lists of programs apart: FNV-1a.
fn digest(values: &[(u32, Initial)]) -> u32 {
    let text = format!("{values:?}");
    text.bytes().fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

fn takes_frags(chain: &Chain<'_>) -> bool {
    chain.slots.iter().all(|slot| {
        let module = chain.modules.iter().find(|module| module.name == slot.spec.module);
        let program = module.and_then(|m| m.object.xdp_program(m.spec.program.as_deref()).ok());
        program.is_some_and(|program| program.frags)
    })
}

fn no_map(module: &Module<'_>, map: &str) -> ComposeError {
    let maps: Vec<String> = module.object.maps.iter().map(|m| format!("`{}`", m.name)).collect();
    ComposeError::NoMap {
        module: module.name.to_owned(),
        map: map.to_owned(),
        maps: if maps.is_empty() { "none".into() } else { maps.join(", ") },
    }
}

fn shift_types(def: &mut MapDef, shift: u32) {
    for id in [&mut def.btf_key, &mut def.btf_value] {
        if *id != 0 {
            *id += shift;
        }
    }
    if !kernel_takes_types(def.map_type) {
        (def.btf_key, def.btf_value) = (0, 0);
    }
    if let Some(inner) = &mut def.inner {
        shift_types(inner, shift);
    }
}

fn exit_counters() -> MapDef {
    plain_map(EXIT_MAP, PERCPU_ARRAY, EXIT_VALUE, EXIT_ROWS * EXIT_COLUMNS)
}

fn context_definition() -> MapDef {
    plain_map(CONTEXT_MAP, PERCPU_ARRAY, size_of::<PacketContext>() as u32, 1)
}

/// A map with keys of four octets and no types.
fn plain_map(name: &str, map_type: u32, value_size: u32, max_entries: u32) -> MapDef {
    MapDef { name: name.to_owned(), map_type, key_size: 4, value_size, max_entries, ..MapDef::default() }
}

/// What differs between two definitions, types aside: what is there, and what was wanted.
fn difference(has: &MapDef, wants: &MapDef) -> Option<String> {
    let parts = [
        ("type", has.map_type, wants.map_type),
        ("key size", has.key_size, wants.key_size),
        ("value size", has.value_size, wants.value_size),
        ("max_entries", has.max_entries, wants.max_entries),
        ("flags", has.flags, wants.flags),
        ("NUMA node", has.numa_node, wants.numa_node),
    ];
    let different = parts.into_iter().find(|(_, has, wants)| has != wants);
    different.map(|(what, has, wants)| format!("its {what} is {has}, but {wants} is wanted"))
}
