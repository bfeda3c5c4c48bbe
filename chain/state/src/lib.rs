//! BPF map state as typed values: codec, import, export, migration, state files.
//!
//! Pure: the host gives and takes octets, this crate gives them the meaning that BTF has for them. Every text
//! that is printed is accepted again and gives the same octets, but for fields that pad a struct
//! (`reserved`, `padding`), which are left out when printed and are zero when read.
#![forbid(unsafe_code)]

mod carry;
mod codec;
mod columns;
mod error;
mod import;
mod leaf;
mod map;
mod migrate;
mod refit;
mod row;
mod saved;
mod scalar;
mod shape;
mod value;

pub use carry::{Half, MapConverter, Merge};
pub use codec::Codec;
pub use error::StateError;
pub use import::{Format, ImportOptions, Importer};
pub use map::{MapCodec, PER_CPU_ALIGN, Table};
pub use migrate::{Converter, FieldChange, Misfit, What};
pub use refit::{Refit, Refused, Target};
pub use row::{Cell, RowFields};
pub use saved::{
    Contents, LeftOut, Record, STATE_VERSION, SavedMap, StateReader, StateWriter, is_kept, not_saved,
};
pub use value::Value;
