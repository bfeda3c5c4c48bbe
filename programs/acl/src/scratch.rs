//! What the program knows of the packet at hand, in memory whose contents the verifier does not know.
//!
//! Every access is one of memory, and not of what the compiler remembers of it.

use xdpchain_abi::acl_tables::{STACK, word};

use crate::walk::Rest;

/// The one value of the scratch map.
#[repr(C)]
pub(crate) struct Scratch {
    /// What rules are compared with.
    pub(crate) key: [u64; word::ROOM],
    /// Lists that are put aside.
    pub(crate) aside: [u32; STACK],
    /// How many there are.
    pub(crate) depth: u32,
    /// What is left of the list that is walked.
    pub(crate) rest: Rest,
    /// The smallest rule so far that matches.
    pub(crate) best: u32,
    /// Offset of the header that comes next.
    pub(crate) offset: u32,
    /// Its protocol.
    pub(crate) protocol: u32,
    /// Bits of [`xdpchain_abi::acl_tables::fact`], and more above.
    pub(crate) facts: u32,
}

/// Reads a field.
#[inline(always)]
pub(crate) fn load<T: Copy>(field: &T) -> T {
    // SAFETY: a reference of the right type.
    unsafe { core::ptr::from_ref(field).read_volatile() }
}

/// Writes a field.
#[inline(always)]
pub(crate) fn store<T: Copy>(field: &mut T, value: T) {
    // SAFETY: a reference of the right type.
    unsafe { core::ptr::from_mut(field).write_volatile(value) }
}

impl Scratch {
    /// A word of the key.
    #[inline(always)]
    pub(crate) fn word(&self, at: usize) -> u64 {
        load(&self.key[at & (word::ROOM - 1)])
    }
}
