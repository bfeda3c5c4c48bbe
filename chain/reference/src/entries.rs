//! Entries of maps as fixtures write them, to the tables.
//!
//! Fields that are not named are zero; a field that the type does not have is an error, never left out.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};
use xdpchain_abi::{
    AclConfig, AclRule, Address6, Be32, Customer, DenseSession, DownlinkKey, DownlinkSession, EncapConfig,
    Endpoint, Endpoint6, FilterKey, FilterRule, GreIngress, GreKey, GreTunnel, Inside6, Ipv4, Ipv6,
    PacketContext, Peer6, Reason, UplinkKey, UplinkSession, UserAddress, direction,
};
use xdpchain_golden::{Entry, Fixture};

use crate::{Module, ReferenceError, Tables};

/// What an entry is made of.
trait Decode: Sized {
    fn decode(value: &Value) -> Result<Self, String>;
}

fn number(value: &Value, bits: u32) -> Result<u64, String> {
    let number = value.as_u64().ok_or_else(|| format!("`{value}` is no number"))?;
    if number >> bits == 0 { Ok(number) } else { Err(format!("{number} does not fit {bits} bits")) }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("`{value}` is no text"))
}

impl Decode for u8 {
    fn decode(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("none") => Ok(direction::NONE),
            Some("uplink") => Ok(direction::UPLINK),
            Some("downlink") => Ok(direction::DOWNLINK),
            _ => Ok(number(value, 8)? as Self),
        }
    }
}

impl Decode for u16 {
    fn decode(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(name) => match Reason::ALL.iter().find(|reason| reason.name() == name) {
                Some(reason) => Ok(*reason as Self),
                None => Err(format!("no reason is called `{name}`")),
            },
            None => Ok(number(value, 16)? as Self),
        }
    }
}

impl Decode for u32 {
    fn decode(value: &Value) -> Result<Self, String> {
        Ok(number(value, 32)? as Self)
    }
}

impl Decode for Be32 {
    fn decode(value: &Value) -> Result<Self, String> {
        Ok(Self::new(number(value, 32)? as u32))
    }
}

impl Decode for Ipv4 {
    fn decode(value: &Value) -> Result<Self, String> {
        let text = text(value)?;
        let address: Ipv4Addr = text.parse().map_err(|_| format!("`{text}` is no IPv4 address"))?;
        Ok(Self { octets: address.octets() })
    }
}

impl Decode for Ipv6 {
    fn decode(value: &Value) -> Result<Self, String> {
        if let Ok(address) = Ipv4::decode(value) {
            return Ok(Self::mapped(address));
        }
        let text = text(value)?;
        let address: Ipv6Addr = text.parse().map_err(|_| format!("`{text}` is no IP address"))?;
        Ok(Self { octets: address.octets() })
    }
}

impl Decode for UserAddress {
    fn decode(value: &Value) -> Result<Self, String> {
        match Ipv4::decode(value) {
            Ok(address) => Ok(Self::v4(address)),
            Err(_) => {
                let address = Ipv6::decode(value)?;
                let first = address.octets[8..] == [0; 8];
                first
                    .then(|| Self::v6(address))
                    .ok_or_else(|| format!("`{value}` is not the first address of a /64"))
            }
        }
    }
}

impl<T: Decode + Copy + Default, const N: usize> Decode for [T; N] {
    fn decode(value: &Value) -> Result<Self, String> {
        let values = value.as_array().ok_or_else(|| format!("`{value}` is no list"))?;
        if values.len() != N {
            return Err(format!("a list of {N} is expected"));
        }
        let mut all = [T::default(); N];
        for (to, value) in all.iter_mut().zip(values) {
            *to = T::decode(value)?;
        }
        Ok(all)
    }
}

macro_rules! decoded {
    ($($name:ident { $($field:ident)+ })+) => {$(
        impl Decode for $name {
            fn decode(value: &Value) -> Result<Self, String> {
                let fields = value.as_object().ok_or(concat!("a ", stringify!($name), " is written as its fields"))?;
                let mut decoded = Self::default();
                for (name, value) in fields {
                    match name.as_str() {
                        $(stringify!($field) => {
                            decoded.$field = Decode::decode(value).map_err(|problem| format!("{name}: {problem}"))?;
                        })+
                        _ => return Err(format!(concat!(stringify!($name), " has no field `{}`"), name)),
                    }
                }
                Ok(decoded)
            }
        }
    )+};
}

decoded! {
    PacketContext {
        customer session tunnel inner_len reason direction qfi has_qfi verdict outer_tos ended
    }
    Endpoint { flags }
    Endpoint6 { flags alias }
    Peer6 { alias flags }
    Address6 { address flags }
    UplinkKey { local teid }
    UplinkSession { customer session peer inner4 inner6 inner6_len flags vlan tags filter }
    DenseSession { local teid customer session peer inner4 inner6 inner6_len flags vlan tags filter }
    FilterKey { filter rule }
    FilterRule { dst dst_port dst_len protocol }
    DownlinkKey { customer address }
    DownlinkSession { session teid peer local qfi flags dscp }
    GreKey { remote local }
    GreIngress { customer tunnel key inside inside_len flags }
    Inside6 { prefix len }
    Customer { tunnels count }
    GreTunnel { local remote key ttl flags dscp }
    EncapConfig { not_found inner_multicast mss_clamp }
    AclRule { src dst customer src_port dst_port src_len dst_len protocol action flags direction }
    AclConfig { default_action all_packets }
}

