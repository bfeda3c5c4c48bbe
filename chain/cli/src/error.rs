//! What a command can fail with, and the exit status of each failure.

use std::io;
use std::path::{Path, PathBuf};

use xdpchain_compose::ComposeError;
use xdpchain_compose::object::ObjectError;
use xdpchain_golden::GoldenError;
use xdpchain_spec::save::SaveError;
use xdpchain_spec::{EditError, SpecError};
use xdpchain_state::StateError;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit statuses, as `xdpchain --help` lists them.
pub(crate) mod exit {
    pub(crate) const DONE: u8 = 0;
    pub(crate) const NOT_READY: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const CONFIG: u8 = 3;
    pub(crate) const PERMISSION: u8 = 4;
    pub(crate) const KERNEL: u8 = 5;
    pub(crate) const FAILED: u8 = 8;
}

/// A failed command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error(
        "no chains.yaml: neither `./chains.yaml` nor `/etc/xdpchain/chains.yaml` is there\n\
         help: give the file with `-f FILE`"
    )]
    NoConfig,
    #[error("cannot read `{path}`: {source}\nhelp: check the path given with `-f`, and who may read it")]
    ReadConfig { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("`{file}` has no chain `{chain}`\nhelp: {hint}")]
    NoSuchChain { file: PathBuf, chain: String, hint: String },
    #[error(
        "no chain in `{file}` is for interface `{iface}`\n\
         help: add it to a chain's `interfaces`, or name a chain with `--chain`; interfaces there: {interfaces}"
    )]
    NoChainForInterface { file: PathBuf, iface: String, interfaces: String },
    #[error(
        "chain `{chain}` wants engine `{engine}`, which this build is without\n\
         help: use `engine: auto`, `fused` or `tail`, or build it with `--features {engine}`"
    )]
    NoEngine { chain: String, engine: &'static str },
    #[error("no built-in object `{name}`\nhelp: {hint}")]
    NoBuiltin { name: String, hint: String },
    #[error(
        "cannot read object `{path}`: {source}\nhelp: check the path; objects of this binary are `builtin:NAME`"
    )]
    ReadObject { path: PathBuf, source: io::Error },
    #[error("cannot read packets of `{path}`: {source}\nhelp: check the path, and who may read it")]
    ReadPackets { path: PathBuf, source: io::Error },
    #[error("`{}`: {error}", path.display())]
    Golden { path: PathBuf, error: Box<GoldenError> },
    #[error(
        "`{path}` is neither a fixture nor a capture\nhelp: fixtures end in .yaml, captures in .pcap or .pcapng"
    )]
    UnknownPackets { path: PathBuf },
    #[error(
        "no module `{module}` is declared, and none is built in\nhelp: declared are: {known}; name the file with `-f`"
    )]
    NoSuchModule { module: String, known: String },
    #[error(
        "cannot write `{path}`: {source}\nhelp: check the folder given with `--dir`, and who may write there"
    )]
    WriteMan { path: PathBuf, source: io::Error },
    #[error(
        "there are no packets to test\nhelp: name fixtures or captures, or list them under `gate:` of a chain"
    )]
    NothingToTest,
    #[error(
        "`{file}` has several chains, and the packet does not say which it goes through\n\
         help: say it with `--chain`; chains are: {chains}"
    )]
    SeveralChains { file: PathBuf, chains: String },
    /// What runs has not been touched.
    #[error(
        "the gate of chain `{chain}` refused the change: golden packets are not treated as they are to be\n\
         {differences}\nhelp: nothing was changed; `xdpchain test` shows each packet slot by slot"
    )]
    Gate { chain: String, differences: String },
    #[error(
        "no chain of `{file}` is for interface `{iface}`, and none runs there\nhelp: interfaces here are: {known}"
    )]
    NothingToPlan { file: PathBuf, iface: String, known: String },
    #[error("object `{object}`: {source}")]
    Object { object: String, source: ObjectError },
    #[error(
        "the object of module `{module}` (sha256 {object}…) is not stored\nhelp: `xdpchain attach` again from chains.yaml"
    )]
    ObjectGone { module: String, object: String },
    #[error(
        "slot `{slot}` runs module `{module}`, which the running generation does not know\nhelp: `xdpchain attach` again from chains.yaml"
    )]
    NoModule { slot: String, module: String },
    #[error(
        "module `{module}` imports `{import}`, and no such module runs here\n\
         help: modules of the chain are: {running}"
    )]
    ImportNotRunning { module: String, import: String, running: String },
    /// What is wrong is what `file` asks for, not how the command was called.
    #[error("{}: {source}", file.display())]
    InFile { file: PathBuf, source: Box<Error> },
    #[error("no module name can be made of `{object}`\nhelp: give one with `--name`")]
    NoName { object: String },
    #[error(
        "`{name}` cannot be the name of a module\n\
         help: use up to 63 letters, digits, `-` and `_`, with a letter or digit first"
    )]
    BadName { name: String },
    #[error(
        "nothing is on trial\nhelp: `xdpchain history IFACE` shows what ran; `xdpchain rollback IFACE` goes back"
    )]
    NothingOnTrial,
    #[error(
        "what is on trial is taken back at once\nhelp: without `--dry-run`; or name an interface to try going back"
    )]
    TrialIsNoDryRun,
    #[error("`{iface}` has no generation {generation} any more\nhelp: those that are kept are: {known}")]
    NoGeneration { iface: String, generation: u64, known: String },
    #[error(
        "no generation before the one that runs on `{iface}` is kept\nhelp: `xdpchain detach {iface}` takes the chain off"
    )]
    NothingBefore { iface: String },
    #[error(
        "cannot start the process that watches the change: {source}\nhelp: nothing was changed; apply without `--confirm` and `watch`"
    )]
    Watcher { source: io::Error },
    #[error(
        "the change went back: {why}\nhelp: `xdpchain history IFACE` shows it; what ran before runs again"
    )]
    WentBack { why: String },
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Save(Box<SaveError>),
    #[error(
        "cannot write `{file}`: {source}\nhelp: the change runs; `xdpchain plan` shows what the file lacks"
    )]
    WriteConfig { file: PathBuf, source: io::Error },
    #[error(
        "`{file}` was changed by somebody else meanwhile, and is left alone\nhelp: the change runs; `xdpchain plan` shows what the file lacks"
    )]
    ConfigChanged { file: PathBuf },
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error(
        "`{map}` is a map of a chain, and each interface has its own\nhelp: say which with `--iface IFACE`"
    )]
    WhichChain { map: String },
    #[error("the types of map `{map}` cannot be read: {problem}")]
    MapTypes { map: String, problem: String },
    #[error("map `{map}`, {what}: {source}")]
    Value { map: String, what: &'static str, source: Box<StateError> },
    #[error("map `{map}` cannot be compiled, and nothing was changed: {source}")]
    Compile { map: String, source: Box<xdpchain_acl::AclError> },
    #[error("map `{map}` has no entry `{key}`\nhelp: `xdpchain map show {map}` shows its first entries")]
    NoEntry { map: String, key: String },
    #[error(
        "map `{map}` is full: it has room for {max_entries} entries\n\
         help: give it a larger `max_entries` in chains.yaml, and `xdpchain apply`; its entries stay"
    )]
    MapFull { map: String, max_entries: u32 },
    #[error(
        "`{file}` does not say whether it is CSV or JSON lines\nhelp: name it .csv or .jsonl, or use `--format`"
    )]
    RowFormat { file: PathBuf },
    #[error("cannot read `{file}`: {source}\nhelp: check the path, and who may read it")]
    ReadRows { file: PathBuf, source: io::Error },
    #[error("cannot write `{file}`: {source}\nhelp: check the path, and the space that is left")]
    WriteRows { file: PathBuf, source: io::Error },
    /// Nothing has been written.
    #[error("{}: {source}", file.display())]
    Rows { file: PathBuf, source: Box<StateError> },
    /// Nothing has been changed.
    #[error("`{}`: {source}", file.display())]
    StateFile { file: PathBuf, source: Box<StateError> },
    #[error(
        "map `{map}` cannot be saved: {reason}\nhelp: leave it out; `xdpchain map show {map}` shows what can be seen of it"
    )]
    NotSaved { map: String, reason: String },
    #[error("`{file}` has no map `{map}`\nhelp: it has {known}")]
    NotInFile { file: PathBuf, map: String, known: String },
    #[error(
        "`{file}` has map `{map}`, which no chain here has\n\
         help: nothing was changed; attach the chain that has it, or name the maps to restore with `--map`"
    )]
    NotRunning { file: PathBuf, map: String },
    #[error(
        "map `{map}` cannot be restored: {problem}\n\
         help: nothing was changed; give the map the type, layout and size that its entries need, or leave it out with `--map`"
    )]
    CannotRestore { map: String, problem: String },
    #[error(
        "map `{map}` cannot be restored: the entry with key {key}: {problem}\n\
         help: nothing was changed; give the field a type that holds its values, or leave the map out with `--map`"
    )]
    RestoreMisfit { map: String, key: String, problem: String },
    #[error(
        "fields of the file are not in the maps here, and their values would be lost: {fields}\n\
         help: nothing was changed; `--allow-loss FIELD` gives one up, and `renames:` in chains.yaml tells a new name"
    )]
    RestoreLoses { fields: String },
    #[error(
        "map `{map}` has more than {} of entries in the file, which are not compared\n\
         help: name other maps with `--map`, or restore it with `--dry-run` to have the file checked",
        crate::output::octets(*.octets as u64)
    )]
    TooManyToCompare { map: String, octets: usize },
    #[error("{source}\nnote: every map has again what it had before")]
    RestoreUndone { source: Box<Error> },
    #[error(
        "{source}\nnote: giving the maps what they had before failed too: {undo}\n\
         help: it is kept in `{file}`; `xdpchain recover` tries again"
    )]
    RestoreStuck { source: Box<Error>, undo: Box<Error>, file: PathBuf },
    #[error("`{file}` has no source `{source_name}`\nhelp: {hint}")]
    NoSuchSource { file: PathBuf, source_name: String, hint: String },
    #[error(
        "the agent cannot {what}: {source}\nhelp: check `agent:` in chains.yaml, and that no other agent runs"
    )]
    Agent { what: String, source: io::Error },
    #[error(transparent)]
    Source(Box<xdpchain_source::Error>),
    #[error("map `{map}` has a value for each CPU, which cannot be added up\nhelp: use `--format jsonl`")]
    NoSum { map: String },
    #[error("{}", with_help(.0))]
    Host(Box<xdpchain_host::Error>),
    #[error("cannot write the output: {0}\nhelp: check what stdout is connected to")]
    Output(io::Error),
    #[error("cannot print as {format}: {reason}\nhelp: try another format with `-o`")]
    Format { format: &'static str, reason: String },
}

