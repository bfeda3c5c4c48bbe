//! What can be wrong with what the reference is given.

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A map that no built-in module has.
    #[error("there is no map `{map}` of a built-in module\nhelp: write `module/map`, see docs/data-path.md")]
    NoSuchMap {
        /// Its name.
        map: String,
    },
    /// An entry that is none of its map.
    #[error("map `{map}` {problem}\nhelp: fields and values are those of `xdpchain map list`")]
    Entry {
        /// The map's name.
        map: String,
        /// What is wrong.
        problem: String,
    },
    /// A packet context that is none.
    #[error("context: {problem}\nhelp: fields are those of the packet context, see docs/golden-packets.md")]
    Context {
        /// What is wrong.
        problem: String,
    },
}
