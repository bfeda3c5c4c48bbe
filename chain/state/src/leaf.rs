//! Scalars: how the octets of one are read, printed, and parsed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::Value as Json;
use xdpchain_abi::{Ipv4, Ipv6, UserAddress};
use xdpchain_compose::btf::Name;

use crate::{StateError, Value};

/// A scalar. Its octets are as many as the type has; a bitfield's are those that it touches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Leaf {
    Number(Number),
    Ipv4,
    Ipv6,
    /// `UserAddress` of xdpchain-abi.
    User,
    Mac,
    /// `f32` or `f64`, by size.
    Float,
    /// Characters up to the first NUL.
    Text,
    Bytes,
}

/// An integer, boolean or enumeration of at most 128 bits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Number {
    pub(crate) signed: bool,
    /// Most significant octet first.
    pub(crate) big: bool,
    /// Bits below the value's.
    pub(crate) shift: u8,
    /// Bits of the value, 1 to 128; `shift + bits` is at most 128.
    pub(crate) bits: u8,
    pub(crate) meaning: Meaning,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    Plain,
    Bool,
    /// Enumerators, their values as sign-extended when the number is signed.
    Enum(Arc<[(Name, i128)]>),
}

impl Number {
    fn mask(&self) -> u128 {
        u128::MAX >> (128 - u32::from(self.bits))
    }

    fn load(&self, octets: &[u8]) -> u128 {
        let step = |raw: u128, octet: &u8| raw << 8 | u128::from(*octet);
        if self.big { octets.iter().fold(0, step) } else { octets.iter().rev().fold(0, step) }
    }

    /// The value's bits, zero-extended.
    pub(crate) fn raw(&self, octets: &[u8]) -> u128 {
        self.load(octets) >> self.shift & self.mask()
    }

    /// Sets the value's bits, and leaves the others of `octets`.
    pub(crate) fn set_raw(&self, raw: u128, octets: &mut [u8]) {
        let mask = self.mask() << self.shift;
        let all = self.load(octets) & !mask | raw << self.shift & mask;
        let len = octets.len();
        if self.big {
            octets.copy_from_slice(&all.to_be_bytes()[16 - len..]);
        } else {
            octets.copy_from_slice(&all.to_le_bytes()[..len]);
        }
    }

    /// The number, sign-extended; only for signed ones.
    fn signed(&self, raw: u128) -> i128 {
        let unused = 128 - u32::from(self.bits);
        ((raw << unused) as i128) >> unused
    }

    /// The value of bits `raw`; unsigned ones beyond `i128` wrap around.
    pub(crate) fn number_of(&self, raw: u128) -> i128 {
        if self.signed { self.signed(raw) } else { raw as i128 }
    }

    /// The bits of `value`, when it is in range.
    pub(crate) fn holds(&self, value: i128) -> Option<u128> {
        self.fit(value < 0, value.unsigned_abs())
    }

    fn value(&self, octets: &[u8]) -> Value {
        let raw = self.raw(octets);
        match &self.meaning {
            Meaning::Bool if raw <= 1 => return Value::Bool(raw == 1),
            Meaning::Enum(names) => {
                let number = self.number_of(raw);
                if let Some((name, _)) = names.iter().find(|(_, value)| *value == number) {
                    return Value::Name(name.clone());
                }
            }
            _ => {}
        }
        if self.signed { Value::Signed(self.signed(raw)) } else { Value::Unsigned(raw) }
    }

    fn parse(&self, text: &str) -> Option<u128> {
        if let Some(raw) = self.number(text) {
            return Some(raw);
        }
        match &self.meaning {
            Meaning::Bool => match text {
                "true" => Some(1),
                "false" => Some(0),
                _ => None,
            },
            Meaning::Enum(names) => {
                let exact = names.iter().find(|(name, _)| **name == *text);
                let found = exact.or_else(|| names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)));
                found.map(|(_, value)| *value as u128 & self.mask())
            }
            // An address in network byte order is written as one; C has no other type for it.
            Meaning::Plain if self.big && self.bits == 32 => {
                text.parse::<Ipv4Addr>().ok().map(|address| u128::from(u32::from(address)))
            }
            Meaning::Plain => None,
        }
    }

    /// The bits of a number in decimal or, with `0x`, hexadecimal; `None` when it is none or out of range.
    fn number(&self, text: &str) -> Option<u128> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(hex) => from_digits(hex, 16)?,
            None => from_digits(digits, 10)?,
        };
        self.fit(negative, magnitude)
    }

    /// The bits of a number when it is in range.
    fn fit(&self, negative: bool, magnitude: u128) -> Option<u128> {
        let limit = if self.signed { self.mask() >> 1 } else { self.mask() };
        if negative {
            let most = if self.signed { limit + 1 } else { 0 };
            (magnitude <= most).then(|| magnitude.wrapping_neg() & self.mask())
        } else {
            (magnitude <= limit).then_some(magnitude)
        }
    }

    fn expected(&self) -> String {
        let range = if self.signed {
            let most = (self.mask() >> 1) as i128;
            format!("{} to {most}", -most - 1)
        } else {
            format!("0 to {}", self.mask())
        };
        match &self.meaning {
            Meaning::Plain => format!("an integer from {range}"),
            Meaning::Bool => "`true` or `false`".to_owned(),
            Meaning::Enum(names) => {
                let names: Vec<_> = names.iter().take(16).map(|(name, _)| format!("`{name}`")).collect();
                format!("one of {} or an integer from {range}", names.join(", "))
            }
        }
    }
}

