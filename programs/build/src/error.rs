//! What can go wrong while a program is built, and the command that mends it.

use std::{io, path::PathBuf};

/// Why no object came out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No bpf-linker.
    #[error("`bpf-linker` is neither in `target/tools/bin` nor in PATH\nhelp: run `cargo xtask setup`")]
    NoLinker,
    /// No rustup, or no nightly toolchain.
    #[error("the `nightly` toolchain does not answer: {detail}\nhelp: run `cargo xtask setup`")]
    NoNightly {
        /// What rustup said.
        detail: String,
    },
    /// The nightly toolchain lacks the sources of `core`.
    #[error("the `nightly` toolchain has no `rust-src` in `{sysroot}`\nhelp: run `cargo xtask setup`")]
    NoRustSrc {
        /// The toolchain's folder.
        sysroot: PathBuf,
    },
    /// No clang for the C examples.
    #[error("`{program}` cannot be run: {source}\nhelp: run `cargo xtask setup`")]
    NoTool {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A compiler ran and failed; it has printed why.
    #[error("building `{what}` failed\n{output}\nhelp: the first `error` above says where")]
    Compile {
        /// Packages or source file.
        what: String,
        /// What the compiler printed.
        output: String,
    },
    /// An object could not be read.
    #[error("cannot read `{path}`: {source}\nhelp: check that nothing else removes files below `target`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What the linker wrote is no object.
    #[error(
        "cannot take the information for debuggers out of `{path}`: {source}\nhelp: check that `bpf-linker` is the one of `cargo xtask setup`"
    )]
    Strip {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: object::build::Error,
    },
    /// An object could not be written.
    #[error("cannot write `{path}`: {source}\nhelp: check space and permissions")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
