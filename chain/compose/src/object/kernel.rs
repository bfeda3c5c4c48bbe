//! What linking an object asks of the kernel that it is to run on.

use crate::btf::Btf;

/// A kernel, as far as objects depend on it. Answers are asked for only when an object needs them.
pub trait Kernel {
    /// Types of the kernel proper; `None` when it has none.
    fn btf(&self) -> Option<&Btf>;

    /// Types of its modules, each a [`Btf`] on that of the kernel proper.
    fn modules(&self) -> &[ModuleBtf] {
        &[]
    }

    /// `KERNEL_VERSION(major, minor, patch)`; 0 when it is not known.
    fn version(&self) -> u32;

    /// What its configuration says of an option, as it stands after the `=`; `None` when it is not set. The name
    /// starts with `CONFIG_`.
    fn config(&self, option: &str) -> Option<String>;

    /// The addresses that the kernel's symbol of this name has, each once. None when there is no such symbol.
    fn symbol(&self, name: &str) -> Vec<u64>;
}

/// Types of a kernel module.
#[derive(Debug)]
pub struct ModuleBtf {
    /// Name of the module.
    pub name: String,
    /// The kernel's number of the BTF object.
    pub id: u32,
    /// The types.
    pub btf: Btf,
}
