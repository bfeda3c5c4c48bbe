//! `check`: what is in an object, and whether a chain of it composes and verifies.
//!
//! Nothing is attached or pinned: what the kernel verified is gone when the command ends.

use std::collections::BTreeSet;

use serde::Serialize;
use xdpchain_compose::object::{Function, Object, Program, ProgramKind};
use xdpchain_compose::{Image, Insn, fused, helper_name, libxdp, tail};
use xdpchain_host::{ChainState, Objects, load, measure};
use xdpchain_spec::{ChainSpec, Config, Engine, ModuleSpec, ObjectRef, SlotSpec, VerdictSet};

use crate::args::Common;
use crate::assemble;
use crate::config;
use crate::error::{Error, Result, exit};
use crate::output::{Output, Page, grouped, octets};
use crate::report;

#[derive(Serialize)]
struct Checked {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    objects: Vec<CheckedObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chains: Vec<CheckedChain>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckedObject {
    object: String,
    octets: usize,
    license: String,
    btf: bool,
    programs: Vec<CheckedProgram>,
    maps: Vec<CheckedMap>,
    /// Kernel functions and variables that it asks for.
    kernel_symbols: Vec<String>,
    /// Options of the kernel's configuration that it asks for.
    kernel_options: Vec<String>,
    engines: Vec<EngineResult>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckedProgram {
    name: String,
    section: String,
    kind: &'static str,
    instructions: usize,
    frags: bool,
    /// Helpers that it calls, by name.
    helpers: Vec<String>,
    /// Functions beside the main one.
    subprograms: usize,
    /// Octets below the frame pointer that the main function names itself; subprograms have frames of their own, and what
    /// is reached by a pointer is not seen. The verifier's numbers are with the engines.
    stack: u32,
    /// What `.xdp_run_config` says; none when the object has none.
    proceed_on: Option<VerdictSet>,
    /// The one that a chain would run.
    chosen: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckedMap {
    name: String,
    #[serde(rename = "type")]
    map_type: String,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    key: Option<String>,
    value: Option<String>,
}

#[derive(Serialize)]
struct CheckedChain {
    chain: String,
    interfaces: Vec<String>,
    slots: Vec<String>,
    /// The engine that it asks for.
    engine: &'static str,
    engines: Vec<EngineResult>,
}

/// What one engine makes of it here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EngineResult {
    engine: &'static str,
    /// Whether the kernel took it; none when this user may not ask, or it cannot be tried.
    runs: Option<bool>,
    /// What stands in the way, or why it was not tried.
    limit: Option<String>,
    programs: usize,
    instructions: usize,
    maps: usize,
    /// Instructions that the verifier looked at, all programs together.
    verified_instructions: Option<u32>,
    /// Octets of stack of each function of each program, as the verifier has it.
    stack: Vec<Vec<u32>>,
    #[serde(skip)]
    error: Option<Error>,
}

/// Checks the objects, or all of chains.yaml when there are none.
pub(crate) fn run(common: &Common, out: Output, objects: &[ObjectRef], program: Option<&str>) -> Result<u8> {
    let mut checked = Checked { objects: Vec::new(), chains: Vec::new() };
    // One bad object does not keep the others from being looked at; the first failure's status is the command's.
    let mut failed = None;
    let mut keep = |error: Error| {
        report(&error.to_string());
        failed.get_or_insert(error.exit_status());
    };
    if objects.is_empty() {
        let (config, file) = config::read(common.file.as_deref())?;
        for chain in config.chains.values() {
            match check_chain(&config, chain) {
                Ok((chain, refused)) => {
                    checked.chains.push(chain);
                    refused.into_iter().for_each(|error| keep(error.in_file(&file)));
                }
                Err(error) => keep(error.in_file(&file)),
            }
        }
        if config.chains.is_empty() {
            tracing::warn!("`{}` has no chains", file.display());
        }
    }
    for object in objects {
        match check_object(object, program) {
            Ok((object, refused)) => {
                checked.objects.push(object);
                refused.into_iter().for_each(&mut keep);
            }
            Err(error) => keep(error),
        }
    }
    out.print("Check", &checked, |page| show(page, &checked))?;
    if !all_verified(&checked) {
        tracing::warn!("not verified by the kernel: that takes root, or CAP_BPF and CAP_NET_ADMIN");
    }
    Ok(failed.unwrap_or(exit::DONE))
}

fn all_verified(checked: &Checked) -> bool {
    let mut engines =
        checked.objects.iter().flat_map(|o| &o.engines).chain(checked.chains.iter().flat_map(|c| &c.engines));
    engines.all(|result| result.runs.is_some())
}

/// What a chain is, and why no engine that it may have takes it, if none does.
fn check_chain(config: &Config, chain: &ChainSpec) -> Result<(CheckedChain, Option<Error>)> {
    config::supported(chain)?;
    let (state, objects) = assemble::chain_state(config, chain)?;
    let (engines, refused) = try_engines(&state, &objects);
    // What stands in every engine's way alike, before there is anything to load, is no engine's limit but a mistake of the file:
    // there is nothing to compare.
    let alike = |result: &EngineResult| result.programs == 0 && result.limit == engines[0].limit;
    let refused = match refused {
        Some(error) if engines.iter().all(alike) => return Err(error),
        refused => refused,
    };
    let checked = CheckedChain {
        chain: chain.name.clone(),
        interfaces: chain.interfaces.clone(),
        slots: chain.slots.iter().map(|slot| slot.name.clone()).collect(),
        engine: chain.engine.name(),
        engines,
    };
    Ok((checked, refused))
}

/// What is in an object, and why neither `fused` nor `tail` takes it, if so.
fn check_object(object: &ObjectRef, program: Option<&str>) -> Result<(CheckedObject, Option<Error>)> {
    let bytes = config::object_bytes(object)?;
    let failed = |source| Error::Object { object: object.to_string(), source };
    let parsed = Object::parse(&bytes).map_err(failed)?;
    let chosen = parsed.xdp_program(program).map_err(failed)?;
    let (engines, refused) = try_alone(object, program)?;
    let program = |program: &Program| CheckedProgram {
        helpers: helpers(&parsed, program),
        subprograms: parsed.reachable(program.function).len() - 1,
        stack: stack(&parsed.functions[program.function]),
        name: program.name.clone(),
        section: program.section.clone(),
        kind: match program.kind {
            ProgramKind::Xdp => "xdp",
            ProgramKind::XdpMapEntry => "xdp for map entries",
            ProgramKind::Untold => "not told",
            ProgramKind::Other => "other",
        },
        instructions: parsed
            .reachable(program.function)
            .iter()
            .map(|&f| parsed.functions[f].insns.len())
            .sum(),
        frags: program.frags,
        proceed_on: program.run_config.map(|config| VerdictSet::from_bits(config.chain_call_actions)),
        chosen: program.name == chosen.name,
    };
    let type_name = |id: u32| parsed.btf.as_ref().filter(|_| id != 0).map(|btf| btf.type_name(id));
    let maps = parsed.maps.iter().map(|map| CheckedMap {
        name: map.name.clone(),
        map_type: load::map_type_name(map.map_type),
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        key: type_name(map.btf_key),
        value: type_name(map.btf_value),
    });
    let checked = CheckedObject {
        object: object.to_string(),
        octets: bytes.len(),
        license: parsed.license.clone(),
        btf: parsed.btf.is_some(),
        programs: parsed.programs.iter().map(program).collect(),
        maps: maps.collect(),
        kernel_symbols: parsed.externs.symbols.iter().map(|symbol| symbol.name.clone()).collect(),
        kernel_options: parsed.externs.options.iter().map(|option| option.name.clone()).collect(),
        engines,
    };
    Ok((checked, refused))
}

/// The helpers that a program calls, by name, each once.
fn helpers(object: &Object, program: &Program) -> Vec<String> {
    let functions = object.reachable(program.function).into_iter();
    let insns = functions.flat_map(|f| &object.functions[f].insns);
    let ids: BTreeSet<i32> = insns.filter(|i| i.code == CALL && i.regs >> 4 == 0).map(|i| i.imm).collect();
    ids.into_iter().map(|id| helper_name(id).map_or_else(|| format!("helper {id}"), str::to_owned)).collect()
}

/// Opcode of a call; with source register 0 it is one of a helper.
const CALL: u8 = 0x85;
/// The frame pointer.
const FP: u8 = 10;

/// The lowest octet below the frame pointer that a function's loads and stores name.
fn stack(function: &Function) -> u32 {
    let depth = |insn: &Insn| {
        let base = match insn.code & 7 {
            1 => insn.regs >> 4,
            2 | 3 => insn.regs & 15,
            _ => return 0,
        };
        if base == FP && insn.off < 0 { u32::from(insn.off.unsigned_abs()) } else { 0 }
    };
    function.insns.iter().map(depth).max().unwrap_or(0)
}

/// A chain of nothing but the object.
fn try_alone(object: &ObjectRef, program: Option<&str>) -> Result<(Vec<EngineResult>, Option<Error>)> {
    let name = config::module_name(object).unwrap_or_else(|| "module".to_owned());
    let chain = ChainSpec::new("check", vec![SlotSpec::new(&name)]);
    let module = ModuleSpec { program: program.map(str::to_owned), ..ModuleSpec::new(object.clone()) };
    let config = Config { modules: [(name, module)].into_iter().collect(), ..Config::default() };
    let (state, objects) = assemble::chain_state(&config, &chain)?;
    Ok(try_engines(&state, &objects))
}

/// Composes a chain by each engine, and has the kernel verify it. With the failure when the engine that it asks for does not take it,
/// or none does.
fn try_engines(state: &ChainState, objects: &Objects) -> (Vec<EngineResult>, Option<Error>) {
    let mut results = vec![
        try_engine("fused", assemble::image(state, objects, fused::compose), alone),
        try_engine("tail", assemble::image(state, objects, tail::compose), alone),
        try_engine("libxdp", assemble::image(state, objects, libxdp::compose), dispatched),
    ];
    let wanted: &[&str] = match state.chain.engine {
        Engine::Auto => &["fused", "tail"],
        Engine::Fused => &["fused"],
        Engine::Tail => &["tail"],
        Engine::Libxdp => &["libxdp"],
    };
    let asked = |result: &&mut EngineResult| wanted.contains(&result.engine);
    let mut refused = None;
    if results.iter_mut().filter(asked).all(|result| result.error.is_some()) {
        refused = results.iter_mut().filter(asked).find_map(|result| result.error.take());
    }
    (results, refused)
}

/// What the verifier says of an image.
struct Verified {
    instructions: u32,
    stack: Vec<Vec<u32>>,
}

/// Has the kernel verify an image as it would be attached.
fn alone(image: &Image) -> xdpchain_host::Result<Verified> {
    let measured = measure(image)?;
    Ok(Verified {
        instructions: measured.iter().map(|program| program.verified).sum(),
        stack: measured.into_iter().map(|program| program.stack).collect(),
    })
}

/// Has the kernel verify an image in libxdp's dispatcher.
fn dispatched(image: &Image) -> xdpchain_host::Result<Verified> {
    xdpchain_host::libxdp::verify(image).map(|instructions| Verified { instructions, stack: Vec::new() })
}

fn try_engine(
    engine: &'static str,
    image: Result<Image>,
    verify: fn(&Image) -> xdpchain_host::Result<Verified>,
) -> EngineResult {
    let mut result = EngineResult {
        engine,
        runs: None,
        limit: None,
        programs: 0,
        instructions: 0,
        maps: 0,
        verified_instructions: None,
        stack: Vec::new(),
        error: None,
    };
    let failed = |result: &mut EngineResult, error: Error| {
        result.runs = Some(false);
        result.limit = error.to_string().lines().next().map(str::to_owned);
        result.error = Some(error);
    };
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            failed(&mut result, error);
            return result;
        }
    };
    result.programs = image.programs.len();
    result.instructions = image.programs.iter().map(|program| program.insns.len()).sum();
    result.maps = image.maps.len();
    match verify(&image) {
        Ok(verified) => {
            result.runs = Some(true);
            result.verified_instructions = Some(verified.instructions);
            result.stack = verified.stack;
        }
        Err(error) if error.class() == xdpchain_host::Class::Permission => {
            result.limit = Some("not verified: that takes root, or CAP_BPF and CAP_NET_ADMIN".to_owned());
        }
        Err(error) => failed(&mut result, error.into()),
    }
    result
}

