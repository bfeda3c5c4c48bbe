//! Modules and a chain made into program images.
//!
//! Pure: ELF bytes and a typed chain go in, instructions, map definitions and BTF come out. Map
//! references stay symbolic ([`Relocation`]) until `xdpchain-host` puts in the file descriptors.
#![forbid(unsafe_code)]

pub mod asm;
pub mod btf;
mod chain;
pub mod contract;
mod error;
pub mod fused;
mod helpers;
mod image;
pub mod insn;
pub mod libxdp;
mod link;
pub mod object;
pub mod tail;
mod targets;

pub use chain::{
    ADOPTED_MAP, Chain, EXIT_COLUMNS, EXIT_MAP, EXIT_ROWS, EXIT_UNKNOWN, EXIT_VALUE, MAX_SLOTS, Module, Slot,
    proceed_on,
};
pub use error::ComposeError;
pub use helpers::helper_name;
pub use image::{
    DebugInfo, Fill, Image, Initial, InitialData, MapDef, MapOwner, MapType, MapUse, ProgramDebugInfo,
    ProgramImage, Relocation, Target,
};
pub use insn::Insn;
