//! What can be wrong with a chains.yaml, and where.
//!
//! An error prints as file, line and column with what is wrong, the line under a caret, and a
//! `help:` line with the next step.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::secret::redact;
use crate::tree::{Spot, lines};

/// Characters of an offending line that are shown at most.
const EXCERPT: usize = 120;

/// A chains.yaml that cannot be used: what is wrong with it, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    problem: Box<Problem>,
    file: PathBuf,
    spot: Spot,
    text: String,
}

impl SpecError {
    pub(crate) fn new(problem: Problem, spot: Spot, source: &str, file: &Path) -> Self {
        let text = redact(lines(source).nth(spot.line - 1).unwrap_or_default());
        Self { problem: Box::new(problem), file: file.to_owned(), spot, text }
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.spot.line
    }

    /// The column, from 1, in characters.
    pub fn column(&self) -> usize {
        self.spot.column
    }
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spot { line, column, width } = self.spot;
        // A value of the wrong type is quoted, whatever it is.
        let problem = redact(&self.problem.to_string());
        writeln!(f, "{}:{line}:{column}: {problem}", self.file.display())?;
        if !self.text.is_empty() {
            // Begin far enough to the right that a caret in a very long line is still seen.
            let skipped = (column - 1).saturating_sub(EXCERPT / 2);
            let shown: String = self
                .text
                .chars()
                .skip(skipped)
                .take(EXCERPT)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            let number = line.to_string();
            let indent = column - 1 - skipped;
            let carets = "^".repeat(width.clamp(1, EXCERPT - indent));
            writeln!(f, " {number} | {}", shown.trim_end())?;
            writeln!(f, " {:>1$} | {2:3$}{carets}", "", number.len(), "", indent)?;
        }
        write!(f, "help: {}", self.problem.help())
    }
}

