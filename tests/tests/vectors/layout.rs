//! How the fields that a fixture names lie in memory.
//!
//! Written out again, field by field, so that a fixture also notices when a type of `xdpchain-abi` changes under the
//! programs and user space at once.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};
use xdpchain_abi::Reason;

/// Types by name: `field:kind` in order, `_:n` for padding of n octets; a bare kind is no struct. `u32x4` is an array.
const TYPES: &[(&str, &str)] = &[
    (
        "PacketContext",
        "customer:u32 session:u32 tunnel:u32 inner_len:u16 reason:reason direction:direction qfi:u8 has_qfi:u8 \
         verdict:u8 outer_tos:u8 ended:u8 _:10",
    ),
    ("UplinkKey", "local:ip4 teid:be32"),
    (
        "UplinkSession",
        "customer:u32 session:u32 peer:ip4 inner4:ip4 inner6_len:u8 flags:u8 vlan:u16 tags:u8 _:1 filter:u16 inner6:ip6",
    ),
    (
        "DenseSession",
        "local:ip4 teid:be32 customer:u32 session:u32 peer:ip4 inner4:ip4 inner6_len:u8 flags:u8 vlan:u16 tags:u8 _:1 \
         filter:u16 inner6:ip6",
    ),
    ("DownlinkKey", "customer:u32 address:user"),
    ("DownlinkSession", "session:u32 teid:be32 peer:ip4 local:ip4 qfi:u8 flags:u8 dscp:u8 _:1"),
    ("Endpoint", "flags:u32"),
    ("Endpoint6", "flags:u32 alias:ip4"),
    ("Peer6", "alias:ip4 flags:u32"),
    ("Address6", "address:ip6 flags:u32"),
    ("FilterKey", "filter:u16 rule:u16"),
    ("FilterRule", "dst:ip6 dst_port:u16x2 dst_len:u8 protocol:u8 _:2"),
    ("GreKey", "remote:ip4 local:ip4"),
    ("GreIngress", "customer:u32 tunnel:u32 key:be32 inside:ip4 inside_len:u8 flags:u8 _:2"),
    ("Inside6", "prefix:ip6 len:u8 _:3"),
    ("EncapConfig", "not_found:u8 inner_multicast:u8 mss_clamp:u16 _:4"),
    ("Customer", "tunnels:u32x4 count:u32"),
    ("GreTunnel", "local:ip4 remote:ip4 key:be32 ttl:u8 flags:u8 dscp:u8 _:1"),
    (
        "AclRule",
        "src:ip6 dst:ip6 customer:u32 src_port:u16x2 dst_port:u16x2 src_len:u8 dst_len:u8 protocol:u8 action:u8 \
         flags:u32 direction:direction _:3",
    ),
    ("AclConfig", "default_action:u8 all_packets:u8 _:6"),
    ("CustomerKey", "customer:u32 direction:u32"),
    ("Counter", "packets:u64 bytes:u64"),
    ("CustomerCounters", "uplink_packets:u64 uplink_bytes:u64 downlink_packets:u64 downlink_bytes:u64"),
    ("SessionCounters", "uplink_packets:u64 uplink_bytes:u64 downlink_packets:u64 downlink_bytes:u64"),
    ("u32", "u32"),
    ("u64", "u64"),
    ("Ipv4", "ip4"),
    ("Ipv6", "ip6"),
];

/// Types of keys and values: program, map, key, value.
const MAPS: &[(&str, &str, &str, &str)] = &[
    ("gtp-decap", "sessions", "UplinkKey", "UplinkSession"),
    ("gtp-decap", "sessions_dense", "u32", "DenseSession"),
    ("gtp-decap", "endpoints", "Ipv4", "Endpoint"),
    ("gtp-decap", "endpoints6", "Ipv6", "Endpoint6"),
    ("gtp-decap", "peers6", "Ipv6", "Peer6"),
    ("gtp-decap", "filters", "FilterKey", "FilterRule"),
    ("gtp-encap", "sessions", "DownlinkKey", "DownlinkSession"),
    ("gtp-encap", "config", "u32", "EncapConfig"),
    ("gtp-encap", "addresses6", "Ipv4", "Address6"),
    ("gtp-encap", "tunnels", "u32", "GreTunnel"),
    ("gre-steer", "config", "u32", "EncapConfig"),
    ("gre-decap", "tunnels", "GreKey", "GreIngress"),
    ("gre-decap", "inside6", "u32", "Inside6"),
    ("gre-decap", "addresses6", "Ipv6", "Peer6"),
    ("gre-steer", "addresses6", "Ipv4", "Address6"),
    ("gre-steer", "customers", "u32", "Customer"),
    ("gre-steer", "tunnels", "u32", "GreTunnel"),
    ("acl", "rules", "u32", "AclRule"),
    ("acl", "config", "u32", "AclConfig"),
    ("acl", "hits", "u32", "u64"),
    ("stats", "customers", "CustomerKey", "Counter"),
    ("stats", "customers_dense", "u32", "CustomerCounters"),
    ("stats", "sessions", "u32", "SessionCounters"),
    ("stats", "sessions_percpu", "u32", "SessionCounters"),
];

