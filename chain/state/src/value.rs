//! A decoded key or value.

use std::net::IpAddr;

use xdpchain_compose::btf::Name;

/// A value with its meaning. What is printed of it can be read again by the codec that it came from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// An unsigned number.
    Unsigned(u128),
    /// A signed number.
    Signed(i128),
    /// True or false.
    Bool(bool),
    /// A finite floating-point number.
    Float(f64),
    /// An IP address; an IPv4-mapped IPv6 address is the IPv4 address.
    Address(IpAddr),
    /// A link-layer address.
    Mac([u8; 6]),
    /// A string of characters.
    Text(String),
    /// The name of an enumerator.
    Name(Name),
    /// Octets without a meaning.
    Bytes(Vec<u8>),
    /// The elements of an array.
    List(Vec<Value>),
    /// The fields of a struct, in the order of their offsets.
    Struct(Vec<(Name, Value)>),
}

impl From<Value> for serde_json::Value {
    /// Numbers beyond 64 bits, addresses and octets become strings.
    fn from(value: Value) -> Self {
        match value {
            Value::Unsigned(n) => u64::try_from(n).map_or_else(|_| n.to_string().into(), Self::from),
            Value::Signed(n) => i64::try_from(n).map_or_else(|_| n.to_string().into(), Self::from),
            Value::Bool(b) => b.into(),
            Value::Float(f) => f.into(),
            Value::List(list) => list.into_iter().map(Self::from).collect::<Vec<_>>().into(),
            Value::Struct(fields) => Self::Object(
                fields.into_iter().map(|(name, value)| (name.to_string(), Self::from(value))).collect(),
            ),
            Value::Text(text) => text.into(),
            scalar => scalar.to_string().into(),
        }
    }
}

impl std::fmt::Display for Value {
    /// A scalar as it stands in a table or CSV cell; lists with spaces between; structs as JSON.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsigned(n) => n.fmt(f),
            Self::Signed(n) => n.fmt(f),
            Self::Bool(b) => b.fmt(f),
            Self::Float(x) => x.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Mac([a, b, c, d, e, g]) => write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
            Self::Text(text) => f.write_str(text),
            Self::Name(name) => f.write_str(name),
            Self::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
            Self::List(list) => list.iter().enumerate().try_for_each(|(i, value)| {
                if i > 0 {
                    f.write_str(" ")?;
                }
                value.fmt(f)
            }),
            Self::Struct(_) => serde_json::Value::from(self.clone()).fmt(f),
        }
    }
}
