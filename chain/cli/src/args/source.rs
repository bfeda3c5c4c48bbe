//! The arguments of `source`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// Install the change log of a source's table, which the agent follows
    ///
    /// That is a table, and triggers that write the keys of changed rows to it. Nothing is done that was done before.
    Init {
        /// The source
        name: String,
        /// Print the statements instead
        #[arg(long)]
        print: bool,
    },
    /// Fill maps from their tables, and repair what differs
    ///
    /// Entries that stay are never removed: what is missing or different is written first, and then what no row has goes. The
    /// first time a source fills a map, entries that no row has stay if the map would have fewer than before without them.
    Sync {
        /// The sources [default: all of chains.yaml]
        names: Vec<String>,
        /// Once, which is all that this command does; the agent follows the tables
        #[arg(long, required = true)]
        once: bool,
        /// Remove entries that no row has also the first time
        #[arg(long)]
        prune: bool,
    },
    /// Show how sources are doing, and which rows do not fit
    Status {
        /// The sources [default: all of chains.yaml]
        names: Vec<String>,
    },
}
