//! What can go wrong with the kernel, and which exit status of the commands it belongs to.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use xdpchain_compose::MapOwner;

use crate::load::Shape;
use crate::verifier::Refusal;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a caller's closure.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The kind of a failure, as the commands' exit statuses tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 1: there is nothing to act on.
    NotReady,
    /// 2: the command names something that does not exist.
    Usage,
    /// 4: the caller may not.
    Permission,
    /// 5: the kernel or the driver cannot.
    Kernel,
    /// 6: the verifier refused.
    Verifier,
    /// 7: the interface is busy with somebody else's program.
    Busy,
    /// 8: failed; what ran before still runs.
    Failed,
    /// 9: it took too long.
    TimedOut,
}

impl Class {
    /// The exit status.
    pub const fn code(self) -> u8 {
        match self {
            Self::NotReady => 1,
            Self::Usage => 2,
            Self::Permission => 4,
            Self::Kernel => 5,
            Self::Verifier => 6,
            Self::Busy => 7,
            Self::Failed => 8,
            Self::TimedOut => 9,
        }
    }
}

/// A failure. After any of these, but for [`Error::Stuck`], the interface runs what it ran before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No interface of that name is in the network namespace.
    #[error(
        "no interface `{name}` in this network namespace\nhelp: `ip link` lists the interfaces; `--netns NAME` enters another namespace"
    )]
    NoInterface {
        /// The name.
        name: String,
    },
    /// No network namespace of that name.
    #[error("no network namespace `{name}`: {source}\nhelp: `ip netns list` shows their names")]
    NoNetns {
        /// The name or path.
        name: String,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// No chain of ours is on the interface.
    #[error("no chain on `{ifname}`\nhelp: `xdpchain attach {ifname}` puts one there")]
    NoChain {
        /// The interface.
        ifname: String,
    },
    /// There is no such map.
    #[error("no map `{name}` of {}\nhelp: `xdpchain map list` shows the maps that there are", owner_text(.owner))]
    NoMap {
        /// Whose map.
        owner: MapOwner,
        /// Its name.
        name: String,
    },
    /// The caller lacks a capability.
    #[error(
        "not allowed to {action}: {source}\nhelp: run it as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    Permission {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel cannot attach XDP programs by links.
    #[error("this kernel has no XDP links: {source}\nhelp: Linux 5.9 or newer is needed")]
    NoLinks {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel has no BPF, or not the command that is needed.
    #[error(
        "this kernel cannot {action}: {source}\nhelp: it needs CONFIG_BPF_SYSCALL, and Linux 5.9 or newer"
    )]
    Unsupported {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel lets no program replace a function of another, which libxdp's dispatcher is made of.
    #[error(
        "this kernel does not run libxdp's dispatcher, whose functions other programs replace: {source}\nhelp: use `engine: fused` or `engine: tail`, which need no such programs; libxdp needs Linux 5.10 or newer, BTF, an architecture with BPF trampolines, and root"
    )]
    NoExtensions {
        /// The kernel's answer.
        source: io::Error,
    },
    /// This build is without libxdp.
    #[error(
        "this build of xdpchain is without libxdp\nhelp: use `engine: fused` or `engine: tail`, or build it with `--features libxdp`"
    )]
    NoLibxdp,
    /// The driver does not run the program where it was asked to.
    #[error("`{ifname}` cannot run the chain in {mode} mode: {reason}\nhelp: {help}")]
    Driver {
        /// The interface.
        ifname: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the driver or the kernel says, in words.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The pins' file system cannot be reached.
    #[error("the BPF file system cannot be used: {reason}\nhelp: {help}")]
    Bpffs {
        /// Why.
        reason: String,
        /// What to do.
        help: String,
        /// Whether it is a matter of rights.
        permission: bool,
    },
    /// A map could not be created.
    #[error("cannot create map `{name}` of {} ({shape}): {source}\nhelp: {help}", owner_text(.owner))]
    MapCreate {
        /// Whose map.
        owner: MapOwner,
        /// Its name.
        name: String,
        /// What it was to be.
        shape: Shape,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        help: String,
    },
    /// A map exists with another definition.
    #[error(
        "map `{name}` of {} exists with another definition: expected {wanted}, found {found}\nhelp: give it the size that it has, or detach the chains that use it and attach them again; its entries are lost then",
        owner_text(.owner)
    )]
    MapDiffers {
        /// Whose map.
        owner: MapOwner,
        /// Its name.
        name: String,
        /// What the chain needs.
        wanted: Shape,
        /// What is there.
        found: Shape,
    },
    /// Entries of a map cannot be carried over to the layout that it is to have.
    #[error("map `{map}` cannot be migrated: {reason}")]
    Migrate {
        /// The module and its map.
        map: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// An entry has a value that its new field cannot hold.
    #[error("map `{map}` cannot be migrated: the entry with key 0x{key}: {misfit}{}\nhelp: nothing was changed; correct or remove such entries, or give the field a type that holds them", more(.others))]
    Misfit {
        /// The module and its map.
        map: String,
        /// The entry's key, hexadecimal.
        key: String,
        /// What does not fit.
        misfit: String,
        /// Entries beside this one that do not fit.
        others: usize,
    },
    /// A map has more entries than the one that is to take its place has room for.
    #[error(
        "map `{map}` cannot be migrated: it has {entries} entries, and is to have room for {room}\nhelp: give it a `max_entries` of at least {entries} in chains.yaml, or remove entries"
    )]
    MigrateFull {
        /// The module and its map.
        map: String,
        /// Entries that it has; of an array, those up to the last one that is not zeros.
        entries: usize,
        /// Entries that it is to have at most.
        room: u32,
    },
    /// Chains of several interfaces want one map differently.
    #[error("map `{map}` is to have another layout or size, and the chain on {} uses it as it is\nhelp: change the module on all of these interfaces at once, by `xdpchain apply`", quoted(.interfaces))]
    MapDisputed {
        /// The module and its map.
        map: String,
        /// The interfaces.
        interfaces: Vec<String>,
    },
    /// An operation on a map failed.
    #[error("cannot {action} map `{name}`: {source}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// The map.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The verifier, or a check before it, refused the program.
    #[error(transparent)]
    Verifier(Box<Refusal>),
    /// Somebody else's program is on the interface.
    #[error("`{ifname}` runs a program that is not ours: id {id}, `{name}`{}\nhelp: {help}", owner_hint(.owner))]
    Foreign {
        /// The interface.
        ifname: String,
        /// The program's id.
        id: u32,
        /// The program's name.
        name: String,
        /// Who it seems to belong to.
        owner: Option<String>,
        /// What to do.
        help: String,
    },
    /// Somebody else's program cannot be adopted or replaced.
    #[error("program {id} (`{name}`) on `{ifname}` cannot be taken over: {reason}\nhelp: {help}")]
    CannotTake {
        /// The interface.
        ifname: String,
        /// The program's id.
        id: u32,
        /// The program's name.
        name: String,
        /// Why.
        reason: String,
        /// What to do.
        help: String,
    },
    /// There is no program to adopt.
    #[error(
        "no program of somebody else is on `{ifname}`\nhelp: attach without `--adopt`, and without a module that stands for such a program"
    )]
    NothingToAdopt {
        /// The interface.
        ifname: String,
    },
    /// Our link runs a program that no generation of ours knows.
    #[error(
        "the link of `{ifname}` runs program {found}, but generation {generation} is program {expected}\nhelp: something else updated the link; `xdpchain detach {ifname}`, then attach again"
    )]
    Swapped {
        /// The interface.
        ifname: String,
        /// The generation that should run.
        generation: u64,
        /// Its program's id.
        expected: u32,
        /// The program's id that runs.
        found: u32,
    },
    /// The interface of that name is not the one that the chain was attached to.
    #[error(
        "the chain of `{ifname}` was attached to interface {expected}, which is now {now}; `{ifname}` is interface {found}\nhelp: `xdpchain detach {ifname}` takes the chain off interface {expected}; attach again after that"
    )]
    Identity {
        /// The interface.
        ifname: String,
        /// Index of the interface that has the chain.
        expected: u32,
        /// What became of it.
        now: String,
        /// Index of the interface that has the name now.
        found: u32,
    },
    /// Another command has changed the chain since the caller looked.
    #[error(
        "the chain of `{ifname}` was changed meanwhile: {} when this was planned, {} now\nhelp: `xdpchain plan` shows what is left to do; then apply again",
        generation_text(.seen), generation_text(.found)
    )]
    Raced {
        /// The interface.
        ifname: String,
        /// The generation that was seen.
        seen: Option<u64>,
        /// The one that is there.
        found: Option<u64>,
    },
    /// What would be changed is on trial.
    #[error(
        "a change of {interfaces} is on trial for {seconds} s more\nhelp: `xdpchain confirm` keeps it, `xdpchain rollback` takes it back; then try again"
    )]
    OnTrial {
        /// The interfaces.
        interfaces: String,
        /// How long it lasts.
        seconds: u64,
    },
    /// What is to be on trial could not go back.
    #[error("the change of `{ifname}` cannot be on trial: {}", no_way_back(*.engine))]
    NoWayBack {
        /// The interface.
        ifname: String,
        /// The engine that cannot; none when it is that the chain goes.
        engine: Option<&'static str>,
    },
    /// Another command holds the lock.
    #[error(
        "another command changes chains of this network namespace, and has not ended within {seconds} s\nhelp: wait for it, or find it by `fuser {}`",
        .path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The gate refused the new generation.
    #[error(transparent)]
    Gate(BoxError),
    /// The mode of an attached chain cannot be changed in one step.
    #[error(
        "the chain on `{ifname}` runs in {current} mode and cannot be changed to {wanted} while attached\nhelp: `xdpchain detach {ifname}`, then attach with the other mode"
    )]
    ModeChange {
        /// The interface.
        ifname: String,
        /// `native` or `generic`.
        current: &'static str,
        /// `native` or `generic`.
        wanted: &'static str,
    },
    /// A chain of links cannot be made one of libxdp's dispatcher, or the other way round, in one step.
    #[error(
        "the chain on `{ifname}` runs by engine {current} and cannot be changed to {wanted} while attached\nhelp: `xdpchain detach {ifname}`, then attach it again; its maps' entries are lost then"
    )]
    EngineChange {
        /// The interface.
        ifname: String,
        /// The engine that runs it.
        current: &'static str,
        /// The engine that was asked for.
        wanted: &'static str,
    },
    /// libxdp's dispatcher has no room for the chain.
    #[error(
        "libxdp's dispatcher on `{ifname}` calls at most {most} programs, and {theirs} of others are there: no room for {ours} slots\nhelp: `xdp-loader status {ifname}` lists them; remove slots, or unload programs"
    )]
    DispatcherFull {
        /// The interface.
        ifname: String,
        /// Slots of the chain.
        ours: usize,
        /// Programs of others.
        theirs: usize,
        /// How many there can be.
        most: usize,
    },
    /// Other tools kept exchanging the dispatcher.
    #[error(
        "other tools exchanged libxdp's dispatcher on `{ifname}` each of the {tries} times that it was tried\nhelp: run it again"
    )]
    Contended {
        /// The interface.
        ifname: String,
        /// How often it was tried.
        tries: usize,
    },
    /// More slots than the exit counters have rows.
    #[error(
        "{slots} slots are more than the exit counters of `{ifname}` have rows for ({rows})\nhelp: remove slots"
    )]
    Rows {
        /// The interface.
        ifname: String,
        /// Slots of the chain.
        slots: usize,
        /// Rows of the map.
        rows: u32,
    },
    /// An object that a generation refers to is not stored.
    #[error("the object of module `{module}` (sha256 {sha256}) is not in `{}`\nhelp: `xdpchain attach` with the file again", .store.display())]
    NoObject {
        /// The module.
        module: String,
        /// Digest of the object.
        sha256: String,
        /// Where objects are stored.
        store: PathBuf,
    },
    /// A file or a pin could not be read or written.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A manifest cannot be understood.
    #[error("`{}` is no manifest of this version: {reason}\nhelp: use the xdpchain that wrote it, or detach with it and attach with this one", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something about the interface cannot be asked.
    #[error("cannot ask the kernel about {what}: {source}")]
    Query {
        /// What was asked about.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The caller's edit of the chain failed.
    #[error(transparent)]
    Edit(BoxError),
    /// The caller's composition failed.
    #[error(transparent)]
    Compose(BoxError),
    /// The change failed after it began to show, and was taken back.
    #[error("{source}\nnote: the change was rolled back; what ran before runs again")]
    RolledBack {
        /// What failed.
        source: Box<Error>,
    },
    /// The change failed and could not be taken back.
    #[error("{source}\nnote: rolling back failed too: {undo}\nhelp: `xdpchain recover`")]
    Stuck {
        /// What failed.
        source: Box<Error>,
        /// What failed on the way back.
        undo: Box<Error>,
    },
}

