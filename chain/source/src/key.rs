//! What tells the rows of a table apart.

use std::fmt;

use crate::Datum;

/// The value of a row's key column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKey {
    /// Null, which no key should be.
    Null,
    /// A whole number.
    Integer(i64),
    /// Text, or whatever else the database prints as text.
    Text(Box<str>),
    /// Octets.
    Octets(Box<[u8]>),
}

impl RowKey {
    /// The key that the value of a key column is; none for values that tell no rows apart.
    pub(crate) fn of(datum: &Datum<'_>) -> Option<Self> {
        Some(match datum {
            Datum::Null => Self::Null,
            Datum::Integer(number) => Self::Integer(i64::try_from(*number).ok()?),
            Datum::Text(text) => Self::Text(text.as_ref().into()),
            Datum::Octets(octets) => Self::Octets((*octets).into()),
            Datum::Network(address, length) => Self::Text(format!("{address}/{length}").into()),
            Datum::Bool(_) | Datum::Float(_) | Datum::Other(_) => return None,
        })
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Octets(octets) => {
                f.write_str("0x")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}
