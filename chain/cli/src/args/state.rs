//! The arguments of `state`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use xdpchain_spec::MapRef;

use super::DryRun;

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Write the entries of the modules' maps, and their types, to a file
    ///
    /// Packets flow all the while, and what is written to a map while it is read may be in the file or not. With `--twice`
    /// the file says which maps are as they were at one instant.
    Save {
        /// The file to write
        file: PathBuf,
        /// A map to save [default: all that can be saved]
        #[arg(long = "map", value_name = "MODULE/MAP")]
        maps: Vec<MapRef>,
        /// Only maps that the chain on this interface uses
        #[arg(long, value_name = "IFACE")]
        iface: Option<String>,
        /// Read every map, and then again, and write what the second reading finds
        ///
        /// Maps that are the same both times are as they were at one instant, the same for all of them; the others are named,
        /// and each of their entries is as the second reading found it. It takes twice the time.
        #[arg(long)]
        twice: bool,
    },
    /// Give maps the entries that a file has, all of them or none
    ///
    /// The whole file is read and checked before anything is changed; when a map cannot be written, those before it get back
    /// what they had. Entries that the file does not have are removed. Fields go by name where a layout has changed.
    Restore(Restore),
    /// Compare a file with what the maps have now, or with another file
    ///
    /// Exit status 0 when they are the same, 1 when something differs.
    Diff {
        /// The file
        file: PathBuf,
        /// What to compare it with [default: the maps here]
        other: Option<PathBuf>,
        /// A map to compare [default: all of the file]
        #[arg(long = "map", value_name = "MODULE/MAP")]
        maps: Vec<MapRef>,
        /// Entries to show of each map
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The file
    pub(crate) file: PathBuf,
    /// A map to restore [default: all of the file]
    #[arg(long = "map", value_name = "MODULE/MAP")]
    pub(crate) maps: Vec<MapRef>,
    /// A field whose values may be dropped because the map here does not have it: a dotted path, or MODULE/MAP/PATH
    #[arg(long, value_name = "FIELD")]
    pub(crate) allow_loss: Vec<String>,
    /// Leave entries alone that the file does not have
    #[arg(long)]
    pub(crate) merge: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}
