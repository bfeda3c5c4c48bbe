//! Why an object cannot be read.

use crate::btf::BtfError;

/// Why an object cannot be read, or not be used as a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    #[error(
        "no XDP program; programs found: {found}\nhelp: put the program into a section called `xdp`, or one whose name no other type of program has"
    )]
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
        "no XDP program `{name}`; there is: {names}\nhelp: give one of these names with `program:` in chains.yaml, or `--program`"
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
    /// A function depends on the kernel, and the object was not linked.
    #[error(
        "`{function}` needs {what}, and no kernel was asked\nhelp: compose the chain on the machine that is to run it"
    )]
    NeedsKernel {
        /// The function.
        function: String,
        /// What it needs.
        what: String,
    },
    /// CO-RE on a kernel without types.
    #[error(
        "`{function}` needs the kernel's types (CO-RE), and this kernel has none\nhelp: a kernel built with CONFIG_DEBUG_INFO_BTF=y has `/sys/kernel/btf/vmlinux`"
    )]
    NoKernelTypes {
        /// The function.
        function: String,
    },
    /// A CO-RE relocation without an answer.
    #[error(
        "`{function}` needs {what} in this kernel, which cannot be told: {reason}\nhelp: ask with `bpf_core_field_exists` and the like before, or name the type's variant with a `___flavour`"
    )]
    Core {
        /// The function.
        function: String,
        /// What it needs, e.g. the offset of a field.
        what: String,
        /// Why there is no answer.
        reason: String,
    },
    /// A configuration option that the kernel does not have.
    #[error(
        "`{function}` needs the kernel's configuration option `{option}`: {reason}\nhelp: declare it `__weak` for it to be 0 then, or run on a kernel that has it"
    )]
    Option {
        /// The function.
        function: String,
        /// The option.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration option of a type that no option has.
    #[error(
        "configuration option `{option}` is declared as `{ty}`\nhelp: declare it as `bool`, `enum libbpf_tristate`, `char`, an integer, or an array of `char`"
    )]
    OptionType {
        /// The option.
        option: String,
        /// Its type.
        ty: String,
    },
    /// A kernel function or variable that the kernel does not have.
    #[error(
        "`{function}` needs the kernel's `{symbol}`: {reason}\nhelp: declare it `__weak` and ask with `bpf_ksym_exists` before, or run on a kernel that has it"
    )]
    KernelSymbol {
        /// The function.
        function: String,
        /// The kernel function or variable.
        symbol: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A reference to something that is in neither the object nor the kernel.
    #[error(
        "`{function}` uses `{symbol}`, which the object does not define\nhelp: link the object with the one that does (`bpftool gen object`), or declare it `__ksym` or `__kconfig` and build with `-g`"
    )]
    Undefined {
        /// The function.
        function: String,
        /// What it refers to.
        symbol: String,
    },
    /// An exception, which ends the program as a whole.
    #[error(
        "`{function}` throws an exception (`bpf_throw`), which would end the whole chain and not the module\nhelp: return from the function instead, or run this module alone"
    )]
    Throws {
        /// The function.
        function: String,
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
    /// Whether it is the kernel that lacks something. The object may do on another one.
    pub fn is_of_kernel(&self) -> bool {
        matches!(
            self,
            Self::NoKernelTypes { .. } | Self::Core { .. } | Self::Option { .. } | Self::KernelSymbol { .. }
        )
    }

    pub(super) fn damaged(what: impl ToString) -> Self {
        Self::Damaged(what.to_string())
    }
}
