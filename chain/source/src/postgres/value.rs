//! Values as PostgreSQL sends them in binary.

use std::error::Error;
use std::net::IpAddr;

use tokio_postgres::types::{FromSql, Kind, Type};

use crate::{Datum, RowKey};

type Decoded<'a> = Result<Datum<'a>, Box<dyn Error + Sync + Send>>;

impl<'a> FromSql<'a> for Datum<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Decoded<'a> {
        let text = || Ok(Datum::Text(std::str::from_utf8(raw)?.into()));
        match ty.kind() {
            Kind::Domain(base) => return Self::from_sql(base, raw),
            Kind::Enum(_) => return text(),
            _ => {}
        }
        Ok(match *ty {
            Type::BOOL => Datum::Bool(raw.first() == Some(&1)),
            Type::INT2 => Datum::Integer(i16::from_be_bytes(raw.try_into()?).into()),
            Type::INT4 => Datum::Integer(i32::from_be_bytes(raw.try_into()?).into()),
            Type::INT8 => Datum::Integer(i64::from_be_bytes(raw.try_into()?).into()),
            Type::OID => Datum::Integer(u32::from_be_bytes(raw.try_into()?).into()),
            Type::FLOAT4 => Datum::Float(f32::from_be_bytes(raw.try_into()?).into()),
            Type::FLOAT8 => Datum::Float(f64::from_be_bytes(raw.try_into()?)),
            Type::NUMERIC => numeric(raw)?,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => return text(),
            Type::INET | Type::CIDR => network(raw)?,
            Type::MACADDR | Type::MACADDR8 | Type::UUID | Type::BYTEA => Datum::Octets(raw),
            _ if ty.name() == "citext" => return text(),
            _ => Datum::Other(ty.name().to_owned().into()),
        })
    }

    fn from_sql_null(_: &Type) -> Decoded<'a> {
        Ok(Datum::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Family, bits, whether it is a `cidr`, octets of the address, and these.
fn network(raw: &[u8]) -> Decoded<'_> {
    let [_, bits, _, _, octets @ ..] = raw else { return Err("a network of under four octets".into()) };
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))?;
    Ok(Datum::Network(address, *bits))
}

/// Digits to the base 10000, how many groups of them stand before the point, sign, digits to show behind it, and the groups.
fn numeric(raw: &[u8]) -> Decoded<'_> {
    const NEGATIVE: u16 = 0x4000;
    let words: Vec<u16> = raw.as_chunks().0.iter().map(|two| u16::from_be_bytes(*two)).collect();
    let [count, weight, sign, scale, groups @ ..] = &words[..] else {
        return Err("a number of under four words".into());
    };
    if groups.len() != usize::from(*count) || groups.iter().any(|group| *group > 9999) {
        return Err("a number with other digits than it says".into());
    }
    if *sign & !NEGATIVE != 0 {
        return Ok(Datum::Other("numeric, not a number".into()));
    }
    let before = i32::from(*weight as i16) + 1;
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let negative = *sign == NEGATIVE;
    if (before..groups.len() as i32).all(|at| group(at) == 0) {
        let number = (0..before)
            .try_fold(0_i128, |number, at| number.checked_mul(10_000)?.checked_add(group(at).into()));
        if let Some(number) = number {
            return Ok(Datum::Integer(if negative { -number } else { number }));
        }
    }
    let mut text = if negative { "-".to_owned() } else { String::new() };
    let whole: String = (0..before).map(|at| format!("{:04}", group(at))).collect();
    let whole = whole.trim_start_matches('0');
    text.push_str(if whole.is_empty() { "0" } else { whole });
    let behind = i32::from(*scale).div_euclid(4) + 1;
    let mut digits: String = (before..before + behind).map(|at| format!("{:04}", group(at))).collect();
    digits.truncate(usize::from(*scale));
    if !digits.is_empty() {
        text.push('.');
        text.push_str(&digits);
    }
    Ok(Datum::Text(text.into()))
}

/// A key as PostgreSQL reads it from text, in a column of type `ty`.
pub(crate) fn key_text(key: &RowKey, ty: &str) -> String {
    match key {
        // UUIDs and link-layer addresses are written without anything in front.
        RowKey::Octets(_) => key.to_string().replacen("0x", if ty == "bytea" { "\\x" } else { "" }, 1),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(words: &[u16]) -> Datum<'static> {
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        match numeric(&raw).unwrap() {
            Datum::Text(text) => Datum::Text(text.into_owned().into()),
            Datum::Integer(number) => Datum::Integer(number),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_of_any_length_are_read() {
        assert_eq!(number(&[0, 0, 0, 0]), Datum::Integer(0));
        assert_eq!(number(&[2, 1, 0, 0, 1, 2345]), Datum::Integer(12_345));
        assert_eq!(number(&[1, 1, 0x4000, 0, 1]), Datum::Integer(-10_000));
        assert_eq!(number(&[2, 0, 0, 2, 1, 5000]), Datum::Text("1.50".into()));
        assert_eq!(number(&[1, 0xffff, 0x4000, 3, 1230]), Datum::Text("-0.123".into()));
        assert_eq!(number(&[1, 9, 0, 0, 1]), Datum::Integer(10_i128.pow(36)));
        assert!(matches!(number(&[1, 10, 0, 0, 1]), Datum::Text(text) if text.len() == 41));
        assert!(numeric(&[0, 1, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
