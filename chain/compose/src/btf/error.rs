//! What can be wrong with BTF.

/// Why BTF could not be read or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The section ends before something it says is there.
    #[error(
        "`{section}` ends at {len} octets, but {what} reaches to {end}\nhelp: the object is cut short; build it again"
    )]
    Truncated {
        /// `.BTF` or `.BTF.ext`.
        section: &'static str,
        /// What runs past the end.
        what: &'static str,
        /// Octets needed.
        end: u64,
        /// Octets there are.
        len: u64,
    },
    /// The magic number is that of the other byte order.
    #[error("`{section}` is big-endian, expected little-endian\nhelp: build the object for target `bpfel`")]
    BigEndian {
        /// `.BTF` or `.BTF.ext`.
        section: &'static str,
    },
    /// The magic number is not BTF's.
    #[error(
        "`{section}` starts with {found:#06x}, expected 0xeb9f\nhelp: the section does not hold BTF; build the object with `-g`"
    )]
    Magic {
        /// `.BTF` or `.BTF.ext`.
        section: &'static str,
        /// The first two octets.
        found: u16,
    },
    /// A version or a header that is not version 1's.
    #[error(
        "`{section}` has version {version} and a header of {header} octets, expected version 1 and at least 24\nhelp: build the object with a compiler that writes BTF version 1"
    )]
    Version {
        /// `.BTF` or `.BTF.ext`.
        section: &'static str,
        /// The version octet.
        version: u8,
        /// Header length.
        header: u32,
    },
    /// The string section does not start and end with a NUL.
    #[error(
        "the string section of `.BTF` must start and end with a NUL\nhelp: the object is damaged; build it again"
    )]
    Strings,
    /// The names, each counted once, are larger than any real object's.
    #[error(
        "the names in `{section}` add up to more than {limit} octets\nhelp: the object is damaged or hostile; build it again"
    )]
    TooManyStrings {
        /// `.BTF` or `.BTF.ext`.
        section: &'static str,
        /// Octets allowed.
        limit: usize,
    },
    /// A name's offset is past the end of the strings.
    #[error(
        "{what} has its name at offset {offset}, past the end of the strings ({len} octets)\nhelp: the object is damaged; build it again"
    )]
    BadString {
        /// Whose name.
        what: String,
        /// The offset.
        offset: u32,
        /// Octets there are.
        len: u32,
    },
    /// A type's kind is unknown.
    #[error(
        "type {id} has kind {kind}, expected 1 to 19\nhelp: the compiler is newer than this program; turn the feature that made it off, or update"
    )]
    Kind {
        /// Id of the type.
        id: u32,
        /// The kind.
        kind: u32,
    },
    /// A type refers to a type that is not there.
    #[error(
        "type {id} refers to type {found}, expected at most {last}\nhelp: the object is damaged; build it again"
    )]
    BadId {
        /// Id of the type.
        id: u32,
        /// The id that it refers to.
        found: u32,
        /// The last id that exists.
        last: u32,
    },
    /// A record of `.BTF.ext` refers to a type that is not there.
    #[error(
        "`.BTF.ext` refers to type {found}, expected at most {last}\nhelp: the object is damaged; build it again"
    )]
    BadExtId {
        /// The id that it refers to.
        found: u32,
        /// The last id that exists.
        last: u32,
    },
    /// The records of `.BTF.ext` are smaller than version 1's.
    #[error(
        "the records of `.BTF.ext` have {found} octets, expected at least {least}\nhelp: the object is damaged; build it again"
    )]
    RecordSize {
        /// Octets of a record.
        found: u32,
        /// Octets of version 1's.
        least: u32,
    },
    /// A map definition cannot be understood.
    #[error("map `{map}`: {}{problem}\nhelp: define the map in section `.maps` with libbpf's macros or aya-ebpf's `btf_maps`", member_prefix(.member))]
    Map {
        /// Name of the map.
        map: String,
        /// Member of the definition, empty when it is about the whole.
        member: String,
        /// What is wrong.
        problem: String,
    },
}

fn member_prefix(member: &str) -> String {
    if member.is_empty() { String::new() } else { format!("member `{member}`: ") }
}
