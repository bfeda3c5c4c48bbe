//! Modules and a chain made into program images.
//!
//! Pure: ELF bytes and a typed chain go in, instructions, map definitions and BTF come out. Map
//! references stay symbolic ([`Relocation`]) until `xdpchain-host` puts in the file descriptors.
#![forbid(unsafe_code)]

pub mod btf;
mod image;
mod insn;

pub use image::{Image, InitialData, MapDef, MapOwner, MapType, MapUse, ProgramImage, Relocation, Target};
pub use insn::Insn;