/// A number of ASCII digits; `None` when it is empty, has anything else, or is beyond 128 bits.
fn from_digits(text: &str, radix: u32) -> Option<u128> {
    if text.is_empty() {
        return None;
    }
    if radix == 10 && text.len() <= 19 {
        // 19 digits fit into 64 bits, and nearly every number is that short.
        let mut number = 0u64;
        for c in text.bytes() {
            let digit = c.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + u64::from(digit);
        }
        return Some(u128::from(number));
    }
    if text.starts_with('+') {
        return None;
    }
    u128::from_str_radix(text, radix).ok()
}

impl Leaf {
    /// The meaning of `octets`.
    pub(crate) fn value(&self, octets: &[u8]) -> Value {
        match self {
            Self::Number(number) => number.value(octets),
            Self::Ipv4 => Value::Address(IpAddr::V4(Ipv4Addr::from(array(octets)))),
            Self::Ipv6 => {
                let address = Ipv6Addr::from(array::<16>(octets));
                Value::Address(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
            }
            Self::User => {
                // A group's, which no user is reached by, and which is not taken when it is written as one.
                let address = Some(user(array(octets))).filter(|address| user_address(*address).is_some());
                address.map_or_else(|| Value::Bytes(octets.to_vec()), Value::Address)
            }
            Self::Mac => Value::Mac(array(octets)),
            Self::Float => {
                let number = match octets.len() {
                    // By way of the shortest text, so that 0.1 stays 0.1 among numbers of 64 bits.
                    4 => f32::from_le_bytes(array(octets)).to_string().parse().ok(),
                    _ => Some(f64::from_le_bytes(array(octets))),
                };
                // Neither JSON nor a table has words for the others, whose bits may matter.
                let finite = number.filter(|n: &f64| n.is_finite());
                finite.map_or_else(|| Value::Bytes(octets.to_vec()), Value::Float)
            }
            Self::Text => {
                let end = octets.iter().position(|b| *b == 0).unwrap_or(octets.len());
                match std::str::from_utf8(&octets[..end]) {
                    Ok(text) if octets[end..].iter().all(|b| *b == 0) => Value::Text(text.to_owned()),
                    _ => Value::Bytes(octets.to_vec()),
                }
            }
            Self::Bytes => Value::Bytes(octets.to_vec()),
        }
    }

    /// Writes what `text` means into `octets`.
    pub(crate) fn parse(&self, text: &str, octets: &mut [u8]) -> Result<(), StateError> {
        let done = match self {
            Self::Number(number) => number.parse(text).map(|raw| number.set_raw(raw, octets)),
            Self::Ipv4 => text.parse::<Ipv4Addr>().ok().map(|a| octets.copy_from_slice(&a.octets())),
            Self::Ipv6 => match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(a)) => Some(a.to_ipv6_mapped()),
                Ok(IpAddr::V6(a)) => Some(a),
                Err(_) => None,
            }
            .map(|a| octets.copy_from_slice(&a.octets())),
            Self::User => {
                let address = text.parse().ok().and_then(user_address);
                let written = address.map(|address| octets.copy_from_slice(&address.octets));
                written.or_else(|| hex(text, octets, true))
            }
            Self::Mac => mac(text, octets),
            Self::Float => float(text, octets),
            Self::Text => hex(text, octets, true).or_else(|| {
                let fits = text.len() <= octets.len() && !text.contains('\0');
                fits.then(|| {
                    octets.fill(0);
                    octets[..text.len()].copy_from_slice(text.as_bytes());
                })
            }),
            Self::Bytes => {
                let as_mac = if octets.len() == 6 { mac(text, octets) } else { None };
                as_mac.or_else(|| hex(text, octets, false))
            }
        };
        done.ok_or_else(|| self.error(octets.len(), &format!("`{text}`")))
    }

    /// Writes what `json` means into `octets`.
    pub(crate) fn parse_json(&self, json: &Json, octets: &mut [u8]) -> Result<(), StateError> {
        match (json, self) {
            (Json::String(text), _) => self.parse(text, octets),
            (Json::Bool(b), Self::Number(n)) if matches!(n.meaning, Meaning::Bool) => {
                n.set_raw(u128::from(*b), octets);
                Ok(())
            }
            // A number's own text keeps what its JSON form has, e.g. `1.5` for an integer, to be refused.
            (Json::Number(number), Self::Number(_) | Self::Float) => self.parse(&number.to_string(), octets),
            (Json::Array(list), Self::Bytes | Self::Mac | Self::Text) if list.len() == octets.len() => {
                for (octet, json) in octets.iter_mut().zip(list) {
                    let number = json.as_u64().and_then(|n| u8::try_from(n).ok());
                    *octet = number.ok_or_else(|| self.error(list.len(), &format!("`{json}`")))?;
                }
                Ok(())
            }
            (Json::Array(list), _) => Err(self.error(octets.len(), &format!("a list of {}", list.len()))),
            (Json::Object(_), _) => Err(self.error(octets.len(), "an object")),
            (json, _) => Err(self.error(octets.len(), &format!("`{json}`"))),
        }
    }

    /// Whether values of several CPUs add up to one.
    pub(crate) fn countable(&self) -> Option<&Number> {
        match self {
            Self::Number(n) if !n.big && matches!(n.meaning, Meaning::Plain) => Some(n),
            _ => None,
        }
    }

    /// That `found` is nothing that the scalar, of `len` octets, can be.
    pub(crate) fn error(&self, len: usize, found: &str) -> StateError {
        let (expected, help) = match self {
            Self::Number(number) => (number.expected(), "numbers are decimal, or hexadecimal with `0x`"),
            Self::Ipv4 => ("an IPv4 address".to_owned(), "write it as 192.0.2.1"),
            Self::Ipv6 => ("an IPv6 or IPv4 address".to_owned(), "write it as 2001:db8::1 or 192.0.2.1"),
            Self::User => (
                "an IPv4 address or an IPv6 prefix of 64 bits".to_owned(),
                "write it as 192.0.2.1 or 2001:db8:0:1::",
            ),
            Self::Mac => ("a link-layer address".to_owned(), "write it as 02:00:00:00:00:01"),
            Self::Float => ("a number".to_owned(), "write it as 1.5"),
            Self::Text => (format!("a text of at most {len} octets"), "make it shorter"),
            Self::Bytes => {
                (format!("{len} octets in hexadecimal"), "write two digits for each octet, as 0x00ff")
            }
        };
        StateError::Field { path: String::new(), expected, found: found.to_owned(), help }
    }
}

