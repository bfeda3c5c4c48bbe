//! What can be wrong with a type, a value, or a file of values.

/// Why a value could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The type has no size, or is not what BTF of a map can be.
    #[error(
        "type `{name}` cannot be the type of a key or value: {problem}\nhelp: give the map's key and value as structs, arrays and integers"
    )]
    Type {
        /// Name of the type, or its number.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The map says another size than its type has.
    #[error(
        "{what} has {found} octets, but its type `{name}` has {expected}\nhelp: the map was made by another version of the module; replace the module or migrate the map"
    )]
    Size {
        /// `key` or `value`.
        what: &'static str,
        /// Name of the type.
        name: String,
        /// Octets of the type.
        expected: usize,
        /// Octets of the map.
        found: usize,
    },
    /// Octets of another length than the type has.
    #[error("expected {expected} octets, found {found}\nhelp: this is a bug in whoever read the map")]
    Length {
        /// Octets of the type.
        expected: usize,
        /// Octets given.
        found: usize,
    },
    /// A field's text is not what its type takes.
    #[error("{}expected {expected}, found {found}\nhelp: {}", at(.path), .help)]
    Field {
        /// The field, as a dotted path; empty for a key or value that is no struct.
        path: String,
        /// What its type takes.
        expected: String,
        /// What was given.
        found: String,
        /// What to do.
        help: &'static str,
    },
    /// Fields that must be given are not.
    #[error("missing {}\nhelp: {help}", quoted(.fields))]
    Missing {
        /// The fields, as dotted paths.
        fields: Vec<String>,
        /// What to do.
        help: &'static str,
    },
    /// A field that the type does not have.
    #[error("unknown field `{field}`\nhelp: {}the fields are {}", did_you_mean(.field, .known), quoted(.known))]
    Unknown {
        /// The field, as it was written.
        field: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A name that key and value both have, without saying which.
    #[error("`{field}` is a field of both key and value\nhelp: write `key.{field}` or `value.{field}`")]
    Ambiguous {
        /// The field, as it was written.
        field: String,
    },
    /// A field given twice.
    #[error("`{field}` is given more than once\nhelp: remove all but one")]
    Twice {
        /// The field.
        field: String,
    },
    /// Several members of one union.
    #[error("{} are members of one union\nhelp: give one of them", quoted(.fields))]
    Union {
        /// The members given.
        fields: Vec<String>,
    },
    /// The type has more fields than a table has columns.
    #[error("the type has more than {limit} columns\nhelp: use JSON lines instead of CSV")]
    TooManyColumns {
        /// Columns allowed.
        limit: usize,
    },
    /// A row of a file is wrong.
    #[error("line {line}: {problem}")]
    Row {
        /// Line of the file, from 1.
        line: u64,
        /// What is wrong with it.
        problem: Box<StateError>,
    },
    /// Text that is no JSON or CSV at all.
    #[error("not {format}: {problem}\nhelp: {help}")]
    Syntax {
        /// `CSV` or `JSON`.
        format: &'static str,
        /// What the reader says.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// No value of a field can be carried over to another layout.
    #[error("{}{problem}\nhelp: {help}", at(.path))]
    Migrate {
        /// The field, as a dotted path; empty for a type that is no struct.
        path: String,
        /// Why not.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read: {problem}\nhelp: check that the file is there and is UTF-8 text")]
    Read {
        /// What the system says.
        problem: String,
    },
    /// A file that is something else.
    #[error("not a state file\nhelp: `xdpchain state save FILE` writes one")]
    NotState,
    /// A state file of another version of the format.
    #[error(
        "a state file of version {found}, where version {known} is known\nhelp: use the xdpchain that wrote it, or save again by this one"
    )]
    Version {
        /// Its version.
        found: u32,
        /// The version that is read here.
        known: u32,
    },
    /// A state file that is cut short, altered, or never was whole.
    #[error(
        "the state file is damaged: {problem}\nhelp: nothing was changed; copy the file again, or save again"
    )]
    Damaged {
        /// What is wrong with it.
        problem: String,
    },
    /// A state file cannot be read.
    #[error(
        "cannot read the state file: {problem}\nhelp: nothing was changed; check the disk or the file system that it is on"
    )]
    Unreadable {
        /// What the system says.
        problem: String,
    },
    /// Values of CPUs that this host does not have cannot be added to those of others.
    #[error(
        "it has values for {saved} CPUs, this host has {here}, and they are no numbers that add up\nhelp: leave the map out by naming the others with `--map`"
    )]
    Cpus {
        /// CPUs in the file.
        saved: usize,
        /// CPUs that the host may have.
        here: usize,
    },
}

impl StateError {
    /// The error, as one of the field `segment` of what it was about.
    pub(crate) fn within(mut self, segment: &str) -> Self {
        let prefix = |path: &mut String| {
            *path = if path.is_empty() { segment.to_owned() } else { format!("{segment}.{path}") };
        };
        match &mut self {
            Self::Field { path, .. } => prefix(path),
            Self::Unknown { field, .. } | Self::Twice { field } => prefix(field),
            Self::Missing { fields, .. } | Self::Union { fields } => fields.iter_mut().for_each(prefix),
            _ => {}
        }
        self
    }

    /// The error, as one of line `line`.
    pub(crate) fn in_row(self, line: u64) -> Self {
        Self::Row { line, problem: Box::new(self) }
    }
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 24;
    let mut out = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        out.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    out
}

fn did_you_mean(field: &str, known: &[String]) -> String {
    let close = known.iter().map(|name| (distance(field, name), name)).min();
    match close {
        Some((distance, name)) if distance <= 2 || distance * 3 <= field.len() => {
            format!("did you mean `{name}`? ")
        }
        _ => String::new(),
    }
}

/// Edits that turn one name into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}
