//! A value of a database, and what of it a field is.

use std::borrow::Cow;
use std::net::IpAddr;

use xdpchain_spec::Cast;
use xdpchain_state::Cell;

/// A value as a database gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// Octets.
    Octets(&'a [u8]),
    /// An address and the length of a prefix.
    Network(IpAddr, u8),
    /// A value of a type that no field can be; its name.
    Other(Cow<'a, str>),
}

/// The length of a whole address.
fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Datum<'_> {
    /// What a field with this cast is; or why it is nothing.
    pub(crate) fn cell(&self, cast: Cast) -> Result<Cell<'_>, String> {
        match cast {
            Cast::None => self.plain(),
            Cast::Address => self.network().map(|(address, _)| Cell::Address(address)),
            Cast::PrefixLength => self.network().map(|(_, length)| Cell::Integer(length.into())),
        }
    }

    fn plain(&self) -> Result<Cell<'_>, String> {
        Ok(match self {
            Self::Null => return Err("null".to_owned()),
            Self::Bool(value) => Cell::Bool(*value),
            Self::Integer(number) => Cell::Integer(*number),
            Self::Float(number) => Cell::Float(*number),
            Self::Text(text) => Cell::Text(text),
            Self::Octets(octets) => Cell::Octets(octets),
            Self::Network(address, length) if *length == whole(*address) => Cell::Address(*address),
            Self::Network(address, length) => {
                return Err(format!("`{address}/{length}` is a network; `cast: address` takes its address"));
            }
            Self::Other(name) => return Err(format!("a value of type `{name}`, which no field can be")),
        })
    }

    fn network(&self) -> Result<(IpAddr, u8), String> {
        let bad = |text: &str| format!("`{text}` is no address and no network");
        match self {
            Self::Network(address, length) => Ok((*address, *length)),
            Self::Text(text) => {
                let text = text.trim();
                let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
                let address: IpAddr = address.parse().map_err(|_| bad(text))?;
                let length = match length {
                    None => whole(address),
                    Some(digits) => {
                        let length = digits.parse().ok().filter(|l| *l <= whole(address));
                        length
                            .filter(|_| digits.bytes().all(|c| c.is_ascii_digit()))
                            .ok_or_else(|| bad(text))?
                    }
                };
                Ok((address, length))
            }
            Self::Integer(number) => {
                let address = u32::try_from(*number).map_err(|_| bad(&number.to_string()))?;
                Ok((IpAddr::from(address.to_be_bytes()), 32))
            }
            Self::Octets(octets) => {
                let four = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                let address = four.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
                address
                    .map(|address| (address, whole(address)))
                    .map_err(|_| bad(&Cell::Octets(octets).text()))
            }
            other => Err(match other.plain() {
                Ok(cell) => bad(&cell.text()),
                Err(why) => why,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Datum<'_> {
        Datum::Text(text.into())
    }

    #[test]
    fn a_network_gives_its_address_and_its_length() {
        for (datum, address, length) in [
            (text("10.1.0.0/16"), "10.1.0.0", 16),
            (text(" 10.1.2.3 "), "10.1.2.3", 32),
            (text("2001:db8::/56"), "2001:db8::", 56),
            (Datum::Network([10, 0, 0, 1].into(), 8), "10.0.0.1", 8),
            (Datum::Integer(0xc000_0201), "192.0.2.1", 32),
            (Datum::Octets(&[192, 0, 2, 1]), "192.0.2.1", 32),
        ] {
            assert_eq!(datum.cell(Cast::Address), Ok(Cell::Address(address.parse().unwrap())));
            assert_eq!(datum.cell(Cast::PrefixLength), Ok(Cell::Integer(length)));
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "10.0.0", "2001:db8::/129", "x/8"] {
            assert!(text(bad).cell(Cast::Address).is_err(), "{bad}");
        }
        for bad in
            [Datum::Null, Datum::Bool(true), Datum::Integer(-1), Datum::Integer(1 << 32), Datum::Octets(&[1])]
        {
            assert!(bad.cell(Cast::PrefixLength).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_network_is_no_address_by_itself() {
        assert!(Datum::Network([10, 0, 0, 0].into(), 8).cell(Cast::None).is_err());
        let host = Datum::Network([10, 0, 0, 1].into(), 32);
        assert_eq!(host.cell(Cast::None), Ok(Cell::Address([10, 0, 0, 1].into())));
        assert_eq!(Datum::Null.cell(Cast::None), Err("null".to_owned()));
    }
}