fn show(page: &mut Page, checked: &Checked) {
    for (i, object) in checked.objects.iter().enumerate() {
        if i > 0 {
            page.line("");
        }
        page.line(format!(
            "{}: {}, licence {}, {}",
            object.object,
            octets(object.octets as u64),
            if object.license.is_empty() { "none" } else { &object.license },
            if object.btf { "with BTF" } else { "without BTF" },
        ));
        page.line("");
        page.table(
            &[
                "PROGRAM",
                "SECTION",
                "KIND",
                ">INSTRUCTIONS",
                ">FUNCTIONS",
                ">STACK",
                "FRAGS",
                "PROCEED ON",
                "",
            ],
            object.programs.iter().map(|program| {
                vec![
                    program.name.clone(),
                    program.section.clone(),
                    program.kind.to_owned(),
                    grouped(program.instructions as u64),
                    (1 + program.subprograms).to_string(),
                    format!("{} B", program.stack),
                    if program.frags { "yes" } else { "no" }.to_owned(),
                    program.proceed_on.map_or_else(|| "[pass]".to_owned(), |set| set.to_string()),
                    if program.chosen { "runs" } else { "" }.to_owned(),
                ]
            }),
        );
        if let Some(chosen) =
            object.programs.iter().find(|program| program.chosen && !program.helpers.is_empty())
        {
            page.line("");
            page.line(format!("calls {}", chosen.helpers.join(", ")));
        }
        for (what, names) in
            [("kernel symbols", &object.kernel_symbols), ("kernel options", &object.kernel_options)]
        {
            if !names.is_empty() {
                page.line(format!("{what}: {}", names.join(", ")));
            }
        }
        if !object.maps.is_empty() {
            page.line("");
            page.table(
                &["MAP", "TYPE", ">ENTRIES", "KEY", "VALUE"],
                object.maps.iter().map(|map| {
                    vec![
                        map.name.clone(),
                        map.map_type.clone(),
                        grouped(map.max_entries.into()),
                        typed(map.key.as_deref(), map.key_size),
                        typed(map.value.as_deref(), map.value_size),
                    ]
                }),
            );
        }
        page.line("");
        show_engines(page, &object.engines);
    }
    for (i, chain) in checked.chains.iter().enumerate() {
        if i > 0 {
            page.line("");
        }
        page.line(format!("chain {}, engine {}: {}", chain.chain, chain.engine, chain.slots.join(" -> ")));
        page.line("");
        show_engines(page, &chain.engines);
    }
}