impl Error {
    /// The kind of this failure. For [`Error::Edit`], [`Error::Compose`] and [`Error::Gate`], whose kind
    /// the caller knows, `Failed`.
    pub fn class(&self) -> Class {
        match self {
            Self::NoInterface { .. } | Self::NoNetns { .. } | Self::NoMap { .. } => Class::Usage,
            Self::NoChain { .. } | Self::NothingToAdopt { .. } => Class::NotReady,
            Self::Permission { .. } | Self::Bpffs { permission: true, .. } => Class::Permission,
            Self::NoLinks { .. }
            | Self::NoExtensions { .. }
            | Self::NoLibxdp
            | Self::Unsupported { .. }
            | Self::Driver { .. }
            | Self::Bpffs { .. } => Class::Kernel,
            Self::Verifier(_) => Class::Verifier,
            Self::Locked { .. } => Class::TimedOut,
            Self::Foreign { .. }
            | Self::CannotTake { .. }
            | Self::Swapped { .. }
            | Self::DispatcherFull { .. } => Class::Busy,
            Self::Io { source, .. }
            | Self::Query { source, .. }
            | Self::Map { source, .. }
            | Self::MapCreate { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Class::Permission
            }
            _ => Class::Failed,
        }
    }

    /// A failed access to a file or a pin.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::Permission { action: format!("{action} `{}`", path.display()), source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// A failed question to the kernel.
    pub(crate) fn query(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::Permission { action: format!("ask about {what}"), source }
            }
            _ => Self::Query { what, source },
        }
    }
}

/// A map's owner for people.
pub(crate) fn owner_text(owner: &MapOwner) -> String {
    match owner {
        MapOwner::Chain => "the chain".to_owned(),
        MapOwner::Module(name) => format!("module `{name}`"),
    }
}

fn no_way_back(engine: Option<&'static str>) -> String {
    match engine {
        Some(engine) => format!(
            "engine {engine} counts no packets, and others may change what it runs\nhelp: apply it without `--confirm` and without `watch`"
        ),
        None => "its chain is to go, and its maps' entries with it\nhelp: detach it on its own, without `--confirm`".to_owned(),
    }
}

fn generation_text(generation: &Option<u64>) -> String {
    generation.map_or_else(|| "no chain".to_owned(), |generation| format!("generation {generation}"))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn more(others: &usize) -> String {
    if *others == 0 { String::new() } else { format!(", and {others} entries more") }
}

fn owner_hint(owner: &Option<String>) -> String {
    owner.as_ref().map(|o| format!(" ({o})")).unwrap_or_default()
}