/// The names of the types of key and value of a program's map.
pub(crate) fn types(program: &str, map: &str) -> Result<(&'static str, &'static str), String> {
    let found = MAPS.iter().find(|(p, m, ..)| *p == program && *m == map);
    found.map(|(_, _, key, value)| (*key, *value)).ok_or_else(|| format!("no type for `{program}/{map}`"))
}

/// The octets of a value of type `name`.
pub(crate) fn encode(name: &str, value: &Value) -> Result<Vec<u8>, String> {
    let (_, layout) =
        TYPES.iter().find(|(n, _)| *n == name).ok_or_else(|| format!("no type is called `{name}`"))?;
    if !layout.contains(':') {
        return scalar(layout, value);
    }
    let fields = value.as_object().ok_or_else(|| format!("a {name} is written as its fields"))?;
    let mut octets = Vec::new();
    overlay(name, &mut octets, &flat(fields))?;
    Ok(octets)
}

/// Fields of structs inside by both names: `uplink: { packets: 1 }` is `uplink_packets: 1`.
fn flat(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in fields {
        match value {
            Value::Object(inside) => {
                all.extend(inside.iter().map(|(inner, value)| (format!("{name}_{inner}"), value.clone())));
            }
            value => drop(all.insert(name.clone(), value.clone())),
        }
    }
    all
}

/// Writes the fields that are named over `octets`, a value of struct `name`; over zeroes when it is empty.
pub(crate) fn overlay(name: &str, octets: &mut Vec<u8>, fields: &Map<String, Value>) -> Result<(), String> {
    let (_, layout) =
        TYPES.iter().find(|(n, _)| *n == name).ok_or_else(|| format!("no type is called `{name}`"))?;
    let mut known = 0;
    let mut offset = 0;
    let fresh = octets.is_empty();
    for field in layout.split_whitespace() {
        let (field, kind) = field.split_once(':').ok_or("a field is name:kind")?;
        let size = if field == "_" { kind.parse().map_err(|_| "padding is a number")? } else { size(kind)? };
        if fresh {
            octets.resize(offset + size, 0);
        }
        if let Some(value) = fields.get(field) {
            known += 1;
            let new = scalar(kind, value).map_err(|error| format!("{name}.{field}: {error}"))?;
            octets[offset..offset + size].copy_from_slice(&new);
        }
        offset += size;
    }
    if known == fields.len() { Ok(()) } else { Err(format!("{name} has not all of the fields {fields:?}")) }
}

/// Octets of a kind.
fn size(kind: &str) -> Result<usize, String> {
    if let Some((kind, count)) = kind.split_once('x') {
        return Ok(size(kind)? * count.parse::<usize>().map_err(|_| "an array's length is a number")?);
    }
    Ok(match kind {
        "u8" | "direction" => 1,
        "u16" | "reason" => 2,
        "u32" | "ip4" | "be32" => 4,
        "u64" | "user" => 8,
        "ip6" => 16,
        _ => return Err(format!("no kind `{kind}`")),
    })
}

/// The octets of one value.
fn scalar(kind: &str, value: &Value) -> Result<Vec<u8>, String> {
    if let Some((kind, _)) = kind.split_once('x') {
        let values = value.as_array().ok_or("an array is expected")?;
        return Ok(values.iter().map(|v| scalar(kind, v)).collect::<Result<Vec<_>, _>>()?.concat());
    }
    let number = || value.as_u64().ok_or_else(|| format!("`{value:?}` is no number"));
    let text = || value.as_str().ok_or_else(|| format!("`{value:?}` is no text"));
    let narrow = |bits: u32| {
        let number = number()?;
        if number >> bits == 0 { Ok(number) } else { Err(format!("{number} does not fit {bits} bits")) }
    };
    Ok(match kind {
        "u8" => vec![narrow(8)? as u8],
        "u16" => (narrow(16)? as u16).to_ne_bytes().to_vec(),
        "u32" => (narrow(32)? as u32).to_ne_bytes().to_vec(),
        "u64" => number()?.to_ne_bytes().to_vec(),
        "be32" => (narrow(32)? as u32).to_be_bytes().to_vec(),
        "ip4" => text()?.parse::<Ipv4Addr>().map_err(|e| e.to_string())?.octets().to_vec(),
        "ip6" => match text()?.parse::<Ipv4Addr>() {
            Ok(four) => four.to_ipv6_mapped().octets().to_vec(),
            Err(_) => text()?.parse::<Ipv6Addr>().map_err(|e| e.to_string())?.octets().to_vec(),
        },
        "user" => match text()?.parse::<Ipv4Addr>() {
            Ok(four) => [[0xff; 4], four.octets()].concat(),
            Err(_) => {
                let six = text()?.parse::<Ipv6Addr>().map_err(|e| e.to_string())?.octets();
                let (user, rest) = six.split_at(8);
                if rest != [0; 8] {
                    return Err(format!("`{value}` is not the first address of a /64"));
                }
                user.to_vec()
            }
        },
        "direction" => vec![match text()? {
            "none" => 0,
            "uplink" => 1,
            "downlink" => 2,
            other => return Err(format!("no direction `{other}`")),
        }],
        "reason" => {
            let name = text()?;
            let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
            (*reason.ok_or_else(|| format!("no reason `{name}`"))? as u16).to_ne_bytes().to_vec()
        }
        _ => return Err(format!("no kind `{kind}`")),
    })
}
