//! Maps of a module of known behaviour.

use xdpchain_compose::{Initial, InitialData, MapDef};

use crate::Behaviour;

const PROG_ARRAY: u32 = 3;
const ARRAY: u32 = 2;
const RDONLY_PROG: u32 = 0x80;
/// Where in its section the constant is, so that a reference has an offset.
pub(crate) const CONSTANT_AT: u32 = 5;

/// The maps, and which is what. The first counts the module's runs.
pub(crate) struct Maps {
    pub(crate) definitions: Vec<MapDef>,
    /// Where the variable is.
    pub(crate) variable: Option<usize>,
    /// Where the constant is.
    pub(crate) constant: Option<usize>,
    /// Programs to tail call.
    pub(crate) array: Option<usize>,
}

impl Maps {
    pub(crate) fn of(behaviour: &Behaviour) -> Self {
        let array = |name: &str| MapDef {
            name: name.into(),
            map_type: ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            ..MapDef::default()
        };
        let mut definitions = vec![array("runs")];
        let mut add = |definition| {
            definitions.push(definition);
            definitions.len() - 1
        };
        let (mut variable, mut constant) = (None, None);
        if let Some(globals) = behaviour.globals {
            // What begins with zero is in `.bss`, and takes no room in an object.
            let (name, bytes) = match globals.first {
                0 => (".bss", Vec::new()),
                first => (".data", u64::from(first).to_le_bytes().to_vec()),
            };
            let initial = Some(InitialData { bytes, frozen: false });
            variable = Some(add(MapDef { initial, ..array(name) }));
            let mut bytes = vec![0; CONSTANT_AT as usize];
            bytes.push(globals.constant);
            let initial = Some(InitialData { bytes, frozen: true });
            constant = Some(add(MapDef { initial, flags: RDONLY_PROG, ..array(".rodata") }));
        }
        let programs = behaviour.jumps.map(|_| {
            let values = [(0, "target"), (2, "onward")];
            let values = values.map(|(at, name)| (at, Initial::Program(name.into()))).to_vec();
            add(MapDef { map_type: PROG_ARRAY, value_size: 4, max_entries: 4, values, ..array("programs") })
        });
        Self { definitions, variable, constant, array: programs }
    }
}