impl From<xdpchain_source::Error> for Error {
    fn from(error: xdpchain_source::Error) -> Self {
        Self::Source(Box::new(error))
    }
}

/// A failure inside a change is the command's own when a closure of the command failed.
impl From<xdpchain_host::Error> for Error {
    fn from(error: xdpchain_host::Error) -> Self {
        use xdpchain_host::Error as Host;
        match error {
            Host::Edit(inner) | Host::Compose(inner) | Host::Gate(inner) if inner.is::<Error>() => {
                match inner.downcast::<Error>() {
                    Ok(own) => *own,
                    Err(inner) => Self::Host(Box::new(Host::Compose(inner))),
                }
            }
            other => Self::Host(Box::new(other)),
        }
    }
}

/// Not every failure of the kernel has a next step of its own.
fn with_help(error: &xdpchain_host::Error) -> String {
    let text = error.to_string();
    if text.lines().any(|line| line.starts_with("help: ")) {
        text
    } else {
        text + "\nhelp: nothing was changed; run it again with `-vv` to see each step"
    }
}

impl Error {
    /// The same failure, found in what `file` asks for.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Object { .. }
            | Self::NoBuiltin { .. }
            | Self::ReadObject { .. }
            | Self::ImportNotRunning { .. }
            | Self::Compose(_) => Self::InFile { file: file.to_owned(), source: Box::new(self) },
            other => other,
        }
    }

    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Host(error) => match error.class().code() {
                0 => exit::FAILED,
                code => code,
            },
            Self::Source(error) => source_status(error),
            Self::Save(error) => match **error {
                SaveError::Spec(_) => exit::CONFIG,
                _ => exit::USAGE,
            },
            Self::NoConfig | Self::Spec(_) | Self::NoEngine { .. } => exit::CONFIG,
            Self::InFile { source, .. } => match **source {
                Self::Compose(_) => exit::CONFIG,
                ref other => other.exit_status(),
            },
            Self::ReadConfig { source, .. } if denied(source) => exit::PERMISSION,
            Self::WriteMan { source, .. } if denied(source) => exit::PERMISSION,
            Self::ReadObject { source, .. } | Self::ReadPackets { source, .. } if denied(source) => {
                exit::PERMISSION
            }
            Self::ReadRows { source, .. } | Self::WriteRows { source, .. } if denied(source) => {
                exit::PERMISSION
            }
            Self::Object { source, .. } if source.is_of_kernel() => exit::KERNEL,
            Self::ReadRows { .. } => exit::USAGE,
            Self::Agent { source, .. } if denied(source) => exit::PERMISSION,
            Self::Agent { .. } | Self::WentBack { .. } | Self::Watcher { .. } => exit::FAILED,
            Self::RestoreUndone { .. }
            | Self::RestoreStuck { .. }
            | Self::RestoreLoses { .. }
            | Self::RestoreMisfit { .. }
            | Self::CannotRestore { .. } => exit::FAILED,
            Self::TooManyToCompare { .. }
            | Self::StateFile { .. }
            | Self::NotSaved { .. }
            | Self::NotInFile { .. } => exit::USAGE,
            Self::NotRunning { .. } => exit::NOT_READY,
            Self::Gate { .. } | Self::MapFull { .. } | Self::MapTypes { .. } | Self::WriteRows { .. } => {
                exit::FAILED
            }
            Self::ReadConfig { .. } => exit::CONFIG,
            Self::NoSuchSource { .. }
            | Self::NoSuchChain { .. }
            | Self::NoChainForInterface { .. }
            | Self::NoBuiltin { .. }
            | Self::NothingToPlan { .. }
            | Self::Golden { .. }
            | Self::UnknownPackets { .. }
            | Self::NoSuchModule { .. }
            | Self::NothingToTest
            | Self::WriteMan { .. }
            | Self::SeveralChains { .. }
            | Self::ReadObject { .. }
            | Self::ReadPackets { .. }
            | Self::Object { .. }
            | Self::NoName { .. }
            | Self::BadName { .. }
            | Self::ImportNotRunning { .. }
            | Self::WhichChain { .. }
            | Self::Value { .. }
            | Self::Compile { .. }
            | Self::RowFormat { .. }
            | Self::Rows { .. }
            | Self::NoSum { .. }
            | Self::Edit(_)
            | Self::Compose(_) => exit::USAGE,
            Self::TrialIsNoDryRun => exit::USAGE,
            Self::NothingOnTrial
            | Self::NothingBefore { .. }
            | Self::NoGeneration { .. }
            | Self::NoEntry { .. }
            | Self::NoModule { .. }
            | Self::ObjectGone { .. }
            | Self::WriteConfig { .. }
            | Self::ConfigChanged { .. }
            | Self::Output(_)
            | Self::Format { .. } => exit::NOT_READY,
        }
    }
}

fn source_status(error: &xdpchain_source::Error) -> u8 {
    use xdpchain_source::Error as Source;
    match error {
        Source::Map { source, .. } => match source.class().code() {
            0 => exit::FAILED,
            code => code,
        },
        Source::Fields { .. } | Source::NoColumn { .. } | Source::NoTarget { .. } => exit::CONFIG,
        Source::File { source, .. } if denied(source) => exit::PERMISSION,
        Source::NotBuilt { .. } => exit::USAGE,
        _ => exit::FAILED,
    }
}

fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