/// The tables that a fixture fills. Its maps are those of `alone`, or named with their modules.
///
/// # Errors
/// [`ReferenceError`] for a map or a field that there is none of, and for values that do not fit.
pub fn tables(fixture: &Fixture, alone: Option<Module>) -> Result<Tables, ReferenceError> {
    let mut tables = Tables::default();
    for (name, entries) in &fixture.maps {
        let (module, map) = match (name.split_once('/'), alone) {
            (Some((module, map)), _) => (Module::named(module), map),
            (None, alone) => (alone, name.as_str()),
        };
        let unknown = || ReferenceError::NoSuchMap { map: name.clone() };
        let filled = tables.fill(module.ok_or_else(unknown)?, map, entries);
        match filled {
            Some(Ok(())) => {}
            Some(Err(problem)) => return Err(ReferenceError::Entry { map: name.clone(), problem }),
            None => return Err(unknown()),
        }
    }
    Ok(tables)
}

/// The packet context that a fixture begins with.
///
/// # Errors
/// [`ReferenceError`] for fields that there are none of.
pub fn context(fields: &Map<String, Value>) -> Result<PacketContext, ReferenceError> {
    PacketContext::decode(&Value::Object(fields.clone()))
        .map_err(|problem| ReferenceError::Context { problem })
}

impl Tables {
    /// Puts entries into a map; none when there is no such map.
    pub fn fill(&mut self, module: Module, map: &str, entries: &[Entry]) -> Option<Result<(), String>> {
        Some(match (module, map) {
            (Module::GtpDecap, "endpoints") => put(entries, |k, v| _ = self.endpoints.insert(k, v)),
            (Module::GtpDecap, "endpoints6") => put(entries, |k, v| _ = self.endpoints6.insert(k, v)),
            (Module::GtpDecap, "peers6") => put(entries, |k, v| _ = self.peers6.insert(k, v)),
            (Module::GtpDecap, "sessions") => put(entries, |k, v| _ = self.uplink.insert(k, v)),
            (Module::GtpDecap, "sessions_dense") => put(entries, |k, v| _ = self.dense.insert(k, v)),
            (Module::GtpDecap, "filters") => put(entries, |k, v| _ = self.filters.insert(k, v)),
            (Module::GreDecap, "tunnels") => put(entries, |k, v| _ = self.ingress.insert(k, v)),
            (Module::GreDecap, "inside6") => put(entries, |k, v| _ = self.inside6.insert(k, v)),
            (Module::GreDecap, "addresses6") => put(entries, |k, v| _ = self.ends6.insert(k, v)),
            (Module::Acl, "rules") => put(entries, |k, v| _ = self.rules.insert(k, v)),
            (Module::Acl, "config") => put(entries, |_: u32, v| self.acl = v),
            (Module::GreSteer, "customers") => put(entries, |k, v| _ = self.customers.insert(k, v)),
            (Module::GreSteer | Module::GtpEncap, "tunnels") => {
                put(entries, |k, v| _ = self.tunnels.insert(k, v))
            }
            (Module::GreSteer, "config") => put(entries, |_: u32, v| self.steer = v),
            (Module::GtpEncap | Module::GreSteer, "sessions") => {
                put(entries, |k, v| _ = self.downlink.insert(k, v))
            }
            (Module::GtpEncap | Module::GreSteer, "addresses6") => {
                put(entries, |k, v| _ = self.addresses6.insert(k, v))
            }
            (Module::GtpEncap, "config") => put(entries, |_: u32, v| self.encap = v),
            // Counters decide nothing.
            (Module::Acl, "hits") | (Module::Stats, _) => Ok(()),
            _ => return None,
        })
    }
}

fn put<K: Decode, V: Decode>(entries: &[Entry], mut each: impl FnMut(K, V)) -> Result<(), String> {
    for entry in entries {
        let failed = |problem| format!("at {}: {problem}", entry.key);
        each(K::decode(&entry.key).map_err(failed)?, V::decode(&entry.value).map_err(failed)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(maps: &str) -> Fixture {
        let text = format!("description: x\nmaps: {maps}\ninput: '00'\nexpect: {{ verdict: pass }}\n");
        Fixture::parse(&text).expect("a fixture")
    }

    #[test]
    fn entries_are_read_by_the_names_of_their_fields() {
        let maps =
            "{ gtp-decap/sessions: [ { key: { local: 192.0.2.1, teid: 0x101 }, value: { session: 7 } } ] }";
        let tables = tables(&fixture(maps), None).expect("tables");
        let key = UplinkKey { local: Ipv4 { octets: [192, 0, 2, 1] }, teid: Be32::new(0x101) };
        assert_eq!(tables.uplink[&key].session, 7);
        let maps = "{ rules: [ { key: 3, value: { src: 10.0.0.1, direction: uplink, dst_port: [1, 2] } } ] }";
        let tables = super::tables(&fixture(maps), Some(Module::Acl)).expect("tables");
        assert_eq!((tables.rules[&3].direction, tables.rules[&3].dst_port), (1, [1, 2]));
    }

    #[test]
    fn nothing_that_is_written_is_left_out() {
        for (maps, said) in [
            ("{ acl/rule: [] }", "no map `acl/rule`"),
            ("{ sampler/rules: [] }", "no map `sampler/rules`"),
            ("{ acl/rules: [ { key: 1, value: { sorce: 1 } } ] }", "AclRule has no field `sorce`"),
            ("{ acl/rules: [ { key: 1, value: { protocol: 256 } } ] }", "protocol: 256 does not fit 8 bits"),
            ("{ acl/rules: [ { key: x, value: {} } ] }", "`\"x\"` is no number"),
        ] {
            let error = tables(&fixture(maps), None).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("\nhelp: "), "{error}");
        }
    }
}
