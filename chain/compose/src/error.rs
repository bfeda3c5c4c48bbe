//! Why a chain cannot be composed.

use crate::object::ObjectError;

/// Why a chain cannot be composed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// A module's object cannot be used.
    #[error("module `{module}`: {error}")]
    Object {
        /// The module.
        module: String,
        /// What is wrong with it.
        error: ObjectError,
    },
    /// A slot or an import names a module that is not given.
    #[error("{place} names module `{module}`, which is not there\nhelp: declare it under `modules:`")]
    NoModule {
        /// Where it is named.
        place: String,
        /// The module.
        module: String,
    },
    /// More slots than exit counters have rows.
    #[error(
        "the chain has {slots} slots, more than {limit}\nhelp: split it over two interfaces, or join modules"
    )]
    TooManySlots {
        /// Slots of the chain.
        slots: usize,
        /// How many there can be.
        limit: u32,
    },
    /// No slot at all.
    #[error("the chain has no slots\nhelp: list at least one module under `slots:`, or detach the interface")]
    NoSlots,
    /// An override or an import of a map that the module does not have.
    #[error(
        "module `{module}` has no map `{map}`; it has: {maps}\nhelp: `xdpchain check OBJECT` lists the maps of an object"
    )]
    NoMap {
        /// The module.
        module: String,
        /// The map.
        map: String,
        /// The maps that it has.
        maps: String,
    },
    /// Imports lead back to where they started.
    #[error("the import of `{module}/{map}` leads back to itself\nhelp: one module has to own the map")]
    ImportCycle {
        /// The module.
        module: String,
        /// The map.
        map: String,
    },
    /// An import's definition is not the owner's.
    #[error(
        "map `{importer}/{map}` cannot be `{owner}/{owner_map}`: {difference}\nhelp: build both modules against the same definition of the map; what differs is marked with `!`"
    )]
    Mismatch {
        /// The module that imports.
        importer: String,
        /// Its name for the map.
        map: String,
        /// The module that owns the map.
        owner: String,
        /// The owner's name for it.
        owner_map: String,
        /// What differs first, expected and found, and both definitions side by side.
        difference: String,
    },
    /// An import of a map that its owner keeps to itself.
    #[error(
        "map `{import}` cannot be `{owner}/{map}`: module `{owner}` does not export it; it exports {}\nhelp: add `{map}` to `exports:` of `{owner}` if its owner agrees; without the import the module has a map of its own",
        exported(.exports)
    )]
    NotExported {
        /// The importing module and its name for the map.
        import: String,
        /// The module that owns the map.
        owner: String,
        /// The owner's name for it.
        map: String,
        /// What the owner exports.
        exports: Vec<String>,
    },
    /// An import of, or into, what is a program's inside.
    #[error(
        "map `{import}` cannot be imported: `{private}` is {what}\nhelp: remove the import; modules share maps that they define by name"
    )]
    Internal {
        /// The importing module and its name for the map.
        import: String,
        /// The module and its map that is private.
        private: String,
        /// What that is.
        what: &'static str,
    },
    /// A module does what cannot be inlined.
    #[error("module `{module}`, function `{function}`, instruction {insn}: {what}\nhelp: {help}")]
    Code {
        /// The module.
        module: String,
        /// The function.
        function: String,
        /// Index of the instruction.
        insn: usize,
        /// What it does.
        what: String,
        /// What to do.
        help: &'static str,
    },
    /// Programs for a map that holds none.
    #[error(
        "map `{map}` of module `{module}` is no program array\nhelp: remove it from `programs:`; `xdpchain check OBJECT` lists the maps of an object"
    )]
    NotProgramArray {
        /// The module.
        module: String,
        /// The map.
        map: String,
    },
    /// A program for an entry that an array does not have.
    #[error(
        "program array `{map}` of module `{module}` has entries 0 to {}, and none number {index}\nhelp: choose another entry, or give the array more of them by `max_entries` under `maps:`",
        max_entries.saturating_sub(1)
    )]
    NoEntry {
        /// The module.
        module: String,
        /// The map.
        map: String,
        /// The entry.
        index: u32,
        /// How many there are.
        max_entries: u32,
    },
    /// A program array of a module that does not run in the chain itself.
    #[error(
        "program array `{map}` holds programs of module `{module}`, which is in no slot of the chain\nhelp: put `{module}` into a slot, or let the importing module have an array of its own"
    )]
    ArrayOfAnother {
        /// The module that owns it.
        module: String,
        /// The map.
        map: String,
    },
    /// What libxdp's dispatcher cannot do.
    #[error("{place} cannot be run by libxdp's dispatcher: {what}\nhelp: {help}")]
    Dispatcher {
        /// The slot, or the chain.
        place: String,
        /// What is in the way.
        what: String,
        /// What to do.
        help: &'static str,
    },
    /// A jump is too far for its encoding.
    #[error(
        "the chain's code is too long: a jump over {distance} instructions in {place}\nhelp: `engine: tail` gives each module a program of its own, and `engine: libxdp` leaves a module's code as it is"
    )]
    JumpTooFar {
        /// Where.
        place: String,
        /// Instructions.
        distance: i64,
    },
}

fn exported(maps: &[String]) -> String {
    let quoted: Vec<String> = maps.iter().map(|map| format!("`{map}`")).collect();
    if quoted.is_empty() { "nothing".to_owned() } else { quoted.join(", ") }
}
