//! The programs that modules tail call themselves, and the program arrays that hold them.
//!
//! Such a program is as its object has it: what it returns is what the module returns. Only arrays count that a slot's
//! program gets to, by itself or through others of these programs: an object may have more, for other kinds of programs.

use crate::asm::Assembler;
use crate::btf::Btf;
use crate::chain::Chain;
use crate::fused::debug::ProgramParts;
use crate::fused::glue::Glue;
use crate::fused::plan::Planned;
use crate::fused::program_name;
use crate::link::{Linker, PROG_ARRAY};
use crate::object::{Program, Referent};
use crate::{ComposeError, Fill, Initial, MapOwner, ProgramImage};

/// What the modules' program arrays hold.
pub(crate) struct Targets {
    /// Each program, with its licence.
    programs: Vec<(ProgramParts, String)>,
    pub(crate) fills: Vec<Fill>,
}

impl Targets {
    /// Finds and makes the programs that `slots` lead to; the first is to be number `first` of the image.
    pub(crate) fn of(
        chain: &Chain<'_>,
        linker: &Linker<'_>,
        glue: &Glue<'_>,
        slots: &[Planned<'_>],
        first: usize,
    ) -> Result<Self, ComposeError> {
        let mut found: Vec<(usize, &Program)> = Vec::new();
        let mut fills = Vec::new();
        let mut arrays = Vec::new();
        let mut open: Vec<(usize, usize)> = slots.iter().map(|s| (s.module, s.program.function)).collect();
        while let Some((module, entry)) = open.pop() {
            for array in arrays_of(chain, linker, module, entry) {
                if arrays.contains(&array) {
                    continue;
                }
                arrays.push(array);
                let MapOwner::Module(owner) = &linker.map(array).owner else { continue };
                let Some(owner) = linker.module_index(owner) else { continue };
                for (index, value) in &linker.map(array).def.values {
                    let Initial::Program(name) = value else { continue };
                    let program = target(chain, linker, owner, &linker.map(array).def.name, name)?;
                    let known = found.iter().position(|(m, p)| *m == owner && p.name == program.name);
                    let at = known.unwrap_or_else(|| {
                        found.push((owner, program));
                        open.push((owner, program.function));
                        found.len() - 1
                    });
                    fills.push(Fill { map: array, index: *index, program: first + at });
                }
            }
        }
        let programs = found.into_iter().map(|(module, program)| {
            Ok((make(chain, linker, glue, module, program)?, linker.license_of(module)))
        });
        Ok(Self { programs: programs.collect::<Result<_, _>>()?, fills })
    }

    pub(crate) fn encode(self, btf: &mut Btf) -> impl Iterator<Item = ProgramImage> {
        self.programs.into_iter().map(|(parts, license)| parts.encode(btf, license))
    }
}

/// The image's program arrays that a function of a module refers to, itself or in what it calls.
fn arrays_of(chain: &Chain<'_>, linker: &Linker<'_>, module: usize, entry: usize) -> Vec<usize> {
    let object = chain.modules[module].object;
    let references = object.reachable(entry).into_iter().flat_map(|f| &object.functions[f].references);
    let maps = references.filter_map(|reference| match reference.to {
        Referent::Map(map) => Some(linker.module_maps(module)[map]),
        _ => None,
    });
    maps.filter(|map| linker.map(*map).def.map_type == PROG_ARRAY).collect()
}

/// The program called `name` that an array of module `owner` holds.
fn target<'a>(
    chain: &Chain<'a>,
    linker: &Linker<'_>,
    owner: usize,
    array: &str,
    name: &str,
) -> Result<&'a Program, ComposeError> {
    let module = &chain.modules[owner];
    if linker.module_maps(owner).len() != module.object.maps.len() {
        // Its maps are in the image only when it runs itself.
        return Err(ComposeError::ArrayOfAnother { module: module.name.to_owned(), map: array.to_owned() });
    }
    module
        .object
        .xdp_program(Some(name))
        .map_err(|error| ComposeError::Object { module: module.name.to_owned(), error })
}

/// A program of a module as it is.
pub(crate) fn make(
    chain: &Chain<'_>,
    linker: &Linker<'_>,
    glue: &Glue<'_>,
    module: usize,
    program: &Program,
) -> Result<ProgramParts, ComposeError> {
    let target = Planned::alone(chain, module, program);
    let mut asm = Assembler::default();
    let functions = target.functions(&mut asm);
    // The main body comes first, where the program starts.
    let starts = glue.functions(&mut asm, &target, &functions)?.split_off(1);
    // Programs that tail call each other agree on whether packets may be in several buffers.
    let frags = linker.frags();
    Ok(ProgramParts { name: program_name(&program.name), text: asm.finish()?, functions: starts, frags })
}
