//! `check`: what is in an object, and whether a chain of it composes and verifies.
//!
//! Nothing is attached or pinned: what the kernel verified is gone when the command ends.

use serde::Serialize;
use xdpchain_compose::Image;
use xdpchain_compose::object::{Object, Program, ProgramKind};
use xdpchain_host::load;
use xdpchain_spec::{
    ChainDefault, ChainSpec, Config, Engine, Mode, ModuleSpec, ObjectRef, SlotSpec, VerdictSet,
};

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
    composed: Composed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckedProgram {
    name: String,
    section: String,
    kind: &'static str,
    instructions: usize,
    frags: bool,
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
    composed: Composed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Composed {
    instructions: usize,
    maps: usize,
    /// Whether the kernel verified the program; false when this user may not ask it to.
    verified: bool,
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
                Ok(chain) => checked.chains.push(chain),
                Err(error) => keep(error.in_file(&file)),
            }
        }
        if config.chains.is_empty() {
            tracing::warn!("`{}` has no chains", file.display());
        }
    }
    for object in objects {
        match check_object(object, program) {
            Ok(object) => checked.objects.push(object),
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
    checked.objects.iter().all(|object| object.composed.verified)
        && checked.chains.iter().all(|chain| chain.composed.verified)
}

fn check_chain(config: &Config, chain: &ChainSpec) -> Result<CheckedChain> {
    config::supported(chain)?;
    let (state, objects) = assemble::chain_state(config, chain)?;
    let composed = verify(&assemble::compose(&state, &objects, None)?.image)?;
    Ok(CheckedChain {
        chain: chain.name.clone(),
        interfaces: chain.interfaces.clone(),
        slots: chain.slots.iter().map(|slot| slot.name.clone()).collect(),
        composed,
    })
}

fn check_object(object: &ObjectRef, program: Option<&str>) -> Result<CheckedObject> {
    let bytes = config::object_bytes(object)?;
    let failed = |source| Error::Object { object: object.to_string(), source };
    let parsed = Object::parse(&bytes).map_err(failed)?;
    let chosen = parsed.xdp_program(program).map_err(failed)?;
    let composed = compose_alone(object, program)?;
    let program = |program: &Program| CheckedProgram {
        name: program.name.clone(),
        section: program.section.clone(),
        kind: match program.kind {
            ProgramKind::Xdp => "xdp",
            ProgramKind::XdpMapEntry => "xdp for map entries",
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
    Ok(CheckedObject {
        object: object.to_string(),
        octets: bytes.len(),
        license: parsed.license.clone(),
        btf: parsed.btf.is_some(),
        programs: parsed.programs.iter().map(program).collect(),
        maps: maps.collect(),
        composed,
    })
}

/// A chain of nothing but the object.
fn compose_alone(object: &ObjectRef, program: Option<&str>) -> Result<Composed> {
    let name = config::module_name(object).unwrap_or_else(|| "module".to_owned());
    let chain = ChainSpec {
        name: "check".to_owned(),
        interfaces: Vec::new(),
        engine: Engine::Fused,
        mode: Mode::Auto,
        default: ChainDefault::Keep,
        slots: vec![SlotSpec::new(&name)],
    };
    let module = ModuleSpec { program: program.map(str::to_owned), ..ModuleSpec::new(object.clone()) };
    let config = Config { modules: [(name, module)].into_iter().collect(), ..Config::default() };
    let (state, objects) = assemble::chain_state(&config, &chain)?;
    verify(&assemble::compose(&state, &objects, None)?.image)
}

/// Has the kernel verify the program; one that this user may not ask is no failure.
fn verify(image: &Image) -> Result<Composed> {
    let verified = match load::load(image, &mut |_| Ok(None)) {
        Ok(_) => true,
        Err(error) if error.class() == xdpchain_host::Class::Permission => false,
        Err(error) => return Err(error.into()),
    };
    let instructions = image.programs.iter().map(|program| program.insns.len()).sum();
    Ok(Composed { instructions, maps: image.maps.len(), verified })
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
            &["PROGRAM", "SECTION", "KIND", ">INSTRUCTIONS", "FRAGS", "PROCEED ON", ""],
            object.programs.iter().map(|program| {
                vec![
                    program.name.clone(),
                    program.section.clone(),
                    program.kind.to_owned(),
                    grouped(program.instructions as u64),
                    if program.frags { "yes" } else { "no" }.to_owned(),
                    program.proceed_on.map_or_else(|| "[pass]".to_owned(), |set| set.to_string()),
                    if program.chosen { "runs" } else { "" }.to_owned(),
                ]
            }),
        );
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
        page.line(outcome(&object.composed));
    }
    for chain in &checked.chains {
        page.line(format!("chain {}: {}", chain.chain, chain.slots.join(" -> ")));
        page.line(format!("  {}", outcome(&chain.composed)));
    }
}

fn typed(name: Option<&str>, size: u32) -> String {
    match name {
        Some(name) => format!("{name} ({size} B)"),
        None => format!("{size} B"),
    }
}

fn outcome(composed: &Composed) -> String {
    format!(
        "composes: {} instructions, {} maps with the chain's own; {}",
        grouped(composed.instructions as u64),
        composed.maps,
        if composed.verified { "verified by the kernel" } else { "not verified" },
    )
}
