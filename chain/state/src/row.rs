//! Cells of a database's rows as keys and values.
//!
//! Where a file has text alone, a database has values of types: a number becomes a number without being printed, octets become
//! an address, and text goes by the rules that files have.

use std::net::IpAddr;

use crate::StateError;
use crate::columns::Column;
use crate::import;
use crate::leaf::{Leaf, user_address};
use crate::map::{MapCodec, Side};

/// A value of a database, not null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Octets.
    Octets(&'a [u8]),
    /// An address.
    Address(IpAddr),
}

/// Which fields of a map rows have cells for, in the order of the cells.
#[derive(Clone, Debug)]
pub struct RowFields {
    fields: Vec<(Side, Column, String)>,
    key: usize,
    value: usize,
}

impl RowFields {
    /// Rows with a cell for each of `names`. Every field has to be among them but padding, unless `defaults`: then fields of
    /// the value that are not stay zero.
    ///
    /// # Errors
    /// When a name is unknown, ambiguous or there twice, or a field is missing.
    pub fn new(map: &MapCodec, names: &[String], defaults: bool) -> Result<Self, StateError> {
        let columns = map.columns()?;
        let found = import::fields(&columns, names.iter().map(String::as_str), defaults)?;
        let fields = found.into_iter().zip(names).map(|((side, column), name)| (side, column, name.clone()));
        Ok(Self { fields: fields.collect(), key: map.key.size(), value: map.value.size() })
    }

    /// The shortest name of the field that `name` means.
    ///
    /// # Errors
    /// When it means none, or several.
    pub fn name(map: &MapCodec, name: &str) -> Result<String, StateError> {
        let columns = map.columns()?;
        let (side, column) = columns.find(name)?;
        Ok(columns.shortest(side, column))
    }

    /// Octets of a key and of a value.
    pub fn sizes(&self) -> (usize, usize) {
        (self.key, self.value)
    }

    /// Writes cell number `index` to its place in `key` or `value`.
    ///
    /// # Errors
    /// [`StateError::Field`] when the field cannot be what the cell is.
    pub fn set(
        &self,
        index: usize,
        cell: Cell<'_>,
        key: &mut [u8],
        value: &mut [u8],
    ) -> Result<(), StateError> {
        let (side, column, name) = &self.fields[index];
        let octets = if *side == Side::Key { key } else { value };
        column.set(cell, octets).map_err(|error| error.within(name))
    }
}

impl Column {
    fn set(&self, cell: Cell<'_>, octets: &mut [u8]) -> Result<(), StateError> {
        if let (Some(leaf), false) = (self.scalar(), matches!(cell, Cell::Text(_))) {
            return leaf.set(cell, self.place(octets));
        }
        match cell {
            Cell::Text(text) => self.parse(text, octets),
            // An array of octets that has no meaning as an array of numbers.
            Cell::Octets(given) if given.len() == self.len() && self.is_octets() => {
                self.place(octets).copy_from_slice(given);
                Ok(())
            }
            other => self.parse(&other.text(), octets),
        }
    }
}

impl Leaf {
    pub(crate) fn set(&self, cell: Cell<'_>, octets: &mut [u8]) -> Result<(), StateError> {
        /// Whole numbers up to here are themselves as numbers of 64 bits with a point.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match (self, cell) {
            (Self::Number(number), Cell::Integer(value)) => {
                let raw = number.holds(value).ok_or_else(|| self.refused(octets.len(), &cell))?;
                number.set_raw(raw, octets);
                Ok(())
            }
            (Self::Number(_), Cell::Bool(value)) => self.set(Cell::Integer(value.into()), octets),
            (Self::Number(_), Cell::Float(value)) if value.fract() == 0.0 && value.abs() < EXACT => {
                self.set(Cell::Integer(value as i128), octets)
            }
            (Self::Ipv6 | Self::User, Cell::Octets(&[a, b, c, d])) => {
                self.set(Cell::Address([a, b, c, d].into()), octets)
            }
            (Self::User, Cell::Octets(given)) if given.len() == 16 => {
                let address: [u8; 16] = given.try_into().map_err(|_| self.refused(octets.len(), &cell))?;
                self.set(Cell::Address(address.into()), octets)
            }
            (Self::User, Cell::Address(address)) => {
                let address = user_address(address).ok_or_else(|| self.refused(octets.len(), &cell))?;
                octets.copy_from_slice(&address.octets);
                Ok(())
            }
            (
                Self::Ipv4 | Self::Ipv6 | Self::User | Self::Mac | Self::Bytes | Self::Text,
                Cell::Octets(given),
            ) if given.len() == octets.len() => {
                octets.copy_from_slice(given);
                Ok(())
            }
            (Self::Ipv4, Cell::Address(IpAddr::V4(address))) => {
                octets.copy_from_slice(&address.octets());
                Ok(())
            }
            (Self::Ipv6, Cell::Address(address)) => {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                octets.copy_from_slice(&address.octets());
                Ok(())
            }
            (Self::Bytes, Cell::Address(address)) => match address {
                IpAddr::V4(address) => self.set(Cell::Octets(&address.octets()), octets),
                IpAddr::V6(address) if octets.len() == 16 => {
                    octets.copy_from_slice(&address.octets());
                    Ok(())
                }
                IpAddr::V6(_) => Err(self.refused(octets.len(), &cell)),
            },
            (
                Self::Ipv4 | Self::Ipv6 | Self::User | Self::Mac | Self::Bytes,
                Cell::Integer(_) | Cell::Octets(_),
            ) => Err(self.refused(octets.len(), &cell)),
            (Self::Number(_), Cell::Octets(_)) => Err(self.refused(octets.len(), &cell)),
            _ => self.parse(&cell.text(), octets),
        }
    }

    fn refused(&self, len: usize, cell: &Cell<'_>) -> StateError {
        self.error(len, &format!("`{}`", cell.text()))
    }
}

impl Cell<'_> {
    /// As a cell of a table.
    pub fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(text) => (*text).to_owned(),
            Self::Octets(octets) => {
                octets.iter().fold("0x".to_owned(), |text, octet| text + &format!("{octet:02x}"))
            }
            Self::Address(address) => address.to_string(),
        }
    }
}
