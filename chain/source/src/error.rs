//! What can keep a table from filling its maps.
//!
//! No message has a password in it: addresses of databases come redacted, and what a database says is redacted as well.

use std::path::PathBuf;

use xdpchain_spec::redact;
use xdpchain_state::StateError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What keeps a table from filling its maps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be reached, or does not answer.
    #[error("cannot reach `{database}`: {}\nhelp: {help}", redact(.problem))]
    Connect {
        /// The database, redacted.
        database: String,
        /// What the system or the server says.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// The database refuses a statement.
    #[error("`{database}` refuses: {}\nhelp: {help}", redact(.problem))]
    Database {
        /// The database, redacted.
        database: String,
        /// What it says.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// A column that the table does not have.
    #[error("table `{table}` has no column `{column}`{}\nhelp: {}", wanted(.field), no_column(.known))]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The field that is to come from it; none for the key column.
        field: Option<String>,
        /// The columns that it has.
        known: Vec<String>,
    },
    /// The columns and constants make no whole entries.
    #[error(
        "source `{source_name}`, map `{map}`: {}\n\
         help: name a column under `columns:` or a value under `constants:`, or take zeros by `defaults: true`",
        first_line(.problem)
    )]
    Fields {
        /// The source.
        source_name: String,
        /// The map.
        map: String,
        /// What is wrong.
        problem: Box<StateError>,
    },
    /// A map that no table can fill.
    #[error("no table can fill map `{map}`: {problem}\nhelp: name another map in `maps:` of the source")]
    NoTarget {
        /// The map.
        map: String,
        /// Why not.
        problem: String,
    },
    /// The kernel refuses what is done to a map.
    #[error("map `{map}`: {source}")]
    Map {
        /// The map.
        map: String,
        /// What the kernel says.
        source: Box<xdpchain_host::Error>,
    },
    /// There is no change log to follow.
    #[error("table `{table}` has no change log\nhelp: `xdpchain source init {source_name}` installs one")]
    NoLog {
        /// The source.
        source_name: String,
        /// The table.
        table: String,
    },
    /// Another process fills the maps of this source.
    #[error(
        "source `{source_name}` is followed by another process\nhelp: the agent fills and repairs by itself; stop it first, or leave it to it"
    )]
    Followed {
        /// The source.
        source_name: String,
    },
    /// A build without the database's client.
    #[error("this build cannot read `{database}`\nhelp: build it with `--features {feature}`")]
    NotBuilt {
        /// The database, redacted.
        database: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// A file of ours cannot be written or read.
    #[error("cannot use `{}`: {source}\nhelp: check who may write there", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The process is to end.
    #[error("stopped\nhelp: run it again to go on")]
    Stopped,
}

/// What is wrong, without what to do about it elsewhere.
fn first_line(problem: &StateError) -> String {
    problem.to_string().lines().next().unwrap_or_default().to_owned()
}

fn wanted(field: &Option<String>) -> String {
    field.as_ref().map_or_else(String::new, |field| format!(" for `{field}`"))
}

fn no_column(known: &[String]) -> String {
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    match known.is_empty() {
        true => "there is no such table, or it has no columns".to_owned(),
        false => format!("its columns are {}", known.join(", ")),
    }
}
