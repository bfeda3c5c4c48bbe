//! The command line.

mod source;
mod state;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use xdpchain_abi::Reason;
use xdpchain_spec::{MapRef, ObjectRef, Position, Timespan, Verdict};

pub(crate) use source::SourceCommand;
pub(crate) use state::{Restore, StateCommand};

/// Several packet programs on one NIC, in the order that chains.yaml declares.
#[derive(Debug, Parser)]
#[command(name = "xdpchain", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done; 1 differs or not ready; 2 usage; 3 chains.yaml invalid; \
4 permission; 5 kernel or driver cannot; 6 verifier refused; 7 interface busy with somebody else's program; \
8 failed and rolled back; 9 timed out";

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// chains.yaml to read [default: ./chains.yaml, then /etc/xdpchain/chains.yaml]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub(crate) file: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table", global = true)]
    pub(crate) output: Format,
    /// Say more on stderr; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Network namespace to work in: a name of `ip netns`, or a path [default: the current one]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) netns: Option<String>,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people with wide terminals: more columns and tables.
    Wide,
    /// One JSON object.
    Json,
    /// One YAML document.
    Yaml,
    /// JUnit's XML, of `test` alone.
    Junit,
}

/// Where in the receive path a chain is attached.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// Native when the driver can, else generic.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl From<Mode> for xdpchain_spec::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put the chain that chains.yaml has for an interface on it
    Attach {
        /// The interface
        iface: String,
        /// The chain [default: the one whose `interfaces` has the interface]
        #[arg(long, value_name = "NAME")]
        chain: Option<String>,
        /// Where in the receive path [default: what the chain says]
        #[arg(long, value_name = "MODE")]
        mode: Option<Mode>,
        #[command(flatten)]
        foreign: ForeignArgs,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Show what would have to change for interfaces to run what chains.yaml says
    ///
    /// Changes nothing. Exit status 0 when everything runs as it is wanted, 1 when something differs. A chain that runs on an
    /// interface which chains.yaml does not name any more is shown as one that goes.
    Plan {
        /// The interfaces [default: those of chains.yaml, and those that run a chain]
        #[arg(value_name = "IFACE")]
        ifaces: Vec<String>,
    },
    /// Let every interface run what chains.yaml says: all of them, or none
    ///
    /// Does what `plan` shows: everything is prepared before the first interface is changed, each by one step, and when one
    /// fails, those before it go back. Fails when another command has changed a chain since the plan was made. With `watch` in
    /// chains.yaml the counters are watched for that time, and the change goes back when they break its limits.
    Apply {
        /// The interfaces [default: those of chains.yaml, and those that run a chain]
        #[arg(value_name = "IFACE")]
        ifaces: Vec<String>,
        /// Go back after this time, as 30s or 5m, unless `xdpchain confirm` keeps the change
        ///
        /// Also when the terminal hangs up or this command is killed.
        #[arg(long, value_name = "TIME")]
        confirm: Option<Timespan>,
        /// Do not wait until `watch` is over
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        foreign: ForeignArgs,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Keep a change that is on trial
    Confirm,
    /// Go back to an earlier generation, or take a change back that is on trial
    ///
    /// The earlier chain becomes a new generation, so that the history stays a line. Maps keep their entries.
    Rollback {
        /// The interface [default: those of the change that is on trial]
        iface: Option<String>,
        /// The generation, as `history` lists them [default: the one before]
        #[arg(requires = "iface")]
        generation: Option<u64>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the generations that are kept of an interface
    History {
        /// The interface
        iface: String,
    },
    /// Watch a change on trial; `apply` starts it
    #[command(hide = true)]
    WatchTrial {
        /// The trial's number
        id: u64,
    },
    /// Take the chain off an interface, and remove its pins and files
    ///
    /// A program that the chain had adopted is put back as it was attached.
    Detach {
        /// The interface
        iface: String,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Add a module to the chain that runs on an interface
    Add(Add),
    /// Take a slot out of the chain that runs on an interface
    Remove {
        /// The interface
        iface: String,
        /// The slot
        slot: String,
        #[command(flatten)]
        how: Editing,
    },
    /// Move a slot of the chain that runs on an interface to another place
    Move(Move),
    /// Put another object into a slot; the module's maps live on
    Replace {
        /// The interface
        iface: String,
        /// The slot
        slot: String,
        /// Path of an ELF object, or builtin:NAME
        object: ObjectRef,
        /// The XDP program of the object; needed only when it has several
        #[arg(long, value_name = "PROGRAM")]
        program: Option<String>,
        #[command(flatten)]
        how: Editing,
    },
    /// Show what runs, and what became of the packets
    ///
    /// Each packet is counted once, where its chain ended, by verdict. REACHED is everything that ended in the slot or
    /// after it: what came to the slot since it was added. With -o wide, also how full each map is and how
    /// soon it will be at its rate since an earlier look, its memory, and why packets were dropped or handed to the kernel.
    Status {
        /// The interface [default: every interface with a chain]
        iface: Option<String>,
    },
    /// Show what this kernel can do, and which engines run here
    ///
    /// Each feature is tried, not told from the kernel's version.
    Features {
        /// The interface whose driver is asked as well
        iface: Option<String>,
    },
    /// Look for what keeps chains from working here, and say what mends it
    Doctor,
    /// Finish or clear away what an interrupted command left
    Recover,
    /// Look at objects, or at a chains.yaml, without attaching anything
    ///
    /// Prints programs and maps, what they call, and for each engine whether it takes them here, and at what size: composed,
    /// and (as root) loaded by the kernel. Without OBJECT, all of chains.yaml is checked.
    Check {
        /// Paths of ELF objects, or builtin:NAME
        #[arg(value_name = "OBJECT")]
        objects: Vec<ObjectRef>,
        /// The XDP program of the objects; needed only when one has several
        #[arg(long, value_name = "PROGRAM", requires = "objects")]
        program: Option<String>,
    },
    /// Run golden packets through what chains.yaml says, without touching anything that runs
    ///
    /// A fixture says what is to become of one packet; of a capture, what leaves is compared with NAME.expected.pcap beside
    /// NAME.pcap, when that is there. Maps are their own, filled by the fixture. Exit status 1 when something differs.
    Test {
        /// Fixtures (.yaml), captures (.pcap, .pcapng), and folders of them [default: those of the chains' `gate`]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// The chain that packets go through, where the fixture does not say [default: the only one]
        #[arg(long, value_name = "NAME")]
        chain: Option<String>,
        /// Also say, by the rows of docs/conformance.md, why each packet ended as it did; of built-in modules
        #[arg(long)]
        explain: bool,
    },
    /// Tell why packets are dropped, punted or remarked: every reason, what it means, and what to do about it
    Reasons {
        /// Only these [default: all]
        #[arg(value_name = "REASON", value_parser = reasons())]
        reasons: Vec<String>,
    },
    /// Print the JSON Schema of chains.yaml, for editors and linters
    Schema,
    /// Print a script that completes commands in a shell
    ///
    /// For bash: `xdpchain completions bash > /etc/bash_completion.d/xdpchain`.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write that of every command into a folder
    Man {
        /// The folder, e.g. /usr/local/share/man/man1; it is made when it is not there
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Read and write the modules' maps
    Map {
        #[command(subcommand)]
        command: MapCommand,
    },
    /// Apply chains.yaml now and whenever it changes, follow its sources, and answer questions, until told to end
    ///
    /// Answers `/metrics`, `/healthz`, `/status` and `/sources` by HTTP on a unix socket. SIGHUP applies chains.yaml at once.
    /// The data path runs on without it.
    Agent,
    /// Fill maps from database tables
    Source {
        #[command(subcommand)]
        command: SourceCommand,
    },
    /// Save what maps hold to a file, give it back to them, and compare
    State {
        #[command(subcommand)]
        command: StateCommand,
    },
}

#[derive(Args, Clone, Copy, Debug)]
#[group(multiple = false)]
pub(crate) struct ForeignArgs {
    /// Let a program that somebody else attached run as the chain's last slot, `adopted`
    ///
    /// It stays loaded, with its maps. One that a link holds is swapped without a gap; for one that netlink attached,
    /// packets pass by the interface's programs for the moment that the exchange takes. `detach` puts it back.
    #[arg(long)]
    adopt: bool,
    /// Take a program off that somebody else attached by netlink (as `ip link` does)
    ///
    /// One that is attached by a link is its owner's to take off.
    #[arg(long)]
    replace_foreign: bool,
}

impl From<ForeignArgs> for xdpchain_host::Foreign {
    fn from(args: ForeignArgs) -> Self {
        match args {
            ForeignArgs { adopt: true, .. } => Self::Adopt,
            ForeignArgs { replace_foreign: true, .. } => Self::Replace,
            _ => Self::Refuse,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    /// The interface
    pub(crate) iface: String,
    /// Path of an ELF object, or builtin:NAME
    pub(crate) object: ObjectRef,
    /// Name of the module and of its slot [default: the object's name]
    ///
    /// With -f, what that file says of the module of this name (program, map sizes, imports) holds.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The XDP program of the object; needed only when it has several
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) program: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// The verdicts after which the next slot runs [default: what the object says, else pass]
    #[arg(long, value_name = "VERDICT,…", value_delimiter = ',')]
    pub(crate) proceed_on: Option<Vec<Verdict>>,
    /// The chain's verdict when the module returns a number that is none
    #[arg(long, value_name = "VERDICT", default_value = "aborted")]
    pub(crate) on_unknown: Verdict,
    /// Ignore the module's verdict
    #[arg(long, conflicts_with_all = ["proceed_on", "on_unknown"])]
    pub(crate) observer: bool,
    /// Run it once at the end, for every packet, as an observer
    #[arg(long, conflicts_with_all = ["proceed_on", "on_unknown"])]
    pub(crate) at_exit: bool,
    #[command(flatten)]
    pub(crate) how: Editing,
}

#[derive(Args, Debug)]
#[command(mut_group("Place", |place| place.required(true)))]
pub(crate) struct Move {
    /// The interface
    pub(crate) iface: String,
    /// The slot
    pub(crate) slot: String,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) how: Editing,
}

/// How a chain that runs is edited.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Editing {
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// Make the same edit in chains.yaml, and keep its comments
    ///
    /// The file given with -f, or the one that is used without it. An edit that cannot be made there is refused before
    /// anything is changed.
    #[arg(long)]
    pub(crate) save: bool,
}

#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Place {
    /// Right before this slot
    #[arg(long, value_name = "SLOT")]
    before: Option<String>,
    /// Right after this slot
    #[arg(long, value_name = "SLOT")]
    after: Option<String>,
    /// Before every other slot
    #[arg(long)]
    first: bool,
    /// After every other slot in order; where `add` puts it without a place
    #[arg(long)]
    last: bool,
}

impl Place {
    pub(crate) fn position(&self) -> Position {
        match self {
            Self { before: Some(slot), .. } => Position::Before(slot.clone()),
            Self { after: Some(slot), .. } => Position::After(slot.clone()),
            Self { first: true, .. } => Position::First,
            _ => Position::Last,
        }
    }
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DryRun {
    /// Do everything up to the change, but change nothing
    #[arg(long = "dry-run")]
    pub(crate) set: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MapCommand {
    /// List the maps of the modules that run
    List {
        /// Only those of the chain on this interface
        #[arg(long, value_name = "IFACE")]
        iface: Option<String>,
    },
    /// Show a map: its definition, its types, and its first entries
    Show {
        #[command(flatten)]
        map: MapName,
        /// Entries to show
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Print the value of one key
    Get {
        #[command(flatten)]
        map: MapName,
        /// The key
        key: String,
    },
    /// Set the value of one key
    Set {
        #[command(flatten)]
        map: MapName,
        /// The key
        key: String,
        /// The value, as `map show` prints values; of a per-CPU map also a JSON list with each CPU's
        value: String,
    },
    /// Delete a key
    Del {
        #[command(flatten)]
        map: MapName,
        /// The key
        key: String,
    },
    /// Fill a map from a CSV or JSON-lines file
    Import {
        #[command(flatten)]
        map: MapName,
        /// The file, or - for stdin
        file: PathBuf,
        /// What the file is [default: by its extension, .csv or .jsonl]
        #[arg(long, value_name = "FORMAT")]
        format: Option<RowFormat>,
        /// Take fields that are not given, and empty cells, for zero
        #[arg(long)]
        defaults: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Print every entry of a map as CSV or JSON lines
    Export {
        #[command(flatten)]
        map: MapName,
        /// The file to write [default: stdout]
        file: Option<PathBuf>,
        /// What to write [default: by the file's extension, else jsonl]
        #[arg(long, value_name = "FORMAT")]
        format: Option<RowFormat>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct MapName {
    /// The map: module/map, where the module `chain` is the chain itself
    pub(crate) map: MapRef,
    /// The interface, for a map of the chain itself
    #[arg(long, value_name = "IFACE")]
    pub(crate) iface: Option<String>,
}

/// Formats of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// A header line, then one entry in each line.
    Csv,
    /// One JSON object in each line.
    Jsonl,
}

/// The names of all reasons, which completions offer.
fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_slot_has_one_position() {
        let place = |args: &[&str]| {
            let line = ["xdpchain", "add", "eth0", "a.o"].iter().chain(args);
            match Cli::try_parse_from(line).map(|cli| cli.command) {
                Ok(Command::Add(add)) => Some(add.place.position()),
                _ => None,
            }
        };
        assert_eq!(place(&[]), Some(Position::Last));
        assert_eq!(place(&["--first"]), Some(Position::First));
        assert_eq!(place(&["--before", "acl"]), Some(Position::Before("acl".into())));
        assert_eq!(place(&["--before", "acl", "--last"]), None);
        let moves = |args: &[&str]| {
            Cli::try_parse_from(["xdpchain", "move", "eth0", "acl"].iter().chain(args)).is_ok()
        };
        assert!(moves(&["--first"]) && moves(&["--after", "stats", "--save"]));
        assert!(!moves(&[]) && !moves(&["--first", "--last"]));
    }
}