fn typed(name: Option<&str>, size: u32) -> String {
    match name {
        Some(name) => format!("{name} ({size} B)"),
        None => format!("{size} B"),
    }
}

fn show_engines(page: &mut Page, engines: &[EngineResult]) {
    let number = |number: usize| if number == 0 { "-".to_owned() } else { grouped(number as u64) };
    page.table(
        &["ENGINE", "RUNS HERE", ">PROGRAMS", ">INSTRUCTIONS", ">VERIFIED", ">MAPS", "STACK"],
        engines.iter().map(|result| {
            let depths = |program: &Vec<u32>| {
                let texts: Vec<String> = program.iter().map(u32::to_string).collect();
                texts.join("+")
            };
            let stack: Vec<String> = result.stack.iter().map(depths).collect();
            let runs = match result.runs {
                Some(true) => "yes",
                Some(false) => "no",
                None => "not tried",
            };
            vec![
                result.engine.to_owned(),
                runs.to_owned(),
                number(result.programs),
                number(result.instructions),
                number(result.verified_instructions.unwrap_or(0) as usize),
                number(result.maps),
                stack.join(", "),
            ]
        }),
    );
    for result in engines {
        if let Some(limit) = &result.limit {
            page.line(format!("{}: {limit}", result.engine));
        }
    }
}
