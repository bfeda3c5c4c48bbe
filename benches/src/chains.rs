//! Images of the benchmarks' programs: alone, and as a chain.

use xdpchain_compose::object::Object;
use xdpchain_compose::{Chain, ComposeError, Image, Module, Slot, fused};
use xdpchain_spec::{ChainDefault, ModuleSpec, ObjectRef, Place, SlotSpec};

/// What makes an image of a chain.
pub type Engine = fn(&Chain<'_>) -> Result<Image, ComposeError>;

/// The object's program as it is, without any code of a chain's.
///
/// # Errors
/// When the object cannot be read.
pub fn bare(object: &[u8]) -> anyhow::Result<Image> {
    let object = Object::parse(object)?;
    let spec = spec();
    Ok(fused::compose_bare(&Module { name: "bare", object: &object, spec: &spec, digest: "0" })?)
}

fn spec() -> ModuleSpec {
    ModuleSpec::new(ObjectRef::File("bench.o".into()))
}

/// A chain of these objects, each a slot.
///
/// # Errors
/// When one cannot be read, or they do not compose.
pub fn composed(modules: &[Vec<u8>], engine: Engine) -> anyhow::Result<Image> {
    let names: Vec<String> = (0..modules.len()).map(|i| format!("m{i}")).collect();
    let modules: Vec<_> = names.iter().map(String::as_str).zip(modules.iter().map(Vec::as_slice)).collect();
    named(&modules, engine)
}

/// A chain of these modules, each a slot; the one called `stats` at the chain's exit.
///
/// # Errors
/// When one cannot be read, or they do not compose.
pub fn named(modules: &[(&str, &[u8])], engine: Engine) -> anyhow::Result<Image> {
    let objects: Vec<Object> =
        modules.iter().map(|(_, object)| Object::parse(object)).collect::<Result<_, _>>()?;
    let slot = |name: &str| match name {
        "stats" => SlotSpec { at: Place::Exit, observer: true, ..SlotSpec::new(name) },
        _ => SlotSpec::new(name),
    };
    let slots: Vec<SlotSpec> = modules.iter().map(|(name, _)| slot(name)).collect();
    let spec = spec();
    let modules = modules
        .iter()
        .zip(&objects)
        .map(|((name, _), object)| Module { name, object, spec: &spec, digest: "0" })
        .collect();
    let slots = slots.iter().zip(0..).map(|(spec, row)| Slot { spec, row }).collect();
    Ok(engine(&Chain { name: "bench", default: ChainDefault::Keep, modules, slots })?)
}
