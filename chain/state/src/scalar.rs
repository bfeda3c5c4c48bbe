//! A scalar's step from one type to another: what fits, and how its octets become those of the other.

use crate::Value;
use crate::leaf::{Leaf, Meaning, Number, user_address};
use crate::row::Cell;

/// Carries one scalar over; none when the new type cannot hold it.
pub(crate) fn carry(from: &Leaf, old: &[u8], to: &Leaf, new: &mut [u8]) -> Option<()> {
    match (from, to) {
        (Leaf::Number(from), Leaf::Number(to)) => {
            let raw = to.raw_of(from, from.raw(old))?;
            to.set_raw(raw, new);
            Some(())
        }
        (Leaf::Float, Leaf::Float) if old.len() == 4 => {
            let number = f32::from_le_bytes(old.try_into().ok()?);
            new.copy_from_slice(&f64::from(number).to_le_bytes());
            Some(())
        }
        (Leaf::Float, Leaf::Float) => {
            let number = f64::from_le_bytes(old.try_into().ok()?);
            let narrow = number as f32;
            new.copy_from_slice(&narrow.to_le_bytes());
            (f64::from(narrow).to_bits() == number.to_bits()).then_some(())
        }
        (Leaf::Ipv4, Leaf::Ipv6) => {
            new[10..12].fill(0xff);
            new[12..].copy_from_slice(old);
            Some(())
        }
        (Leaf::Ipv4 | Leaf::Ipv6, Leaf::User) => {
            let Value::Address(address) = from.value(old) else { return None };
            new.copy_from_slice(&user_address(address)?.octets);
            Some(())
        }
        (Leaf::User, Leaf::Ipv4 | Leaf::Ipv6) => {
            let Value::Address(address) = from.value(old) else { return None };
            to.set(Cell::Address(address), new).ok()
        }
        (Leaf::Ipv6, Leaf::Ipv4) => {
            let mapped = old[..10].iter().all(|octet| *octet == 0) && old[10..12] == [0xff; 2];
            new.copy_from_slice(&old[12..]);
            mapped.then_some(())
        }
        _ => {
            // Octets without a meaning, and texts: the end may be cut off where it is zeros.
            let len = old.len().min(new.len());
            new[..len].copy_from_slice(&old[..len]);
            old[len..].iter().all(|octet| *octet == 0).then_some(())
        }
    }
}

impl Number {
    /// The bits of another number's value `raw`; none when this one cannot hold it. Enumerators go by their names.
    fn raw_of(&self, other: &Self, raw: u128) -> Option<u128> {
        if let (Meaning::Enum(old), Meaning::Enum(new)) = (&other.meaning, &self.meaning) {
            let value = other.number_of(raw);
            return match old.iter().find(|(_, v)| *v == value) {
                Some((name, _)) => {
                    let (_, value) = new.iter().find(|(n, _)| n == name)?;
                    self.holds(*value)
                }
                None if new.iter().any(|(_, v)| *v == value) => None,
                None => self.holds(value),
            };
        }
        if !other.signed && raw > i128::MAX as u128 {
            // Only where both have 128 bits.
            return (!self.signed && self.bits == 128).then_some(raw);
        }
        let value = other.number_of(raw);
        match self.meaning {
            Meaning::Bool if !(0..=1).contains(&value) && !matches!(other.meaning, Meaning::Bool) => None,
            _ => self.holds(value),
        }
    }
}

/// Whether every value of the old scalar is one of the new; none when no value is.
pub(crate) fn fits(old: &Leaf, old_size: usize, new: &Leaf, new_size: usize) -> Option<bool> {
    use Leaf::{Bytes, Float, Ipv4, Ipv6, Mac, Text, User};
    let octets = |leaf: &Leaf, size| match leaf {
        Bytes | Text | Mac | Ipv6 | Ipv4 | User => true,
        // How C writes an IPv4 address.
        Leaf::Number(n) => n.big && n.bits == 32 && size == 4,
        Float => false,
    };
    match (old, new) {
        (Leaf::Number(a), Leaf::Number(b)) => Some(b.holds_all_of(a)),
        (Float, Float) => Some(old_size <= new_size),
        (Ipv4, Ipv6) => Some(true),
        (Ipv6, Ipv4 | User) | (User, Ipv4) => Some(false),
        (Ipv4, User) | (User, Ipv6) => Some(true),
        (Text, Text) | (Bytes, Bytes) | (Text, Bytes) | (Bytes, Text) => Some(old_size <= new_size),
        _ if octets(old, old_size) && octets(new, new_size) && old_size == new_size => Some(true),
        _ => None,
    }
}

impl Number {
    fn holds_all_of(&self, other: &Self) -> bool {
        match (&other.meaning, &self.meaning) {
            (Meaning::Enum(old), Meaning::Enum(new)) => {
                self.bits >= other.bits && old.iter().all(|(name, _)| new.iter().any(|(n, _)| n == name))
            }
            (_, Meaning::Bool) => matches!(other.meaning, Meaning::Bool),
            (Meaning::Bool, _) => self.bits > 1 || !self.signed,
            _ => match (other.signed, self.signed) {
                (true, false) => false,
                (false, true) => self.bits > other.bits,
                _ => self.bits >= other.bits,
            },
        }
    }
}

/// A scalar's type in words.
pub(crate) fn type_name(leaf: &Leaf, size: usize) -> String {
    match leaf {
        Leaf::Number(n) => match (&n.meaning, n.big) {
            (Meaning::Bool, _) => "bool".to_owned(),
            (Meaning::Enum(_), _) => format!("an enumeration of {} bits", n.bits),
            (Meaning::Plain, true) => format!("be{}", n.bits),
            (Meaning::Plain, false) => format!("{}{}", if n.signed { "i" } else { "u" }, n.bits),
        },
        Leaf::Ipv4 => "an IPv4 address".to_owned(),
        Leaf::Ipv6 => "an IPv6 address".to_owned(),
        Leaf::User => "an IPv4 address or an IPv6 prefix of 64 bits".to_owned(),
        Leaf::Mac => "a link-layer address".to_owned(),
        Leaf::Float => format!("f{}", size * 8),
        Leaf::Text => format!("a text of {size}"),
        Leaf::Bytes => format!("{size} octets"),
    }
}