/// What is wrong with a chains.yaml.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It is not YAML.
    #[error("not YAML: {message}")]
    Syntax {
        /// What the YAML reader says.
        message: String,
    },
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// A second YAML document begins.
    #[error("a second document begins here")]
    SecondDocument,
    /// Mappings or sequences inside each other without end.
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// Levels that are accepted.
        limit: usize,
    },
    /// An alias stands inside what it stands for.
    #[error("an alias of something that it is part of")]
    AliasOfItself,
    /// A mapping or a sequence where a key is due.
    #[error("a key must be a name")]
    KeyIsNoName,
    /// A key stands twice in one mapping.
    #[error("duplicate key `{key}`{}, first given in line {first_line}", inside(path))]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where the mapping is.
        path: String,
        /// The line of the first one.
        first_line: usize,
    },
    /// The format of another version.
    #[error("version `{found}` is not supported")]
    UnsupportedVersion {
        /// The version that the file has.
        found: String,
    },
    /// A key that means nothing here.
    #[error("unknown key `{key}`{}", inside(path))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it is.
        path: String,
        /// The keys that mean something here.
        known: Vec<String>,
    },
    /// A key that must be there is not.
    #[error("missing key `{key}`{}", inside(path))]
    MissingKey {
        /// The key.
        key: String,
        /// Where it should be.
        path: String,
    },
    /// A word that is none of those accepted here.
    #[error("`{path}` cannot be `{word}`")]
    UnknownWord {
        /// The word.
        word: String,
        /// Where it is.
        path: String,
        /// The words that are accepted.
        known: Vec<String>,
    },
    /// A value of the wrong type.
    #[error("wrong type{}: found {found}", whole(path))]
    WrongType {
        /// Where it is.
        path: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// Anything else that a value cannot be.
    #[error("{message}{}", inside(path))]
    BadValue {
        /// What is wrong.
        message: String,
        /// Where it is.
        path: String,
        /// What to do.
        help: String,
    },
    /// A name that cannot be part of a path.
    #[error("`{name}` cannot be the name of a {what}")]
    BadName {
        /// The name.
        name: String,
        /// What it names.
        what: &'static str,
    },
    /// A name that no interface can have.
    #[error("`{name}` cannot be the name of an interface")]
    BadInterface {
        /// The name.
        name: String,
    },
    /// A module that is not declared.
    #[error("unknown module `{module}`{}", inside(path))]
    UnknownModule {
        /// The module.
        module: String,
        /// Where it is named.
        path: String,
        /// The modules that are declared.
        known: Vec<String>,
    },
    /// Modules that import from each other in a circle.
    #[error("modules import from each other in a circle: {}", circle.join(" -> "))]
    ImportCycle {
        /// The modules on the circle, the first one also last.
        circle: Vec<String>,
    },
    /// A size for a map that another module owns.
    #[error("map `{map}` of module `{module}` is imported, so it has no size of its own")]
    OverriddenImport {
        /// The module.
        module: String,
        /// The map.
        map: String,
        /// The module that owns the map.
        owner: String,
    },
    /// Programs for a program array that another module owns.
    #[error("program array `{map}` of module `{module}` is imported, so it holds what its owner puts there")]
    FilledImport {
        /// The module.
        module: String,
        /// The map.
        map: String,
        /// The module that owns the map.
        owner: String,
    },
    /// An import of a map that its owner keeps to itself.
    #[error("module `{owner}` does not export map `{map}`; it exports {}", exported(.exports))]
    NotExported {
        /// The module that owns the map.
        owner: String,
        /// The map.
        map: String,
        /// What it exports.
        exports: Vec<String>,
    },
    /// Instructions to migrate a map that another module owns.
    #[error(
        "map `{map}` of module `{module}` is imported, so its owner's entries are none of its own to migrate"
    )]
    MigratedImport {
        /// The module.
        module: String,
        /// The map.
        map: String,
        /// The module that owns the map.
        owner: String,
    },
    /// A map of no entries.
    #[error("map `{map}` of module `{module}` cannot have 0 entries")]
    NoEntries {
        /// The module.
        module: String,
        /// The map.
        map: String,
    },
    /// A chain without slots.
    #[error("chain `{chain}` has no slots")]
    EmptyChain {
        /// The chain.
        chain: String,
    },
    /// A chain whose slots all run at exit.
    #[error("every slot of chain `{chain}` runs at exit")]
    NothingInOrder {
        /// The chain.
        chain: String,
    },
    /// A module in two slots of one chain.
    #[error(
        "module `{module}` is twice in chain `{chain}`, which is not supported yet; first in line {first_line}"
    )]
    ModuleTwice {
        /// The module.
        module: String,
        /// The chain.
        chain: String,
        /// The line of the first one.
        first_line: usize,
    },
    /// A slot after one that never proceeds.
    #[error("slot `{slot}` can never run: `{blocker}` before it has an empty `proceed_on`")]
    Unreachable {
        /// The slot.
        slot: String,
        /// The slot before it.
        blocker: String,
    },
    /// A key about the verdict of a slot whose verdict is ignored.
    #[error("`{key}` means nothing for slot `{slot}`, whose verdict is ignored")]
    IgnoredVerdict {
        /// The key.
        key: &'static str,
        /// The slot.
        slot: String,
    },
    /// A slot at exit that is said to be no observer.
    #[error("slot `{slot}` runs at exit, so it cannot be anything but an observer")]
    ExitDecides {
        /// The slot.
        slot: String,
    },
    /// A gate without packets.
    #[error("the gate of chain `{chain}` has no packets")]
    EmptyGate {
        /// The chain.
        chain: String,
    },
    /// A watch without limits.
    #[error("the watch of chain `{chain}` has no limit")]
    EmptyWatch {
        /// The chain.
        chain: String,
    },
    /// A map that two sources fill, or one twice.
    #[error("map `{map}` is filled by source `{first}` already, in line {first_line}")]
    FilledTwice {
        /// The map.
        map: String,
        /// The source that it was in first.
        first: String,
        /// The line of the first one.
        first_line: usize,
    },
    /// A source for a map that another module owns.
    #[error("map `{map}` of module `{module}` is imported, so a source cannot fill it by this name")]
    SourceOfImport {
        /// The module.
        module: String,
        /// The map.
        map: String,
        /// The map that it is.
        owner: String,
    },
    /// An interface in two chains, or twice in one.
    #[error("interface `{interface}` is in chain `{first}` already, in line {first_line}")]
    InterfaceTwice {
        /// The interface.
        interface: String,
        /// The chain that it was in first.
        first: String,
        /// The line of the first one.
        first_line: usize,
    },
}

