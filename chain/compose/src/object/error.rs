//! Why an object cannot be read.

use crate::btf::BtfError;

/// Why an object cannot be read, or not be used as a module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The bytes are no ELF file.
    #[error(
        "this is no ELF object: {0}\nhelp: give a file that clang or bpf-linker made for a BPF target (`clang -O2 -g -target bpf -c prog.c`)"
    )]
    NotElf(String),
    /// An ELF file for another machine or byte order.
    #[error(
        "this ELF object is not for little-endian BPF: {0}\nhelp: compile with `clang -target bpf`, or for Rust with `--target bpfel-unknown-none`"
    )]
    NotBpf(String),
    /// A damaged or surprising ELF file.
    #[error(
        "damaged object: {0}\nhelp: build the object again; `llvm-objdump -r -d` and `bpftool btf dump file` show what is in it"
    )]
    Damaged(String),
    /// BTF cannot be read.
    #[error("damaged BTF: {0}\nhelp: build the object again with `-g`")]
    Btf(#[from] BtfError),
    /// No XDP program.
    #[error("no XDP program; programs found: {found}\nhelp: put the program into a section called `xdp`")]
    NoProgram {
        /// The programs that there are, with their sections.
        found: String,
    },
    /// Several XDP programs and none named.
    #[error(
        "{count} XDP programs: {names}\nhelp: say which one with `program:` in chains.yaml, or `--program`"
    )]
    SeveralPrograms {
        /// How many.
        count: usize,
        /// Their names.
        names: String,
    },
    /// The named program is not there.
    #[error(
        "no XDP program `{name}`; there is: {names}\nhelp: `xdpchain check OBJECT` lists the programs of an object"
    )]
    NoSuchProgram {
        /// The name asked for.
        name: String,
        /// The XDP programs that there are.
        names: String,
    },
    /// The program is for cpumap or devmap entries, not for an interface.
    #[error(
        "program `{name}` (section `{section}`) runs on entries of a cpumap or devmap, not on an interface\nhelp: choose another program with `program:`"
    )]
    NotForInterfaces {
        /// The program.
        name: String,
        /// Its section.
        section: String,
    },
    /// The object uses something that is not supported.
    #[error(
        "`{place}` uses {feature}, which is not supported yet\nhelp: run this module alone, or build it without {feature}"
    )]
    Unsupported {
        /// The function or map.
        place: String,
        /// What it uses.
        feature: String,
    },
}

impl ObjectError {
    pub(super) fn damaged(what: impl ToString) -> Self {
        Self::Damaged(what.to_string())
    }
}