/// The address that a user is reached by; the lower half of one of IPv6 is zero.
fn user(octets: [u8; 8]) -> IpAddr {
    match octets {
        [a, b, c, d, rest @ ..] if [a, b, c, d] == UserAddress::V4 => IpAddr::from(rest),
        _ => IpAddr::from(u128::from(u64::from_be_bytes(octets)).wrapping_shl(64).to_be_bytes()),
    }
}

/// What the user with this address is reached by; none for an IPv6 address that is not the first of its /64, or a group's.
pub(crate) fn user_address(address: IpAddr) -> Option<UserAddress> {
    match address.to_canonical() {
        IpAddr::V4(address) => Some(UserAddress::v4(Ipv4 { octets: address.octets() })),
        IpAddr::V6(address) => {
            let first = address.octets()[8..] == [0; 8] && !address.is_multicast();
            first.then(|| UserAddress::v6(Ipv6 { octets: address.octets() }))
        }
    }
}

fn array<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(octets);
    out
}

/// Hexadecimal octets, exactly as many as `octets` has. `None` leaves `octets` in any state.
fn hex(text: &str, octets: &mut [u8], prefix_required: bool) -> Option<()> {
    let digits = match text.strip_prefix("0x") {
        Some(digits) => digits,
        None if prefix_required => return None,
        None => text,
    };
    if digits.len() != octets.len() * 2 {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *octet = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(())
}

fn mac(text: &str, octets: &mut [u8]) -> Option<()> {
    let mut parts = text.split([':', '-']);
    for octet in octets.iter_mut() {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(())
}

fn float(text: &str, octets: &mut [u8]) -> Option<()> {
    if text.starts_with("0x") {
        return hex(text, octets, true);
    }
    match octets.len() {
        4 => {
            let number = text.parse::<f32>().ok().filter(|n| n.is_finite())?;
            octets.copy_from_slice(&number.to_le_bytes());
        }
        _ => {
            let number = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
            octets.copy_from_slice(&number.to_le_bytes());
        }
    }
    Some(())
}