impl Problem {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Syntax { .. } => {
                "look at the indentation, the quotes and the brackets around this place".to_owned()
            }
            Self::Empty => "a chains.yaml has at least `version: 1`, `modules:` and `chains:`".to_owned(),
            Self::SecondDocument => "keep everything in one document, and remove the `---`".to_owned(),
            Self::TooDeep { .. } => "nothing in chains.yaml is nested so deep".to_owned(),
            Self::AliasOfItself => "write the value out in place of the alias".to_owned(),
            Self::KeyIsNoName => "put a name in front of the colon".to_owned(),
            Self::DuplicateKey { key, .. } => format!("remove or rename one of the two `{key}`"),
            Self::UnsupportedVersion { .. } => {
                format!("this xdpchain reads `version: {}`", crate::VERSION)
            }
            Self::UnknownKey { key, known, .. } => choice(key, known, "keys here are", "and"),
            Self::MissingKey { key, .. } => format!("add `{key}:`"),
            Self::UnknownWord { word, known, .. } => choice(word, known, "it can be", "or"),
            Self::WrongType { expected, .. } => format!("expected {expected}"),
            Self::BadValue { help, .. } => help.clone(),
            Self::BadName { .. } => {
                "use up to 63 letters, digits, `-` and `_`, with a letter or digit first".to_owned()
            }
            Self::BadInterface { .. } => {
                "the kernel wants 1 to 15 octets without spaces, `/` and `:`; `ip link` lists the interfaces"
                    .to_owned()
            }
            Self::UnknownModule { module, known, .. } if known.is_empty() => {
                format!("declare `{module}` under `modules:`")
            }
            Self::UnknownModule { module, known, .. } => match near(module, known) {
                Some(near) => format!("did you mean `{near}`? else declare `{module}` under `modules:`"),
                None => format!("declare it under `modules:`; declared are {}", list(known, "and")),
            },
            Self::ImportCycle { .. } => {
                "let one of these modules own the map, and import it only in the others".to_owned()
            }
            Self::OverriddenImport { map, owner, .. } => {
                format!(
                    "set the size where the map is: under `maps:` of module `{owner}`; remove `{map}` here"
                )
            }
            Self::FilledImport { map, owner, .. } => {
                format!("name programs of `{owner}` under its own `programs:`; remove `{map}` here")
            }
            Self::NotExported { owner, map, .. } => format!(
                "add `{map}` to `exports:` of module `{owner}` if its owner agrees; without the import the module has a map of its own"
            ),
            Self::MigratedImport { map, owner, .. } => {
                format!("say it under `migrate:` of module `{owner}`; remove `{map}` here")
            }
            Self::NoEntries { .. } => {
                "give at least 1, or remove the line to keep the object's size".to_owned()
            }
            Self::EmptyChain { .. } => "list at least one module under `slots:`".to_owned(),
            Self::NothingInOrder { .. } => {
                "an exit slot only watches; add at least one slot without `at: exit`".to_owned()
            }
            Self::ModuleTwice { module, .. } => {
                format!(
                    "declare a second module with the object of `{module}` and another name, and use that"
                )
            }
            Self::Unreachable { slot, blocker } => {
                format!("move `{slot}` before `{blocker}`, or let `{blocker}` proceed on some verdict")
            }
            Self::IgnoredVerdict { key, .. } => {
                format!("remove `{key}`, or remove `observer` and `at: exit` to let the module decide")
            }
            Self::ExitDecides { .. } => "remove `observer: false`, or remove `at: exit`".to_owned(),
            Self::EmptyGate { .. } => "list files under `fixtures:` or `pcap:`, or remove `gate`".to_owned(),
            Self::EmptyWatch { .. } => {
                "give `max_drop_increase` or `max_aborted`, or remove `watch`".to_owned()
            }
            Self::FilledTwice { map, .. } => {
                format!(
                    "rows of one table fill a map; remove `{map}` from one of the two, or join the tables"
                )
            }
            Self::SourceOfImport { owner, .. } => format!("name its owner's map: `{owner}`"),
            Self::InterfaceTwice { interface, .. } => {
                format!("an interface has one chain; remove `{interface}` from one of the two")
            }
        }
    }
}

fn exported(maps: &[String]) -> String {
    let quoted: Vec<String> = maps.iter().map(|map| format!("`{map}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { list(&quoted, "and") }
}

fn inside(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" in `{path}`") }
}

fn whole(path: &str) -> String {
    if path.is_empty() { " of the file".to_owned() } else { format!(" for `{path}`") }
}

fn choice(word: &str, known: &[String], lead: &str, last: &str) -> String {
    match near(word, known) {
        Some(near) => format!("did you mean `{near}`? {lead} {}", list(known, last)),
        None => format!("{lead} {}", list(known, last)),
    }
}

/// The one of `known` that was probably meant by `word`.
pub fn near<'a, S: AsRef<str>>(word: &str, known: &'a [S]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    let distance = |known: &str| match known.len() >= 3 && word.contains(known) {
        true => 1,
        false => strsim::damerau_levenshtein(&word, known),
    };
    known
        .iter()
        .map(|known| (distance(known.as_ref()), known.as_ref()))
        .filter(|(distance, _)| *distance < length && *distance <= (length / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

fn list(words: &[String], last_joined_by: &str) -> String {
    match words {
        [] => "none".to_owned(),
        [word] => word.clone(),
        [words @ .., last] => format!("{} {last_joined_by} {last}", words.join(", ")),
    }
}
